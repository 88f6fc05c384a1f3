"""`winograd`'s convolution for training; its gradients take half as many multiplications too.

The three steps of the convolution (sums of rows, products, rows of the result) are linear in the
image and in the kernel, so its gradients are the same steps backwards: sums of the gradient's rows,
products of these for both gradients, and sums of the products. The sums of the forward pass are
kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mtbus_jax.models.cpu import products, winograd

Convolution = Callable[[jax.Array, jax.Array], jax.Array]

# The fewest channels on the narrower and on the wider side for which the products saved would cost
# more than the sums. Measured.
_FEWEST, _FEWEST_OF_MORE = 48, 96
# The most pixels per channel of the narrower side for which the six products are one operation.
_PIXELS_TOGETHER = 16


def rule(image: jax.Array, kernel: jax.Array) -> Convolution | None:
    """The faster of this module's convolutions on a CPU, or None where the alternatives are faster.

    Types below float32 are left alone, because sums of rows would lose digits.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(3, 3, in, out)``.
    """
    batch, height, width, _ = image.shape
    fewer, more = sorted(kernel.shape[2:])
    if fewer < _FEWEST or more < _FEWEST_OF_MORE or height % winograd.ROWS:
        return None
    if image.dtype not in (jnp.float32, jnp.float64) or kernel.dtype != image.dtype:
        return None
    pixels = batch * height * width
    if 2 * pixels < fewer:  # what is saved is less than the sums of the kernel's rows cost
        return None
    return products_together if pixels <= _PIXELS_TOGETHER * fewer else products_apart


@jax.custom_vjp
def products_apart(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """3×3 convolution as six convolutions along the width, which copy nothing.

    Zero padding 1 and stride 1; cross-correlation, as everywhere in networks.

    Args:
      image: ``(batch, height, width, in)``, floating point; height a multiple of four.
      kernel: ``(3, 3, in, out)``, same type.

    Returns:
      ``(batch, height, width, out)``.
    """
    return _apart_forward(image, kernel)[0]


def _apart_forward(image, kernel):
    images, kernels = winograd.sums_of_image(image), list(winograd.sums_of_kernel(kernel))
    multiplied = [winograd.convolution_of_rows(i, k) for i, k in zip(images, kernels, strict=True)]
    return winograd.rows_of_result(multiplied), (images, kernels)


def _apart_backward(saved, gradient):
    images, kernels = saved
    gradients = winograd.transpose_of_rows_of_result(gradient)
    by_images = [
        winograd.convolution_of_rows(g, jnp.flip(k, 0).swapaxes(1, 2))
        for g, k in zip(gradients, kernels, strict=True)
    ]
    by_kernels = [_weight_gradient(i, g) for i, g in zip(images, gradients, strict=True)]
    return (
        winograd.transpose_of_sums_of_image(by_images),
        winograd.transpose_of_sums_of_kernel(by_kernels).astype(kernels[0].dtype),
    )


products_apart.defvjp(_apart_forward, _apart_backward)


def _weight_gradient(image: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of `winograd.convolution_of_rows` with respect to its kernel, ``(3, in, out)``."""
    if image.shape[3] > gradient.shape[3]:
        return jnp.flip(_moved_products(gradient, image), 0).swapaxes(1, 2)
    return _moved_products(image, gradient)


def _moved_products(moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """Σ over pixels (y, x) of MᵀF for each offset i, M at (y, x + i − 1), F at (y, x)."""
    # Columns take the place of rows.
    moving, fixed = moving.transpose(2, 0, 1, 3), fixed.transpose(2, 0, 1, 3)
    return products.row_products(products.planes(moving), fixed).swapaxes(0, 1)


@jax.custom_vjp
def products_together(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """`products_apart` as one product of six pairs of matrices.

    It needs three shifted copies of each row side by side, which is little with few pixels. It
    compiles faster.
    """
    return _together_forward(image, kernel)[0]


def _together_forward(image, kernel):
    batch, height, width, channels = image.shape
    images = jnp.stack(winograd.sums_of_image(image))
    padded = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))
    copies = jnp.concatenate([padded[:, :, :, i : i + width] for i in range(3)], axis=-1)
    copies = copies.reshape(6, -1, 3 * channels)
    kernels = winograd.sums_of_kernel(kernel).reshape(6, 3 * channels, -1)
    multiplied = lax.dot_general(copies, kernels, (((2,), (1,)), ((0,), (0,))))
    multiplied = multiplied.reshape(6, batch, height // winograd.ROWS, width, -1)
    return winograd.rows_of_result(multiplied), (copies, kernels)


def _together_backward(saved, gradient):
    copies, kernels = saved
    batch, height, width, out = gradient.shape
    channels = kernels.shape[1] // 3
    gradients = jnp.stack(winograd.transpose_of_rows_of_result(gradient)).reshape(6, -1, out)
    by_copies = lax.dot_general(gradients, kernels, (((2,), (2,)), ((0,), (0,))))
    by_copies = by_copies.reshape(6, batch, height // winograd.ROWS, width, 3, channels)
    border = jnp.zeros_like(by_copies[:, :, :, :1, 0])
    by_images = (
        jnp.concatenate([by_copies[:, :, :, 1:, 0], border], axis=3)
        + by_copies[:, :, :, :, 1]
        + jnp.concatenate([border, by_copies[:, :, :, :-1, 2]], axis=3)
    )
    by_kernels = lax.dot_general(copies, gradients, (((1,), (1,)), ((0,), (0,))))
    by_kernels = by_kernels.reshape(6, 3, channels, out)
    return (
        winograd.transpose_of_sums_of_image(by_images),
        winograd.transpose_of_sums_of_kernel(by_kernels),
    )


products_together.defvjp(_together_forward, _together_backward)
