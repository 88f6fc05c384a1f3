"""3×3 convolutions on a CPU with a fixed kernel, which is worth rearranging once.

In training a kernel is read a few times and then replaced. In prediction it is read for each
picture, so what depends on it alone can be computed beforehand. Measurements decided which
arrangement is used when.
"""

from __future__ import annotations

import jax
from jax import lax

from mtbus_jax.models.cpu import convolution, winograd

# What `arrange` returns has one of these keys.
PLAIN, PATCHES, KERNEL_FIRST, FOUR_ROWS = "plain", "patches", "kernel_first", "four_rows"
# The fewest channels, in and out, for which `winograd` saves more in products than its sums cost.
_FEWEST_IN, _FEWEST_OUT = 96, 48


def arrangement(shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> str:
    """Which arrangement `arrange` chooses.

    Args:
      shape: ``(batch, height, width, in)`` of the images.
      kernel_shape: ``(3, 3, in, out)``.
    """
    batch, height, width, _ = shape
    channels, out = kernel_shape[2:]
    pixels = batch * height * width
    if 2 * pixels <= out:
        return KERNEL_FIRST
    many = channels >= _FEWEST_IN and out >= _FEWEST_OUT
    if many and pixels > out and height % winograd.ROWS == 0:
        return FOUR_ROWS
    return PATCHES if convolution.is_wide(shape, kernel_shape) else PLAIN


def arrange(kernel: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array | list[jax.Array]]:
    """Arranges a kernel as `convolve` reads it fastest for images of a shape.

    Args:
      kernel: ``(3, 3, in, out)``.
      shape: ``(batch, height, width, in)``.

    Returns:
      One item: the arrangement's name and its arrays.
    """
    name = arrangement(shape, kernel.shape)
    if name == KERNEL_FIRST:
        # Libraries of matrix products rearrange the second factor before they multiply, and the
        # kernel is the larger one. As the first factor it is read in place.
        return {name: kernel.reshape(-1, kernel.shape[3]).T}
    return {name: list(winograd.sums_of_kernel(kernel)) if name == FOUR_ROWS else kernel}


def convolve(image: jax.Array, arranged: dict[str, jax.Array | list[jax.Array]]) -> jax.Array:
    """3×3 convolution (cross-correlation) with zero padding 1 and stride 1.

    Args:
      image: ``(batch, height, width, in)``, with the height that the kernel was arranged for.
      arranged: what `arrange` returned.

    Returns:
      ``(batch, height, width, out)``.
    """
    ((name, kernel),) = arranged.items()
    if name == FOUR_ROWS:
        return winograd.convolution(image, kernel)
    if name == PATCHES:
        return convolution.patches_convolution(image, kernel)
    if name == KERNEL_FIRST:
        products = lax.dot_general(kernel, convolution.patches(image), (((1,), (1,)), ((), ())))
        # Without the barrier XLA would swap the factors again to avoid the transposition.
        return lax.optimization_barrier(products).T.reshape(*image.shape[:3], -1)
    return convolution.convolution_3x3(image, kernel)
