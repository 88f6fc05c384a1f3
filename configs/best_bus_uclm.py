"""`best` on BUS-UCLM: fewer epochs, since there are more images; nearest-neighbour resizing.

  python main.py --config=configs/best_bus_uclm.py --workdir=runs/best_bus_uclm

To keep patients apart: --config.data.split=grouped
"""

from configs import best


def get_config():
    """The recipe."""
    config = best.get_config()
    config.name = "best_bus_uclm"
    config.data.name = "bus_uclm"
    config.data.resize = "nearest"  # area is no better here (docs/results.md)
    config.train.epochs = 14
    return config
