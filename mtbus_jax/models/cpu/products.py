"""Products of maps, summed over pixels, in forms that XLA's CPU backend computes fast."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def rows(image: jax.Array) -> jax.Array:
    """``(height, batch, width, channels)``: row by row, with all images side by side."""
    return image.transpose(1, 0, 2, 3)


def planes(rows: jax.Array) -> jax.Array:
    """``(height, batch, width, channels)`` → ``(channels, height, batch, width)``.

    Computed as a product with the identity, because XLA would fuse a transposition into the copies
    that follow and read the image in scattered single numbers.
    """
    *pixels, channels = rows.shape
    identity = jnp.eye(channels, dtype=rows.dtype)
    planes = lax.dot_general(identity, rows.reshape(-1, channels), (((1,), (1,)), ((), ())))
    return planes.reshape(channels, *pixels)


def row_products(planes: jax.Array, rows: jax.Array) -> jax.Array:
    """Σ over rows y and their pixels of PR for three offsets i, P in row y + i − 1, R in row y.

    Args:
      planes: ``(p, height, batch, width)``.
      rows: ``(height, batch, width, r)``.

    Returns:
      ``(p, 3, r)``, summed in float32 or better.
    """
    count, height, _, _ = planes.shape
    return lax.conv_general_dilated(
        planes.reshape(count, height, -1),
        rows.reshape(height, -1, rows.shape[3]),
        (1,),
        ((1, 1),),
        dimension_numbers=("NHC", "HIO", "NHC"),
        preferred_element_type=jnp.promote_types(planes.dtype, jnp.float32),
    )


def product_over_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
    """AᵀB of ``(…, channels)`` arrays, summed in float32 or better: (a's channels, b's)."""
    precise = jnp.promote_types(a.dtype, jnp.float32)
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=precise)
