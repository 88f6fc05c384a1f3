"""Progressive image size: the first epochs are trained on smaller images, the others on all pixels.

Tan and Le 2021 (ICML, EfficientNetV2) grow the size in several stages; here there are two. Images
are made smaller on the device, after they were augmented, so nothing else of a run changes.
Validation and test images always have the full size.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
from ml_collections import config_dict

from mtbus_jax import models, types
from mtbus_jax.errors import UserError

# A share such as 0.29 of 100 epochs is 28.999… in binary numbers.
_ROUNDING = 1e-9


def size(config: config_dict.ConfigDict, epoch: int) -> tuple[int, int] | None:
    """The image size of an epoch, (height, width) in pixels; None for the full size.

    Args:
      config: of the run.
      epoch: epochs done before this one.
    """
    if epoch + 1 > config.train.small_share * config.train.epochs + _ROUNDING:
        return None
    scale = config.train.small_scale
    return tuple(round(side * scale) for side in config.data.image_size)


def shrunk(batch: types.Batch, new: tuple[int, int]) -> types.Batch:
    """A batch with smaller images and masks.

    An image pixel becomes the weighted mean of those around its centre (linear interpolation with
    the triangle widened to the step between new pixels, as in Pillow). Masks are read by nearest
    neighbour.

    Args:
      batch: of any size.
      new: (height, width) in pixels.
    """

    def resized(array, method):
        return jax.image.resize(array, (len(array), *new, array.shape[-1]), method)

    return batch._replace(image=resized(batch.image, "linear"), mask=resized(batch.mask, "nearest"))


def check_size(module: nn.Module, config: config_dict.ConfigDict) -> None:
    """Refuses a smaller size that is no size of whole pixels, or that the network cannot halve.

    Raises:
      UserError: naming the scales that can be used.
    """
    if not config.train.small_share:
        return
    full, scale, multiple = tuple(config.data.image_size), config.train.small_scale, 2**module.depth

    def fits(scale: float) -> bool:
        sides = [side * scale for side in full]
        return all(
            abs(side - round(side)) < _ROUNDING and round(side) % multiple == 0 for side in sides
        )

    if fits(scale):
        return
    steps = math.gcd(*full) // multiple
    known = ", ".join(f"{part / steps:.4g}" for part in range(1, steps) if fits(part / steps))
    advice = (
        f"Scales that work: {known}." if known else "There is none; leave train.small_share at 0."
    )
    raise UserError(
        f"train.small_scale={scale} of data.image_size={full} is "
        f"{' × '.join(f'{side * scale:g}' for side in full)} pixels, but sides must be multiples "
        f"of {multiple} (this network halves the resolution {module.depth} times). {advice}"
    )


def check_parameters(module: nn.Module, config: config_dict.ConfigDict) -> None:
    """Refuses a network whose parameters depend on the size of its input.

    Raises:
      UserError: if they do.
    """
    small = size(config, 0)
    if small is None:
        return
    full = tuple(config.data.image_size)
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, models.init_shapes(module, (*each, 1)))
        for each in (small, full)
    ]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"train.small_share={config.train.small_share} trains at {small[0]}×{small[1]} and at "
            f"{full[0]}×{full[1]} pixels, but the parameters of {config.model.name} depend on the "
            "size of its input. Set --config.train.small_share=0."
        )
