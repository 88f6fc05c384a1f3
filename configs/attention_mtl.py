"""An attention multi-task U-Net on Curated BUSI, in the spirit of Emmanuel et al. 2026.

  python main.py --config=configs/attention_mtl.py --workdir=runs/attention_mtl

Of doi 10.1038/s41598-026-51534-7 only the abstract is known: a multi-task U-Net with
deterministic oversampling, prediction refinement and "attention-guided feature learning" on "a
curated version of BUSI", Dice "up to 0.81", accuracy "up to 0.96–0.98"; it does not mention folds.
So this is not a reproduction. Our assumptions: attention gates on the skips (Oktay et al. 2018),
the 450 images of Curated BUSI, and for everything else the recipe of Aumente-Maestro et al. 2025
with its four published folds.
"""

from configs import base


def get_config():
    """The base recipe with the other network."""
    config = base.get_config()
    config.name = "attention_mtl"
    config.model.name = "attention_unet"
    return config
