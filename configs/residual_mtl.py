"""Residual-U-Net MTL on BUSI: Jignesh Chowdary et al. 2022, five folds.

  python main.py --config=configs/residual_mtl.py --workdir=runs/residual_mtl

A network of nine levels whose residual units concatenate, see `mtbus_jax.models.residual_mtl` for
what the text leaves open. Some of its figures contradict each other: a three-class F1 of 99.32 %
cannot come from a precision of 99 % and a recall of 98.12 %, whose harmonic mean is 98.56 %. Its
numbers of benign and normal images are swapped. The text says only that there are five folds; here
near-duplicates are kept in one fold.

Published recipe: Adam, learning rate 1e-4 that "decreases by one tenth" every 20 epochs, batch 16,
500 epochs, flips and "rotations of 30°". The decay is read as ×0.9, which ends at 8e-6; ÷10
would end at 1e-28, and is --config.train.decay_factor=0.1.
Its two-class result: --config.data.class_names=benign,malignant, with the same rule's weights
--config.loss.class_weights=0.74,1.54.
What differs:
  - The equation that gives the weights of the focal loss is not legible. Here they are inversely
    proportional to the images that BUSI has of a class, 437 benign, 210 malignant, 133 normal:
    780/(3·count). γ is not legible either; 2 is the value of Lin et al. 2017.
  - Rotations are drawn up to 30° and flips with a probability of 0.6, as for ACSNet; the text says
    neither.
  - Both losses have the same weight, since the text does not say otherwise.
  - The enhancement of images is named but not described; `mtbus_jax.images.enhancement` says what
    was chosen.
  - The weights tested are those of the last epoch.
"""

from configs import base


def get_config():
    """The recipe."""
    config = base.get_config()
    config.name = "residual_mtl"
    config.data.name = "busi"
    config.data.split = "grouped"
    config.data.fold_count = 5
    config.data.enhancement = "multi_peak"
    config.model.name = "residual_mtl"
    config.loss.weight = 0.5
    config.loss.dice = "plain"
    config.loss.class_weights = (0.595, 1.238, 1.955)
    config.train.epochs = 500
    config.train.batch_size = 16
    config.train.oversample = False
    config.train.augmentation = "tilted"
    config.train.adam_epsilon = 1e-8
    config.train.course = "decay"
    config.train.stop_patience = 1000
    config.train.keep = "last"
    config.eval.refine = False
    return config
