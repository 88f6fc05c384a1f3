"""ACSNet on the benign and malignant images of BUSI: He et al. 2024, five folds at 256×256.

  python main.py --config=configs/acsnet.py --workdir=runs/acsnet

Published (mean ± sd over 5 folds, n): Dice 0.849 ± 0.017, Jaccard 0.786 ± 0.018, HD95 13.04 ± 2.58
pixels, accuracy 0.944 ± 0.021. These are too high for a comparison: only the first mask of an image
is read, soft borders of resized masks are ignored, and the reported epoch is the best one on the
test fold. Here every mask counts, borders are sharp, and no choice is made on test images.

ImageNet weights for the encoder: --config.model.encoder_weights=resnet18-f37072fd.pth
Networks of its Table 1 are overrides, see docs/networks.md: --config.model.gates=False and so on.

The recipe follows the released code (Adam β₂ 0.999, coupled decay 1e-4, 90 epochs, batch 8, cosine
from 1e-4 to a tenth), with the text's fixed weights of the losses, λ = 0.7. What differs:
  - The code learns the two weights, as --config.loss.weighting=learned does here. The text adds
    LossNet, a loss on features of VGG-16, to the Dice loss. With a file of VGG-16 weights, use
    --config.loss.lossnet=0.2 --config.loss.lossnet_weights=vgg16-397923af.pth
  - The Dice loss is smoothed by 1, as in the text, and not by 1e-5, as in the code.
  - The learning rate falls with every step, theirs with every epoch.
  - Folds are drawn with near-duplicates in one fold. Theirs come from an unsorted listing of a
    folder and cannot be reproduced. A fifth of the training images is held out for validation.
  - The weights tested are those of the last epoch.
"""

from configs import base


def get_config():
    """The recipe."""
    config = base.get_config()
    config.name = "acsnet"
    config.data.name = "busi"
    config.data.class_names = ("benign", "malignant")
    config.data.split = "grouped"
    config.data.fold_count = 5
    config.data.image_size = (256, 256)
    config.model.name = "acsnet"
    config.loss.weight = 0.7
    config.loss.gamma = 0.0
    config.loss.dice = "plain"
    config.train.epochs = 90
    config.train.batch_size = 8
    config.train.oversample = False
    config.train.augmentation = "tilted"
    config.train.adam_epsilon = 1e-8
    config.train.l2 = 1e-4
    config.train.course = "cosine"
    config.train.cosine_floor = 0.1
    config.train.stop_patience = 1000
    config.train.keep = "last"
    config.eval.refine = False
    return config
