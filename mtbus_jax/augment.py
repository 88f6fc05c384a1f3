"""Augmentation on the device: pure functions of a key, one transform for image and mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def random_transform(key: jax.Array) -> jax.Array:
    """Draws flips and a rotation: each flip with p = 0.5, the angle uniform in [0°, 360°).

    Args:
      key: PRNG key of one image.

    Returns:
      ``(2, 2)`` float32 that maps an output offset (row, col) from the image's centre to the
      input offset to read: first the flips, then the rotation, as in the released code.
    """
    flip_key, angle_key = jax.random.split(key)
    flip_rows, flip_cols = jax.random.bernoulli(flip_key, 0.5, (2,))
    angle = jax.random.uniform(angle_key, (), maxval=2 * jnp.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    flip = jnp.array([jnp.where(flip_rows, -1.0, 1.0), jnp.where(flip_cols, -1.0, 1.0)])
    return flip[:, None] * rotation


def apply_transform(matrix: jax.Array, image: jax.Array) -> jax.Array:
    """Resamples ``image`` under ``matrix`` by nearest neighbour; what lies outside becomes 0.

    Args:
      matrix: ``(2, 2)``, see `random_transform`; lengths are in pixels.
      image: ``(height, width, channels)`` of any type.

    Returns:
      Same shape and type.
    """
    height, width = image.shape[:2]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(
        jnp.meshgrid(jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij")
    )
    source = jnp.einsum("ij,jhw->ihw", matrix, grid, precision="highest") + centre[:, None, None]
    index = jnp.round(source).astype(jnp.int32)
    row, col = index
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    pixels = image[jnp.clip(row, 0, height - 1), jnp.clip(col, 0, width - 1)]
    return jnp.where(inside[..., None], pixels, jnp.zeros((), image.dtype))


def flip_and_rotate(
    key: jax.Array, image: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Random flips and rotation of one image and its mask (Aumente-Maestro et al. 2025).

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)``.
      mask: ``(height, width, channels)``, same height and width.

    Returns:
      The transformed image and mask, shapes and types unchanged.
    """
    matrix = random_transform(key)
    return apply_transform(matrix, image), apply_transform(matrix, mask)
