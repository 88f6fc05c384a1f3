"""MT UNet++ on Curated BUSI, scaled down for two CPU cores; not a published setting.

  python main.py --config=configs/mt_unetpp_small.py --workdir=runs/mt_unetpp_small

Changes to the published recipe: 64×64 pixels instead of 128×128, half the width, 30 epochs instead
of 200, and batches of 8 instead of 2 with a higher learning rate. Everything else (folds, losses,
oversampling, augmentation, refining) is as published. DSC average 0.713 ± 0.026 (refined), accuracy
0.587 ± 0.042 over four folds, about 14 minutes a fold on an idle machine: docs/results.md.
"""

from configs import base


def get_config():
    """The base recipe, scaled down."""
    config = base.get_config()
    config.name = "mt_unetpp_small"
    config.data.image_size = (64, 64)
    config.model.width = 12
    config.train.epochs = 30
    config.train.batch_size = 8
    config.train.learning_rate = 5e-4
    return config
