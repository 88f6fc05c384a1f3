"""MT UNet++ with DO and PR on BUS-UCLM: Aumente-Maestro et al. 2025, Tables 10 and 11, MT+PR+DO.

  python main.py --config=configs/mt_unetpp_bus_uclm.py --workdir=runs/mt_unetpp_bus_uclm

Published: DSC average 0.803 ± 0.025, accuracy 0.858 ± 0.025 (4 folds by image, so frames of one
patient are on both sides). An honest estimate keeps patients apart: --config.data.split=grouped.
"""

from configs import base


def get_config():
    """The base recipe with the dataset's epochs and λ."""
    config = base.get_config()
    config.name = "mt_unetpp_bus_uclm"
    config.data.name = "bus_uclm"
    config.loss.weight = 0.4
    config.train.epochs = 250
    return config
