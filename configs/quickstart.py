"""A small MT UNet++ on the embedded phantoms: the whole path in minutes on two CPU cores.

  python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Not a published setting: simulated images, one fold, 64×64 pixels, a third of the width, larger
steps, more weight on the class. It shows that everything works, not how good the method is: in so
few steps the lesions are outlined well, the class hardly.
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
    config.train.learning_rate = 5e-4
    return config
