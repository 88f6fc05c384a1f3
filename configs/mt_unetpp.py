"""MT UNet++ with DO and PR on Curated BUSI: Aumente-Maestro et al. 2025, Table 5, MT+PR+DO.

  python main.py --config=configs/mt_unetpp.py --workdir=runs/mt_unetpp

Published: DSC average 0.751 ± 0.018, accuracy 0.802 ± 0.018 (4 folds). Here, fold 0 alone: DSC
0.792, accuracy 0.796 (docs/results.md). The base config is this recipe, so nothing is changed here;
ablations are overrides:
  without DO          --config.train.oversample=False
  segmentation only   --config.tasks="('seg',)"
  printed head        --config.model.head=printed
"""

from configs import base


def get_config():
    """The base recipe, named."""
    config = base.get_config()
    config.name = "mt_unetpp"
    return config
