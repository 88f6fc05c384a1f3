"""3×3 convolutions on a CPU whose kernel stays what it is: worth arranging for what reads it.

In training a kernel is read a few times and then replaced. In prediction it is read for each
picture, so what depends on it alone can be computed beforehand. Which arrangement is fastest was
measured.
"""

from __future__ import annotations

import jax
from jax import lax

from mtbus_jax.models.cpu import convolution, winograd

# What `arrange` returns has one of these keys.
PLAIN, PATCHES, KERNEL_FIRST, FOUR_ROWS = "plain", "patches", "kernel_first", "four_rows"
# The fewest channels, in and out, with which `winograd` saves more in products than its sums cost.
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
    """A kernel as `convolve` reads it fastest for images of a shape.

    Args:
      kernel: ``(3, 3, in, out)``.
      shape: ``(batch, height, width, in)``.

    Returns:
      By name of the arrangement, whatever it consists of.
    """
    name = arrangement(shape, kernel.shape)
    if name == KERNEL_FIRST:
        # A library of matrix products rearranges the second factor before it multiplies, and the
        # kernel is the larger one. As the first it is read as it lies there.
        return {name: kernel.reshape(-1, kernel.shape[3]).T}
    return {name: list(winograd.sums_of_kernel(kernel)) if name == FOUR_ROWS else kernel}


def convolve(image: jax.Array, arranged: dict[str, jax.Array | list[jax.Array]]) -> jax.Array:
    """3×3 convolution (cross-correlation) with zero padding 1 and stride 1.

    Args:
      image: ``(batch, height, width, in)``, height that of the shape it was arranged for.
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
        # Without the barrier XLA would swap the factors again to do without transposing.
        return lax.optimization_barrier(products).T.reshape(*image.shape[:3], -1)
    return convolution.convolution_3x3(image, kernel)
