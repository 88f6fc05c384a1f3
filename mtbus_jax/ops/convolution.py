"""A 3×3 convolution whose weight gradient is made of matrix products.

XLA's CPU backend writes that gradient as a convolution with a window as large as the image, which
runs at a fraction of the speed of the forward pass (`benchmarks/convolution.py` shows both). Here
it is what it says: for each of the nine offsets a product over all pixels, XᵀG. A product of 24 by
24 channels leaves a processor idle, so neighbouring pixels of a row are taken as one with more
channels, for which no value of one side moves in memory. The other side is copied into windows,
each group with one pixel more on either side: their product holds the three offsets within a row in
its diagonal blocks and beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    **options,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`; on a CPU with the gradient rule of this module if it applies.

    It applies to channels-last 3×3 convolutions with stride 1, padding 1, neither dilation nor
    groups, a known batch size and more than a few channels. Elsewhere this is lax's own function.
    The platform is JAX's default backend at tracing time.
    """
    plain = functools.partial(
        lax.conv_general_dilated, dimension_numbers=dimension_numbers, **options
    )
    if jax.default_backend() == "cpu" and _applies(
        lhs, rhs, window_strides, padding, dimension_numbers, **options
    ):
        if is_wide(lhs, rhs):
            return patches_convolution(lhs, rhs)
        return convolution_3x3(lhs, rhs)
    return plain(lhs, rhs, window_strides, padding)


def _applies(
    lhs,
    rhs,
    window_strides,
    padding,
    dimension_numbers,
    *,
    lhs_dilation=None,
    rhs_dilation=None,
    feature_group_count=1,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
) -> bool:
    """Whether `convolution_3x3` computes this convolution, and its gradient faster."""
    if lhs.ndim != 4 or tuple(rhs.shape[:2]) != (3, 3):
        return False
    if not isinstance(lhs.shape[0], int):
        return False  # a free batch size: a network that is exported, which needs no gradient
    one = (1, 1)
    if tuple(window_strides) != one or padding not in ("SAME", [one, one], (one, one)):
        return False
    if any(tuple(d) != one for d in (lhs_dilation, rhs_dilation) if d is not None):
        return False
    if feature_group_count != 1 or batch_group_count != 1:
        return False
    if precision is not None or preferred_element_type is not None:
        return False
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    if lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) != layout:
        return False
    # One grey channel: nothing to multiply.
    return min(rhs.shape[2:]) >= 4


def is_wide(image: jax.Array, kernel: jax.Array) -> bool:
    """Whether there are so few pixels for so many channels that `patches_convolution` is faster."""
    batch, height, width, _ = image.shape
    return batch * height * width <= 2 * min(kernel.shape[2:])


def patches_convolution(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution_3x3` as one matrix product over every pixel's 3×3 patch.

    The patches take nine times the image's memory, which is nothing beside the kernel at the bottom
    of a U-Net; the kernel, by far the larger, is used in place, in the gradients too.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(3, 3, in, out)``.

    Returns:
      ``(batch, height, width, out)``.
    """
    batch, height, width, channels = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, 9 * channels)
    products = patches @ kernel.reshape(9 * channels, -1)
    return products.reshape(batch, height, width, -1)


@jax.custom_vjp
def convolution_3x3(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """3×3 convolution (cross-correlation) with zero padding 1 and stride 1.

    Args:
      image: ``(batch, height, width, in)``, floating point.
      kernel: ``(3, 3, in, out)``, same type.

    Returns:
      ``(batch, height, width, out)``.
    """
    return lax.conv_general_dilated(
        image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )


def _forward(image, kernel):
    return convolution_3x3(image, kernel), (image, kernel)


def _backward(saved, gradient):
    image, kernel = saved
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return convolution_3x3(gradient, turned), weight_gradient(image, gradient)


convolution_3x3.defvjp(_forward, _backward)


def weight_gradient(image: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of `convolution_3x3` with respect to its kernel.

    Args:
      image: ``(batch, height, width, in)``.
      gradient: ``(batch, height, width, out)``, with respect to the convolution's result.

    Returns:
      ``(3, 3, in, out)`` of the image's type, summed in float32 or better.
    """
    # The side with fewer channels is copied into windows. Gradients of the kernel seen from either
    # side are each other's reflection.
    if image.shape[3] < gradient.shape[3]:
        products = _shifted_products(image, gradient)
    else:
        products = jnp.flip(_shifted_products(gradient, image), (0, 1)).swapaxes(2, 3)
    return products.astype(image.dtype)


def _shifted_products(moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """Σ over pixels (y, x) of MᵀF for each offset (i, j), M at (y + i − 1, x + j − 1), F at (y, x).

    Returns ``(3, 3, channels of moving, channels of fixed)``.
    """
    height, width, channels = moving.shape[1:]
    group = group_size(channels, width)
    windows, groups = _windows(moving, group), _grouped(fixed, group)
    rows = []
    for i in range(3):
        blocks = product_over_pixels(windows[:, i : i + height], groups)
        blocks = blocks.reshape(group + 2, channels, group, -1)
        rows.append(jnp.stack([sum(blocks[p + j, :, p] for p in range(group)) for j in range(3)]))
    return jnp.stack(rows)


def group_size(channels: int, width: int) -> int:
    """How many pixels of a row are taken as one: 4, 2 or 1; divides ``width``.

    Measured: more pixels make larger and faster products, of which a smaller part is wanted.
    """
    return next(n for n in (4, 2, 1) if n == 1 or (n * channels <= 64 and width % n == 0))


def _grouped(image: jax.Array, group: int) -> jax.Array:
    """``(batch, height, width, c)`` → ``(batch, height, width / group, group·c)``, in place."""
    batch, height, width, channels = image.shape
    return image.reshape(batch, height, width // group, group * channels)


def _windows(image: jax.Array, group: int) -> jax.Array:
    """Each group with a pixel more on either side, and a row of zeros above and below.

    ``(batch, height, width, c)`` → ``(batch, height + 2, width / group, (group + 2)·c)``.
    """
    width, channels = image.shape[2:]
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, max(group - 1, 1)), (0, 0)))
    if group == 1:
        return jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1)
    groups = _grouped(padded, group)
    return jnp.concatenate([groups[:, :, :-1], groups[:, :, 1:, : 2 * channels]], axis=-1)


def product_over_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
    """AᵀB of ``(…, channels)`` arrays, summed in float32 or better: (a's channels, b's)."""
    precise = jnp.promote_types(a.dtype, jnp.float32)
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=precise)
