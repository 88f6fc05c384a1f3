"""A 3×3 convolution whose weight gradient is a convolution of rows.

XLA's CPU backend writes that gradient as a convolution with a window as large as the image, which
runs at a fraction of the speed of the forward pass (`benchmarks/convolution.py` shows both). Here
the window spans the image in one direction only: a position is a whole row of all images, its
pixels are the channels that are summed over, and one row of padding gives the three offsets between
rows. The three offsets within a row come from shifted copies of one operand. XLA computes such a
convolution as a product of matrices that are read in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mtbus_jax.models.cpu import four_rows, products

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With more channels, the product is large enough to be fast without this. Measured.
_MOST_CHANNELS = 48


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    **options,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`; on a CPU, the function that `rule` gives, if any."""
    options["dimension_numbers"] = dimension_numbers
    own = rule(lhs, rhs, window_strides, padding, **options)
    if own is not None:
        return own(lhs, rhs)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def rule(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options,
) -> four_rows.Convolution | None:
    """Which function computes the same convolution faster on a CPU; None for lax's own.

    With many channels it is one of `four_rows`, with few pixels for the number of channels
    `patches_convolution`, otherwise `convolution_3x3`. They apply to channels-last 3×3 convolutions
    with stride 1, padding 1, no dilation, no groups, a known batch size and more than a few
    channels. The platform is JAX's default backend at tracing time.

    Args:
      lhs: images; all arguments are those of `jax.lax.conv_general_dilated`.
      rhs: kernel.
      window_strides: one for each side.
      padding: a name, or two numbers for each side.
      **options: ``dimension_numbers`` and whatever else is not the default.
    """
    if jax.default_backend() != "cpu" or not _applies(lhs, rhs, window_strides, padding, **options):
        return None
    narrow = patches_convolution if is_wide(lhs.shape, rhs.shape) else convolution_3x3
    return four_rows.rule(lhs, rhs) or narrow


def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """3×3 convolution with zero padding 1 and stride 1, by `conv_general_dilated`.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(3, 3, in, out)``.

    Returns:
      ``(batch, height, width, out)``.
    """
    return conv_general_dilated(image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT)


def _applies(
    lhs,
    rhs,
    window_strides,
    padding,
    *,
    dimension_numbers,
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
        return False  # a symbolic batch size: the network is exported and needs no gradient
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
    # With one grey channel there is too little to multiply.
    return min(rhs.shape[2:]) >= 4


def is_wide(shape: Sequence[int], kernel_shape: Sequence[int]) -> bool:
    """Whether there are so few pixels for so many channels that `patches_convolution` is faster."""
    batch, height, width, _ = shape
    return batch * height * width <= 2 * min(kernel_shape[2:])


def patches_convolution(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution_3x3` as one matrix product over every pixel's 3×3 patch.

    The patches take nine times the image's memory, which is negligible beside the kernel at the
    bottom of a U-Net. The kernel, by far the larger, is used in place, in the gradients too.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(3, 3, in, out)``.

    Returns:
      ``(batch, height, width, out)``.
    """
    result = patches(image) @ kernel.reshape(-1, kernel.shape[3])
    return result.reshape(*image.shape[:3], -1)


def patches(image: jax.Array) -> jax.Array:
    """Every pixel's 3×3 patch, zero outside: (batch, height, width, in) → (pixels, 9·in)."""
    _, height, width, channels = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1).reshape(-1, 9 * channels)


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
    # The operand with fewer channels is copied three times. Exchanging the operands reflects the
    # kernel's gradient.
    if image.shape[3] < gradient.shape[3]:
        sums = _shifted_products(image, gradient)
    else:
        sums = jnp.flip(_shifted_products(gradient, image), (0, 1)).swapaxes(2, 3)
    return sums.astype(image.dtype)


def _shifted_products(moving: jax.Array, fixed: jax.Array) -> jax.Array:
    """Σ over pixels (y, x) of MᵀF for each offset (i, j), M at (y + i − 1, x + j − 1), F at (y, x).

    Returns ``(3, 3, channels of moving, channels of fixed)``.
    """
    width, channels = moving.shape[2:]
    others = fixed.shape[3]
    if channels == others <= _MOST_CHANNELS:
        # The three copies are channels here, and F moves up and down against M, so the rows'
        # offsets are reversed. Before it multiplies, the library then rearranges each operand three
        # times, instead of one of them nine times and the other once.
        padded = jnp.pad(products.rows(moving), ((0, 0), (0, 0), (1, 1), (0, 0)))
        copies = jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1)
        sums = products.row_products(products.planes(products.rows(fixed)), copies)
        return jnp.flip(sums.reshape(others, 3, 3, channels).transpose(1, 2, 3, 0), 0)
    planes = products.planes(products.rows(moving))
    border = jnp.zeros_like(planes[..., :1])
    left = jnp.concatenate([border, planes[..., :-1]], axis=-1)
    right = jnp.concatenate([planes[..., 1:], border], axis=-1)
    sums = products.row_products(jnp.concatenate([left, planes, right]), products.rows(fixed))
    return sums.reshape(3, channels, 3, others).transpose(2, 0, 1, 3)
