"""MT nnU-Net with DO and PR on Curated BUSI: Aumente-Maestro et al. 2025, Table 6, MT+PR+DO.

  python main.py --config=configs/mt_nnunet.py --workdir=runs/mt_nnunet

Published: DSC average 0.754 ± 0.035, accuracy 0.780 ± 0.017 (4 folds). Ablations are overrides:
  without DO               --config.train.oversample=False
  segmentation only        --config.tasks="('seg',)"
  without deep supervision --config.model.deep_supervision=False
"""

from configs import base


def get_config():
    """The base recipe with the other network."""
    config = base.get_config()
    config.name = "mt_nnunet"
    config.model.name = "nnunet"
    return config
