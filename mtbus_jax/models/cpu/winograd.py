"""A 3×3 convolution of four rows at a time, with half as many multiplications.

Winograd's minimal filtering F(4, 3) along the height: of the six rows that four rows of the result
read, and of the three rows of the kernel, six weighted sums are taken each. Each sum of image rows
is convolved with the sum of kernel rows of the same number, along the width alone, and the four
rows are weighted sums of the six products: 6 × 3 multiplications instead of 4 × 9.

Paper: Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks (CVPR). It works in
two dimensions; in one dimension whole rows are added up, which a CPU does at the speed of its
memory. The weights are those of the polynomials through 0, 1, −1, 2, −2 and infinity. In single
precision the largest error is about 3e-6 of the largest value
(`tests/models/cpu/test_fixed_kernel.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
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


def sums_of_kernel(kernel: jax.Array) -> jax.Array:
    """The six sums of the rows of a ``(3, 3, in, out)`` kernel, ``(6, 3, in, out)``."""
    weights = jnp.asarray(_OF_KERNEL, kernel.dtype)
    return (weights @ kernel.reshape(3, -1)).reshape(6, *kernel.shape[1:])


def transpose_of_sums_of_kernel(sums: Sequence[jax.Array]) -> jax.Array:
    """``(3, 3, in, out)`` from six ``(3, in, out)``: the transpose of `sums_of_kernel`."""
    weights = np.transpose(_OF_KERNEL)
    return jnp.stack([_weighted_sum(each, sums) for each in weights])


def sums_of_image(image: jax.Array) -> list[jax.Array]:
    """The six sums of the rows that four rows of a convolution's result read.

    Args:
      image: ``(batch, height, width, in)``; height a multiple of four.

    Returns:
      Each ``(batch, height / 4, width, in)``.
    """
    fours = _in_fours(image)
    border = jnp.zeros_like(fours[:, :1, 0])
    above = jnp.concatenate([border, fours[:, :-1, -1]], axis=1)
    below = jnp.concatenate([fours[:, 1:, 0], border], axis=1)
    rows = [above, *(fours[:, :, i] for i in range(ROWS)), below]
    return [_weighted_sum(weights, rows) for weights in _OF_IMAGE]


def transpose_of_sums_of_image(sums: Sequence[jax.Array]) -> jax.Array:
    """``(batch, height, width, in)`` from six: the transpose of `sums_of_image`."""
    above, *rows, below = (_weighted_sum(each, sums) for each in np.transpose(_OF_IMAGE))
    border = jnp.zeros_like(above[:, :1])
    # The row above a block of four is the last row of the block before.
    rows[0] += jnp.concatenate([border, below[:, :-1]], axis=1)
    rows[-1] += jnp.concatenate([above[:, 1:], border], axis=1)
    return _in_ones(rows)


def rows_of_result(products: Sequence[jax.Array]) -> jax.Array:
    """``(batch, height, width, out)`` from six ``(batch, height / 4, width, out)``."""
    return _in_ones([_weighted_sum(weights, products) for weights in _OF_PRODUCTS])


def transpose_of_rows_of_result(gradient: jax.Array) -> list[jax.Array]:
    """Six sums of a ``(batch, height, width, out)``'s rows: the transpose of `rows_of_result`."""
    fours = _in_fours(gradient)
    rows = [fours[:, :, i] for i in range(ROWS)]
    return [_weighted_sum(weights, rows) for weights in np.transpose(_OF_PRODUCTS)]


def convolution(image: jax.Array, sums: Sequence[jax.Array]) -> jax.Array:
    """3×3 convolution (cross-correlation) with zero padding 1 and stride 1.

    Args:
      image: ``(batch, height, width, in)``; height a multiple of four.
      sums: `sums_of_kernel` of the kernel.

    Returns:
      ``(batch, height, width, out)``.
    """
    products = [
        convolution_of_rows(each, kernel)
        for each, kernel in zip(sums_of_image(image), sums, strict=True)
    ]
    return rows_of_result(products)


def convolution_of_rows(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution along the width, of ``(batch, rows, width, in)`` with ``(3, in, out)``."""
    return lax.conv_general_dilated(
        image, kernel[None], (1, 1), ((0, 0), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _in_fours(image: jax.Array) -> jax.Array:
    """``(batch, height, …)`` → ``(batch, height / 4, 4, …)``."""
    batch, height, *rest = image.shape
    return image.reshape(batch, height // ROWS, ROWS, *rest)


def _in_ones(rows: Sequence[jax.Array]) -> jax.Array:
    """Four ``(batch, height / 4, …)`` → ``(batch, height, …)``."""
    fours = jnp.stack(rows, axis=2)
    return fours.reshape(fours.shape[0], -1, *fours.shape[3:])


def _weighted_sum(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    # Python floats leave the arrays' type as it is.
    return sum(float(w) * a for w, a in zip(weights, arrays, strict=True) if w)
