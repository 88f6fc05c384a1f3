"""A small MT UNet++ on the embedded phantoms: the whole path in minutes on two CPU cores.

  python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Not a published setting: simulated images, one fold, 64×64 pixels, a third of the width, larger
steps, more weight on the class, augmentation that keeps the skin above, the weights of the last
epoch (docs/training.md). It shows that everything works, not how good the method is: in so few
steps the lesions are outlined well, the class less so.
"""

from configs import base


def get_config():
    """The base recipe, scaled down."""
    config = base.get_config()
    config.name = "quickstart"
    config.data.name = "phantom"
    config.data.folds = (0,)
    config.data.image_size = (64, 64)
    config.model.width = 8
    config.loss.weight = 0.4
    config.train.epochs = 12
    config.train.batch_size = 4
    config.train.augmentation = "upright"
    config.train.rotation_fill = "reflect"
    config.train.learning_rate = 1e-3
    config.train.adam_epsilon = 1e-8
    config.train.keep = "last"
    config.eval.average = True
    return config
