"""MT nnU-Net on BUS-UCLM, made for two CPU cores; not a published setting.

python main.py --config=configs/mt_nnunet_small.py --workdir=runs/mt_nnunet_small
"""

from configs import base


def get_config():
    """The base recipe, scaled down and sped up."""
    config = base.get_config()
    config.name = "mt_nnunet_small"
    config.data.name = "bus_uclm"
    config.data.image_size = (64, 64)
    config.model.name = "nnunet"
    config.model.width = 16
    config.loss.weight = 0.4
    config.train.epochs = 36
    config.train.batch_size = 8
    config.train.augmentation = "upright"
    config.train.rotation_fill = "reflect"
    config.train.learning_rate = 1e-3
    config.train.adam_epsilon = 1e-8
    config.train.plateau_patience = 6
    config.train.keep = "last"
    config.eval.average = True
    return config
