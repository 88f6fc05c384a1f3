"""A 3×3 convolution of four rows at a time, with half as many multiplications.

Winograd's minimal filtering F(4, 3) along the height: of the six rows that four rows of the result
read, and of the three rows of the kernel, six weighted sums are taken each. Each sum of image rows
is convolved with the sum of kernel rows of the same number, along the width alone, and the four
rows are weighted sums of the six products: 6 × 3 multiplications instead of 4 × 9.

Paper: Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks (CVPR), in two
dimensions; in one, whole rows are added up, which a CPU does at the speed of its memory. The
weights are those of the polynomials through 0, 1, −1, 2, −2 and infinity. In single precision
the largest error is about 3e-6 of the largest value (`tests/test_ops_fixed_kernel.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

# Rows of the result that are computed together.
ROWS = 4

# By number of the sum: weights of the six image rows, of the three kernel rows.
_OF_IMAGE = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
# By row of the result: weights of the six products.
_OF_PRODUCTS = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def sums_of_rows(kernel: jax.Array) -> list[jax.Array]:
    """The six sums of the rows of a ``(3, 3, in, out)`` kernel, each ``(1, 3, in, out)``."""
    return [_weighted_sum(weights, kernel)[None] for weights in _OF_KERNEL]


def convolution(image: jax.Array, kernels: Sequence[jax.Array]) -> jax.Array:
    """3×3 convolution (cross-correlation) with zero padding 1 and stride 1.

    Args:
      image: ``(batch, height, width, in)``; height a multiple of four.
      kernels: `sums_of_rows` of the kernel.

    Returns:
      ``(batch, height, width, out)``.
    """
    batch, height, width, channels = image.shape
    fours = image.reshape(batch, height // ROWS, ROWS, width, channels)
    border = jnp.zeros_like(fours[:, :1, 0])
    above = jnp.concatenate([border, fours[:, :-1, -1]], axis=1)
    below = jnp.concatenate([fours[:, 1:, 0], border], axis=1)
    rows = [above, *(fours[:, :, i] for i in range(ROWS)), below]
    products = [
        lax.conv_general_dilated(
            _weighted_sum(weights, rows),
            kernel,
            (1, 1),
            ((0, 0), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for weights, kernel in zip(_OF_IMAGE, kernels, strict=True)
    ]
    result = jnp.stack([_weighted_sum(weights, products) for weights in _OF_PRODUCTS], axis=2)
    return result.reshape(batch, height, width, -1)


def _weighted_sum(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    return sum(w * a for w, a in zip(weights, arrays, strict=True) if w)
