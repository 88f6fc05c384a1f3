"""Enlarging feature maps so that the corners of both grids coincide."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def doubled(image: jax.Array) -> jax.Array:
    """Bilinear interpolation to twice the height and width, corners aligned.

    PyTorch's ``Upsample(scale_factor=2, mode="bilinear", align_corners=True)``: row i of the result
    lies at row i·(height − 1)/(2·height − 1) of the image; columns likewise.
    `jax.image.resize` aligns edges of pixels instead.

    Args:
      image: ``(batch, height, width, channels)``, floating point.

    Returns:
      ``(batch, 2·height, 2·width, channels)`` of the image's type.
    """
    return _doubled_along(_doubled_along(image, 1), 2)


def _doubled_along(image: jax.Array, axis: int) -> jax.Array:
    """Doubles the length of an axis.

    Row 2k lies k/(2n − 1) before row k of the image, row 2k + 1 lies (n − 1 − k)/(2n − 1) behind
    it: both are weighted means of two neighbours, so no row has to be looked up by index.
    """
    length = image.shape[axis]
    ahead = [1] * (image.ndim - axis)
    ahead[0] = length
    before = (np.arange(length) / (2 * length - 1)).reshape(ahead)
    before, behind = (jnp.asarray(share, image.dtype) for share in (before, np.flip(before, 0)))
    # No row precedes the first one and none follows the last; their shares are 0.
    inner = [slice(None)] * axis
    first, last = image[(*inner, slice(0, 1))], image[(*inner, slice(-1, None))]
    left = jnp.concatenate([first, image[(*inner, slice(0, -1))]], axis=axis)
    right = jnp.concatenate([image[(*inner, slice(1, None))], last], axis=axis)
    even = image + before * (left - image)
    odd = image + behind * (right - image)
    shape = (*image.shape[:axis], 2 * length, *image.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape)
