"""MT nnU-Net on BUS-UCLM, made for two CPU cores; not a published setting.

  python main.py --config=configs/mt_nnunet_small.py --workdir=runs/mt_nnunet_small

Changes to the published recipe: 64×64 pixels instead of 128×128, half the width, 36 epochs instead
of 250, batches of 8 with a higher learning rate and Adam's usual ε; augmentation that keeps the
skin at the top, the weights of the last epoch, the mean over an image and its mirror image
(docs/training.md). On the first published fold (171 images, frames of their patients in training)
DSC average 0.811 and 0.814, accuracy 0.836 and 0.830 with seeds 1 and 2, refined; 22 minutes on one
core: docs/results.md.
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
    config.train.plateau_patience = 5
    config.train.plateau_threshold = 0.0
    config.train.keep = "last"
    config.eval.average = True
    return config
