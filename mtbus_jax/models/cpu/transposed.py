"""Transposed convolution with kernel = stride, as one matrix product.

Its windows do not overlap: each input pixel makes its own block of the output. XLA's CPU backend
nevertheless runs the gradient as a dilated convolution, eight to ten times slower
(`benchmarks/convolution.py`).
"""

from __future__ import annotations

import jax
from jax import lax


def conv_transpose(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution whose stride is its kernel's size.

    Equal to `jax.lax.conv_transpose` with ``transpose_kernel=True`` and padding ``"VALID"``, which
    is what runs unless JAX's default backend is a CPU.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(f, f, out, in)``.

    Returns:
      ``(batch, f·height, f·width, out)``.
    """
    factor, columns, out, channels = kernel.shape
    if jax.default_backend() != "cpu":
        return lax.conv_transpose(image, kernel, (factor, columns), "VALID", transpose_kernel=True)
    batch, height, width, _ = image.shape
    blocks = image.reshape(-1, channels) @ kernel.reshape(-1, channels).T
    blocks = blocks.reshape(batch, height, width, factor, columns * out)
    # One row of a block is contiguous already, so only rows move.
    rows = blocks.swapaxes(2, 3)
    return rows.reshape(batch, factor * height, columns * width, out)
