"""The multi-branch U-Net of Adityan et al. 2023 (ICIP) on Curated BUSI.

Aumente-Maestro et al. 2025, Tables 8 and 9:

  python main.py --config=configs/adityan.py --workdir=runs/adityan

Published: DSC average 0.645 ± 0.026, accuracy 0.749 ± 0.026 (4 folds; without DO and PR). Its third
branch reconstructs the input; --config.loss.reconstruction weighs that loss.
"""

from configs import base


def get_config():
    """The base recipe with the other network, without oversampling and refining."""
    config = base.get_config()
    config.name = "adityan"
    config.model.name = "adityan"
    config.train.oversample = False
    config.eval.refine = False
    return config
