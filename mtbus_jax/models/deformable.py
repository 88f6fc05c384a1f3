"""Modulated deformable 3×3 convolution: the image determines where each of its nine weights reads.

Paper: Zhu et al. 2019 (CVPR), *Deformable ConvNets v2*, Eq. 1, after Dai et al. 2017 (ICCV). At
every pixel p, y(p) = Σ_k w_k · x(p + p_k + Δp_k) · Δm_k, p_k the nine places of a 3×3 window.
Values between pixels are interpolated bilinearly; beyond the border the image is zero.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax.models import blocks

_SIZE = 3
# Places of the window by weight, relative to its centre, in the order of a flattened kernel.
_ROWS, _COLS = (axis.ravel() - 1 for axis in np.indices((_SIZE, _SIZE)))
POINTS = _SIZE * _SIZE


def deformable_convolution(
    image: jax.Array, offsets: jax.Array, modulation: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The convolution, zero beyond the border, stride 1, without bias.

    With offsets of 0 and a modulation of 1 it is an ordinary convolution with padding 1. Its
    derivative with respect to an offset jumps wherever a place lies exactly on a row or column of
    pixels; its value there is the one to the right of, or below, the jump. A place that is more
    than one pixel outside the image reads 0, and its offset has no gradient.

    Args:
      image: ``(batch, height, width, in)``, floating point.
      offsets: ``(batch, height, width, 18)``, in pixels: rows of the nine places, then columns.
      modulation: ``(batch, height, width, 9)``, what the nine values are multiplied by.
      kernel: ``(3, 3, in, out)``.

    Returns:
      ``(batch, height, width, out)`` of the image's type.

    Raises:
      ValueError: if the shapes do not fit.
    """
    _, height, width, channels = image.shape
    pixels = image.shape[:3]
    if offsets.shape != (*pixels, 2 * POINTS) or modulation.shape != (*pixels, POINTS):
        raise ValueError(
            f"offsets {offsets.shape} and modulation {modulation.shape} must be the image's "
            f"{pixels} with {2 * POINTS} and {POINTS} channels"
        )
    if kernel.shape[:3] != (_SIZE, _SIZE, channels):
        raise ValueError(f"kernel {kernel.shape} is not 3×3 for {channels} channels")
    values = sample(image, *places(offsets, height, width)) * modulation[..., None]
    columns = values.reshape(*pixels, POINTS * channels)
    return columns @ kernel.reshape(POINTS * channels, -1)


def places(offsets: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Where the nine weights read: rows and columns, each ``(batch, height, width, 9)``.

    In single precision or better, because bfloat16 cannot represent 257.
    """
    offsets = offsets.astype(jnp.promote_types(offsets.dtype, jnp.float32))
    down, right = (jnp.asarray(axis, offsets.dtype) for axis in (_ROWS, _COLS))
    row = jnp.arange(height, dtype=offsets.dtype)[:, None, None] + down + offsets[..., :POINTS]
    col = jnp.arange(width, dtype=offsets.dtype)[:, None] + right + offsets[..., POINTS:]
    return row, col


def sample(image: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
    """Bilinear interpolation of an image that is zero beyond its border.

    Args:
      image: ``(batch, height, width, channels)``.
      row: ``(batch, …)``, in pixels, any value; 0 is the centre of the first row.
      col: ``(batch, …)``, in pixels, any value; 0 is the centre of the first column.

    Returns:
      ``(batch, …, channels)`` of the image's type. A place that is NaN gives NaN.
    """
    _, height, width, channels = image.shape
    # Places entirely outside are moved to where all four pixels are zeros of the border.
    row = jnp.where((row < -1) | (row >= height), -1, row)
    col = jnp.where((col < -1) | (col >= width), -1, col)
    low_row, low_col = jnp.floor(row), jnp.floor(col)
    down = (row - jax.lax.stop_gradient(low_row)).astype(image.dtype)
    right = (col - jax.lax.stop_gradient(low_col)).astype(image.dtype)
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = padded.reshape(-1, (height + 2) * (width + 2), channels)
    first = (low_row.astype(jnp.int32) + 1) * (width + 2) + low_col.astype(jnp.int32) + 1
    # Indices of NaN places are arbitrary: clipping keeps them inside.
    take = jax.vmap(lambda of, index: jnp.take(of, index, axis=0, mode="clip"))
    return (
        ((1 - down) * (1 - right))[..., None] * take(pixels, first)
        + ((1 - down) * right)[..., None] * take(pixels, first + 1)
        + (down * (1 - right))[..., None] * take(pixels, first + width + 2)
        + (down * right)[..., None] * take(pixels, first + width + 3)
    )


class DeformableConvolution(nn.Module):
    """`deformable_convolution` whose offsets and modulation are 3×3 convolutions of the image.

    Their kernels start at zero, so that before training the layer is close to half an ordinary
    convolution: the offsets are small, the modulation is σ of a small number.

    Attributes:
      features: channels of the output.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height, width, features)``."""
        zeros = nn.initializers.zeros
        offsets = blocks.convolution(image, 2 * POINTS, kernel_init=zeros, name="offsets")
        weights = blocks.convolution(image, POINTS, kernel_init=zeros, name="modulation")
        shape = (_SIZE, _SIZE, image.shape[-1], self.features)
        kernel = self.param("kernel", blocks.torch_default_init, shape).astype(image.dtype)
        return deformable_convolution(image, offsets, nn.sigmoid(weights), kernel)
