"""Augmentation: random changes on the device for training, fixed symmetries for prediction."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

# What a turned image shows beyond the edge of the original: black, as in the released code, or the
# image mirrored at its edge (SciPy's term: d c b a | a b c d | d c b a).
ZERO, REFLECT = "zero", "reflect"
FILLS = (ZERO, REFLECT)

# Ranges of `upright`.
_ANGLE = jnp.pi / 12  # up to 15° either way
_ZOOM, _GAMMA, _GAIN = 0.15, 0.35, 0.2  # up to e^± these
# Of `tilted`.
_TILT, _TILTED_FLIPS = jnp.pi / 6, 0.6  # up to 30° either way; probability
_WHITE = 255.0


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


def apply_transform(matrix: jax.Array, image: jax.Array, *, fill: str = ZERO) -> jax.Array:
    """Resamples ``image`` under ``matrix`` by nearest neighbour.

    Args:
      matrix: ``(2, 2)``, see `random_transform`; lengths are in pixels.
      image: ``(height, width, channels)`` of any type.
      fill: one of `FILLS`.

    Returns:
      Same shape and type.
    """
    return _read_nearest(image, _source(matrix, *image.shape[:2]), fill)


def _source(matrix: jax.Array, height: int, width: int) -> jax.Array:
    """``(2, height, width)`` rows and columns that a matrix about the centre reads."""
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(
        jnp.meshgrid(jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij")
    )
    return jnp.einsum("ij,jhw->ihw", matrix, grid, precision="highest") + centre[:, None, None]


def _mirrored(index: jax.Array, size: int) -> jax.Array:
    """Any integers → indices into ``size`` pixels that repeat mirrored on either side."""
    index = index % (2 * size)
    return jnp.where(index < size, index, 2 * size - 1 - index)


def flip_and_rotate(
    key: jax.Array, image: jax.Array, mask: jax.Array, *, fill: str = ZERO
) -> tuple[jax.Array, jax.Array]:
    """Random flips and rotation of one image and its mask (Aumente-Maestro et al. 2025).

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)``.
      mask: ``(height, width, channels)``, same height and width.
      fill: one of `FILLS`, for both.

    Returns:
      The transformed image and mask, shapes and types unchanged.
    """
    matrix = random_transform(key)
    return apply_transform(matrix, image, fill=fill), apply_transform(matrix, mask, fill=fill)


def tilted(
    key: jax.Array, image: jax.Array, mask: jax.Array, *, fill: str = ZERO
) -> tuple[jax.Array, jax.Array]:
    """Flips and a rotation by up to 30° (He et al. 2024, ACSNet).

    Rows and columns are each flipped with p = 0.6, the angle is uniform in ±30°. The image is read
    bilinearly, the mask by nearest neighbour.

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)`` float32.
      mask: ``(height, width, channels)``, same height and width.
      fill: one of `FILLS`, for both.

    Returns:
      The transformed image and mask, shapes and types unchanged.
    """
    flip_key, angle_key = jax.random.split(key)
    flips = jnp.where(jax.random.bernoulli(flip_key, _TILTED_FLIPS, (2,)), -1.0, 1.0)
    angle = jax.random.uniform(angle_key, (), minval=-_TILT, maxval=_TILT)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = flips[:, None] * jnp.array([[cos, -sin], [sin, cos]])
    source = _source(matrix, *image.shape[:2])
    return _read_bilinear(image, source, fill), _read_nearest(mask, source, fill)


def upright(
    key: jax.Array, image: jax.Array, mask: jax.Array, *, fill: str = ZERO
) -> tuple[jax.Array, jax.Array]:
    """Random changes that keep the skin at the top and a lesion's shadow below the lesion.

    Sound comes from above, and tissue that absorbs it darkens what lies beneath. Such shadows help
    to tell the classes apart. Flips of rows and arbitrary rotations hide this; the changes here do
    not: left and right swapped (p = 0.5), a rotation uniform in ±15°, and a zoom uniform in its
    logarithm (0.86 to 1.16), read by nearest neighbour. The image alone also becomes
    gain · 255 · (image / 255)^gamma, cut off at 255, with gain and gamma uniform in their
    logarithms (gain 0.82 to 1.22, gamma 0.70 to 1.42).

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)`` float32, grey values 0..255.
      mask: ``(height, width, channels)``, same height and width.
      fill: one of `FILLS`, for both.

    Returns:
      The transformed image and mask, shapes and types unchanged.
    """
    flip_key, range_key = jax.random.split(key)
    flip = jnp.where(jax.random.bernoulli(flip_key), -1.0, 1.0)
    angle, zoom, gamma, gain = jax.random.uniform(range_key, (4,), minval=-1.0, maxval=1.0)
    angle = angle * _ANGLE
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    matrix = jnp.exp(zoom * _ZOOM) * rotation * jnp.stack([jnp.ones(()), flip])
    tone = (image / _WHITE) ** jnp.exp(gamma * _GAMMA)
    image = jnp.minimum(_WHITE * jnp.exp(gain * _GAIN) * tone, _WHITE)
    return apply_transform(matrix, image, fill=fill), apply_transform(matrix, mask, fill=fill)


def varied(
    key: jax.Array, image: jax.Array, mask: jax.Array, *, fill: str = ZERO
) -> tuple[jax.Array, jax.Array]:
    """Changes as in `upright` with a wider zoom, and changes that another scanner would cause.

    Left and right swapped (p = 0.5); a rotation uniform in ±15°, a zoom uniform in its logarithm
    (0.80 to 1.25), a shift uniform in ±8 % of each side, and an elastic warp: a field of 6×6 normal
    displacements with a deviation of 1.5 % of the side, interpolated. The image is read bilinearly,
    the mask by nearest neighbour. For the image alone: gain and gamma as in `upright`, a contrast
    of 0.75 to 1.33 about the image's mean, a blur of 0.7 pixels (p = 0.3), speckle that multiplies
    each pixel with 1 + σ·n and noise that adds 6·σ·n, n normal, σ uniform in 0 to 0.15.

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)`` float32, grey values 0..255.
      mask: ``(height, width, channels)``, same height and width.
      fill: one of `FILLS`, for both.

    Returns:
      The transformed image and mask, shapes and types unchanged.
    """
    flip_key, range_key, warp_key, blur_key, speckle_key, noise_key = jax.random.split(key, 6)
    flip = jnp.where(jax.random.bernoulli(flip_key), -1.0, 1.0)
    drawn = jax.random.uniform(range_key, (8,), minval=-1.0, maxval=1.0)
    angle, zoom, gamma, gain, contrast, rows, cols, sigma = drawn
    height, width = image.shape[:2]
    cos, sin = jnp.cos(angle * _ANGLE), jnp.sin(angle * _ANGLE)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    matrix = jnp.exp(zoom * 0.22) * rotation * jnp.stack([jnp.ones(()), flip])
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    row, col = jnp.arange(height) - centre[0], jnp.arange(width) - centre[1]
    grid = jnp.stack(jnp.meshgrid(row, col, indexing="ij"))
    shift = jnp.stack([rows * 0.08 * height, cols * 0.08 * width]) + centre
    source = jnp.einsum("ij,jhw->ihw", matrix, grid, precision="highest") + shift[:, None, None]
    source = source + _displacement(warp_key, height, width)
    image, mask = _read_bilinear(image, source, fill), _read_nearest(mask, source, fill)
    tone = (image / _WHITE) ** jnp.exp(gamma * _GAMMA)
    tone = jnp.exp(gain * _GAIN) * tone
    mean = jnp.mean(tone)
    tone = mean + (tone - mean) * jnp.exp(contrast * 0.285)
    blurs = jax.random.bernoulli(blur_key, 0.3)
    tone = jnp.where(blurs, _blurred(tone), tone)
    return _speckled(speckle_key, noise_key, tone, sigma), mask


def warped(
    key: jax.Array, image: jax.Array, mask: jax.Array, *, fill: str = ZERO
) -> tuple[jax.Array, jax.Array]:
    """The elastic warp of `varied` alone (Simard et al. 2003, ICDAR, with a coarser field).

    Each pixel is read at its place plus a displacement. A field of 6×6 normal displacements with a
    deviation of 1.5 % of the shorter side is interpolated between its nodes. The image is read
    bilinearly, the mask by nearest neighbour.

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)`` float32.
      mask: ``(height, width, channels)``, same height and width.
      fill: one of `FILLS`, for both.

    Returns:
      The warped image and mask, shapes and types unchanged.
    """
    height, width = image.shape[:2]
    source = _source(jnp.eye(2), height, width) + _displacement(key, height, width)
    return _read_bilinear(image, source, fill), _read_nearest(mask, source, fill)


def speckled(key: jax.Array, image: jax.Array) -> jax.Array:
    """The speckle and noise of `varied` alone: g → g·(1 + σ·n) + 6·σ·m, cut off at 0 and 255.

    n and m are normal in each pixel, σ is uniform in 0 to 0.15 for the image. Speckle that
    multiplies is a model of ultrasound's interference noise (Loupas et al. 1989).

    Args:
      key: PRNG key of this image.
      image: ``(height, width, channels)`` float32, grey values 0..255.

    Returns:
      The same shape and type.
    """
    range_key, speckle_key, noise_key = jax.random.split(key, 3)
    sigma = jax.random.uniform(range_key, minval=-1.0, maxval=1.0)
    return _speckled(speckle_key, noise_key, image / _WHITE, sigma)


def _displacement(key: jax.Array, height: int, width: int) -> jax.Array:
    """``(2, height, width)`` displacements of an elastic warp in pixels."""
    field = jax.random.normal(key, (2, 6, 6)) * 0.015 * min(height, width)
    return jax.image.resize(field, (2, height, width), "linear")


def _speckled(
    speckle_key: jax.Array, noise_key: jax.Array, tone: jax.Array, sigma: jax.Array
) -> jax.Array:
    """Grey values 0..255 of tones 0..1 with speckle; ``sigma`` in −1..1 is a deviation to 0.15."""
    strength = 0.075 * (sigma + 1)
    speckle = 1 + strength * jax.random.normal(speckle_key, tone.shape)
    noise = 6 / _WHITE * strength * jax.random.normal(noise_key, tone.shape)
    return jnp.clip(_WHITE * (tone * speckle + noise), 0, _WHITE)


def _read_nearest(image: jax.Array, source: jax.Array, fill: str) -> jax.Array:
    """The pixels of ``(height, width, channels)`` at ``(2, height, width)`` rows and columns."""
    height, width = image.shape[:2]
    row, col = jnp.round(source).astype(jnp.int32)
    if fill == REFLECT:
        return image[_mirrored(row, height), _mirrored(col, width)]
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    pixels = image[jnp.clip(row, 0, height - 1), jnp.clip(col, 0, width - 1)]
    return jnp.where(inside[..., None], pixels, jnp.zeros((), image.dtype))


def _read_bilinear(image: jax.Array, source: jax.Array, fill: str) -> jax.Array:
    """As `_read_nearest`, interpolated between the four surrounding pixels."""
    corner = jnp.floor(source)
    row_share, col_share = (source - corner)[..., None]
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            share = (row_share if down else 1 - row_share) * (col_share if right else 1 - col_share)
            offset = jnp.array([down, right], corner.dtype)[:, None, None]
            total = total + share * _read_nearest(image, corner + offset, fill)
    return total


def _blurred(image: jax.Array) -> jax.Array:
    """A 3×3 binomial filter with a deviation of 0.7 pixels; edge pixels are repeated."""
    for axis in (0, 1):
        padded = jnp.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        size = image.shape[axis]
        low, mid, high = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        image = (low + 2 * mid + high) / 4
    return image


# By value of `train.augmentation`.
METHODS = {"released": flip_and_rotate, "upright": upright, "varied": varied, "tilted": tilted}


def symmetries(train: Any, height: int, width: int) -> tuple[int, ...]:
    """Which symmetries (see `symmetry`) show an image as training may have shown it.

    Args:
      train: with ``augment`` and ``augmentation``, as in a configuration.
      height: of the images, in pixels.
      width: of the images, in pixels.

    Returns:
      Their indices, 0 first: all eight; four if there are no quarter turns or the image is not
      square; two, the image and its mirror image, without flips of rows; one without augmentation.
    """
    if not train.augment:
        return (0,)
    if train.augmentation == "tilted":
        return tuple(range(4))
    if train.augmentation != "released":
        return (0, 2)
    return tuple(range(8 if height == width else 4))


def symmetry(image, index: int):
    """One of the eight flips and quarter turns, for test-time augmentation; 0 changes nothing.

    Args:
      image: ``(..., height, width, channels)``, a numpy or JAX array.
      index: 0..7; bit 0 flips rows, bit 1 flips columns, bit 2 then swaps rows and columns.

    Returns:
      The transformed image; height and width are swapped for an index above 3.
    """
    if index & 1:
        image = image[..., ::-1, :, :]
    if index & 2:
        image = image[..., ::-1, :]
    return image.swapaxes(-3, -2) if index & 4 else image


def undo_symmetry(image, index: int):
    """Inverse of `symmetry` with the same index."""
    if index & 4:
        image = image.swapaxes(-3, -2)
    return symmetry(image, index & 3)
