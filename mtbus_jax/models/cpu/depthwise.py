"""Depthwise convolutions as sums of shifted products.

XLA's CPU backend computes a convolution with as many groups as channels one group at a time, and
its gradients in the same way. A sum over the taps of the kernel, each a product of a shifted map
with one weight per channel, is one pass over memory that XLA vectorises over the channels. Both
gradients have the same form. Used on a CPU, for values and gradients; elsewhere the convolution is
XLA's.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax


def depthwise_convolution(image: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """A convolution of each channel with its own kernel, with TensorFlow's SAME padding.

    Args:
      image: ``(batch, height, width, channels)``.
      kernel: ``(k, k, 1, channels)``, k odd, of the image's type.
      stride: 1 or 2, of both rows and columns.

    Returns:
      ``(batch, ⌈height/stride⌉, ⌈width/stride⌉, channels)``.
    """
    # The platform that the program runs on decides which of the two is compiled.
    return lax.platform_dependent(
        image,
        kernel,
        cpu=functools.partial(_shifted_products, stride),
        default=functools.partial(_grouped, stride=stride),
    )


def _grouped(image: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=image.shape[-1],
    )


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """SAME padding; of an odd number the larger part goes at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad(image: jax.Array, kernel_size: int, stride: int) -> jax.Array:
    rows, cols = (_padding(size, kernel_size, stride) for size in image.shape[1:3])
    return jnp.pad(image, ((0, 0), rows, cols, (0, 0)))


def _windows(padded: jax.Array, kernel_size: int, stride: int, shape: tuple[int, int]):
    """For each tap (row, column) the pixels that it meets, ``(batch, *shape, channels)``."""
    height, width = shape
    for row in range(kernel_size):
        for col in range(kernel_size):
            rows = slice(row, row + (height - 1) * stride + 1, stride)
            cols = slice(col, col + (width - 1) * stride + 1, stride)
            yield row, col, padded[:, rows, cols]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shifted_products(stride: int, image: jax.Array, kernel: jax.Array) -> jax.Array:
    size = kernel.shape[0]
    shape = tuple(-(-length // stride) for length in image.shape[1:3])
    windows = _windows(_pad(image, size, stride), size, stride, shape)
    return sum(window * kernel[row, col, 0] for row, col, window in windows)


def _forward(stride, image, kernel):
    return _shifted_products(stride, image, kernel), (image, kernel)


def _backward(stride, residuals, gradient):
    image, kernel = residuals
    size = kernel.shape[0]
    kernel_gradient = _kernel_gradient(stride, image, gradient, size).astype(kernel.dtype)
    # The input's gradient is the output's, spread by the stride, convolved with the flipped kernel.
    spread = [
        (size - 1 - before, length + before - 1 - (out - 1) * stride, stride - 1)
        for (before, _), length, out in (
            (_padding(length, size, stride), length, out)
            for length, out in zip(image.shape[1:3], gradient.shape[1:3], strict=True)
        )
    ]
    zero = jnp.zeros((), gradient.dtype)
    padded = lax.pad(gradient, zero, ((0, 0, 0), *spread, (0, 0, 0)))
    windows = _windows(padded, size, 1, image.shape[1:3])
    turned = kernel[::-1, ::-1]
    image_gradient = sum(window * turned[row, col, 0] for row, col, window in windows)
    return image_gradient, kernel_gradient


def _kernel_gradient(stride: int, image: jax.Array, gradient: jax.Array, size: int) -> jax.Array:
    """For each tap the sum, over images and pixels, of shifted image times gradient.

    Row by row, adding up the images of the batch within a row: XLA vectorises a sum of products of
    whole rows, but not a reduction to one number per channel, which takes three to four times as
    long.
    """
    batch, height, width, channels = gradient.shape
    padded = _pad(image, size, stride)

    def add_row(row, sums):
        rows = lax.dynamic_slice_in_dim(padded, row * stride, size, axis=1)
        of_row = lax.dynamic_index_in_dim(gradient, row, axis=1, keepdims=False)
        windows = _windows(rows, size, stride, (1, width))
        return tuple(
            total + sum(window[i, 0] * of_row[i] for i in range(batch))
            for total, (_, _, window) in zip(sums, windows, strict=True)
        )

    zero = jnp.zeros((width, channels), gradient.dtype)
    sums = lax.fori_loop(0, height, add_row, (zero,) * size**2)
    return jnp.stack([total.sum(axis=0) for total in sums]).reshape(size, size, 1, channels)


_shifted_products.defvjp(_forward, _backward)
