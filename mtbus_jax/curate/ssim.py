"""Structural similarity of every pair of images, or of chosen pairs, as one JAX program.

The definition follows scikit-image's `structural_similarity` with its defaults (Wang et al. 2004):
a 7×7 uniform window, sample covariances, the mean over windows that lie inside the image.

For images ``a`` and ``b``, a window of ``N`` = 49 pixels and the window sums ``S``::

    mean_a = S(a) / N,   var_a = (S(a²) - N mean_a²) / (N - 1)
    cov_ab = (S(ab) - N mean_a mean_b) / (N - 1)
    ssim = (2 mean_a mean_b + C1)(2 cov_ab + C2) / ((mean_a² + mean_b² + C1)(var_a + var_b + C2))

Means and variances belong to one image and are computed once per image. Only ``S(ab)`` belongs to a
pair: it is carried down the rows as a running sum of products (one product row enters, one leaves),
so that a pair costs about twenty operations per pixel and never leaves the cache. The pixel values
are whole numbers, hence every running sum is exact in float32.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 7
_PIXELS = WINDOW * WINDOW
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2

# 32 × 32 pairs: their running sums (32·128·32 float32 = 0.5 MB) stay in a core's L2 cache.
BLOCK = 32
_THREADS = min(8, os.cpu_count() or 1)


def _window_sums(values: jax.Array) -> jax.Array:
    """Sums over all whole 7×7 windows: ``(height, width, n)`` → ``(height-6, width-6, n)``."""
    rows = values.shape[0] - WINDOW + 1
    cols = values.shape[1] - WINDOW + 1
    values = functools.reduce(jnp.add, [values[k : k + rows] for k in range(WINDOW)])
    return functools.reduce(jnp.add, [values[:, k : k + cols] for k in range(WINDOW)])


@jax.jit
def _statistics(images: jax.Array) -> tuple[jax.Array, ...]:
    """The values of each image that all its pairs use.

    Args:
      images: ``(height, width, n)`` uint8.

    Returns:
      The image minus its rounded mean (whole numbers), its window means minus the same number,
      its window means, its window variances; ``(height, width, n)`` and three times
      ``(height-6, width-6, n)``, float32.
    """
    pixels = images.astype(jnp.int32)
    centre = jnp.rint(pixels.astype(jnp.float32).mean((0, 1))).astype(jnp.int32)
    centred = pixels - centre
    total = _window_sums(centred)
    # 49 · 49 · 255² < 2³¹, so the variance is exact up to its one division.
    variance = (_PIXELS * _window_sums(centred * centred) - total * total) / (
        _PIXELS * (_PIXELS - 1)
    )
    mean = total.astype(jnp.float32) / _PIXELS
    return centred.astype(jnp.float32), mean, mean + centre, variance.astype(jnp.float32)


@jax.jit
def _block(first: tuple[jax.Array, ...], second: tuple[jax.Array, ...]) -> jax.Array:
    """SSIM of every image of one block with every image of another.

    Args:
      first: `_statistics` of ``m`` images.
      second: `_statistics` of ``n`` images.

    Returns:
      ``(m, n)`` float32.
    """
    # The first block's images vary along the leading axis, the second's along the trailing one,
    # which is the axis that the processor's vectors run along.
    pixels_a, mean_a, luma_a, variance_a = (jnp.transpose(x, (0, 2, 1)) for x in first)
    pixels_b, mean_b, luma_b, variance_b = second
    height = pixels_b.shape[0]
    rows, cols, _ = mean_b.shape
    mean_a = mean_a * -(_PIXELS**0.5)
    mean_b = mean_b * _PIXELS**0.5
    square_a, square_b = luma_a * luma_a + _C1, luma_b * luma_b
    variance_a = variance_a + _C2

    def product(row):
        return pixels_a[row][:, :, None] * pixels_b[row][None]

    def step(row, carry):
        column_sums, total = carry
        sums = functools.reduce(jnp.add, [column_sums[:, k : k + cols] for k in range(WINDOW)])
        a = lambda values: values[row][:, :, None]  # noqa: E731
        b = lambda values: values[row][None]  # noqa: E731
        covariance = (sums + a(mean_a) * b(mean_b)) * (2 / (_PIXELS - 1)) + _C2
        numerator = ((2 * a(luma_a)) * b(luma_b) + _C1) * covariance
        total = total + numerator / ((a(square_a) + b(square_b)) * (a(variance_a) + b(variance_b)))
        entering = jnp.minimum(row + WINDOW, height - 1)  # the last step's sum is not read again
        return column_sums + (product(entering) - product(row)), total

    column_sums = functools.reduce(jnp.add, [product(row) for row in range(WINDOW)])
    total = jnp.zeros((mean_a.shape[1], cols, mean_b.shape[-1]), jnp.float32)
    _, total = jax.lax.fori_loop(0, rows, step, (column_sums, total))
    return total.sum(1) / (rows * cols)


@jax.jit
def _paired(first: jax.Array, second: jax.Array) -> jax.Array:
    """SSIM of image ``k`` of one stack with image ``k`` of another, ``(height, width, n)``."""
    height, width, n = first.shape
    rows, cols = height - WINDOW + 1, width - WINDOW + 1

    def centred(images):
        centre = jnp.rint(images.astype(jnp.float32).mean((0, 1)))
        return lambda row: images[row].astype(jnp.float32) - centre, centre

    (row_a, centre_a), (row_b, centre_b) = centred(first), centred(second)

    def moments(row):
        a, b = row_a(row), row_b(row)
        return jnp.stack([a, b, a * a, b * b, a * b])

    def step(row, carry):
        column_sums, total = carry
        sums = functools.reduce(jnp.add, [column_sums[:, k : k + cols] for k in range(WINDOW)])
        a, b = sums[0] / _PIXELS, sums[1] / _PIXELS
        spread = (sums[2] + sums[3] - _PIXELS * (a * a + b * b)) / (_PIXELS - 1)
        covariance = (sums[4] - _PIXELS * a * b) / (_PIXELS - 1)
        a, b = a + centre_a, b + centre_b
        total = total + ((2 * a * b + _C1) * (2 * covariance + _C2)) / (
            (a * a + b * b + _C1) * (spread + _C2)
        )
        entering = jnp.minimum(row + WINDOW, height - 1)
        return column_sums + (moments(entering) - moments(row)), total

    column_sums = functools.reduce(jnp.add, [moments(row) for row in range(WINDOW)])
    _, total = jax.lax.fori_loop(0, rows, step, (column_sums, jnp.zeros((cols, n), jnp.float32)))
    return total.sum(0) / (rows * cols)


def _checked(images: np.ndarray) -> np.ndarray:
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected (n, height, width) uint8, got {images.shape} {images.dtype}")
    if min(images.shape[1:]) < WINDOW:
        raise ValueError(f"images must be at least {WINDOW} pixels in height and width")
    return images


def _stack(images: np.ndarray, size: int) -> np.ndarray:
    """``(height, width, size)``: images along the last axis, padded with black ones."""
    padded = np.zeros((size, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    return np.ascontiguousarray(padded.transpose(1, 2, 0))


def ssim_matrix(images: np.ndarray, *, block: int = BLOCK) -> np.ndarray:
    """SSIM of every pair. The memory used beyond the result does not grow with ``n``.

    Args:
      images: ``(n, height, width)`` uint8, each side at least 7 pixels.
      block: images per side of one block of pairs.

    Returns:
      ``(n, n)`` float32, symmetric, ones on the diagonal.
    """
    images = _checked(images)
    n = len(images)
    block = min(block, max(n, 1))
    starts = range(0, n, block)
    result = np.eye(n, dtype=np.float32)

    def fill(rows: int, first: tuple[jax.Array, ...], cols: int) -> None:
        second = _statistics(_stack(images[cols : cols + block], block))
        values = np.asarray(_block(first, second))[: n - rows, : n - cols]
        if rows == cols:
            values = np.triu(values) + np.triu(values, 1).T
        result[rows : rows + block, cols : cols + block] = values
        result[cols : cols + block, rows : rows + block] = values.T

    # Threads: JAX releases the interpreter's lock, so one block's host work hides behind another's
    # arithmetic, and each core works on blocks of its own.
    with ThreadPoolExecutor(_THREADS) as pool:
        for rows in starts:
            first = _statistics(_stack(images[rows : rows + block], block))
            list(pool.map(lambda cols, r=rows, f=first: fill(r, f, cols), starts[rows // block :]))
    np.fill_diagonal(result, 1.0)
    return result


def ssim_pairs(images: np.ndarray, pairs: np.ndarray, *, batch: int = 32) -> np.ndarray:
    """SSIM of chosen pairs, in batches of equal size.

    Args:
      images: ``(n, height, width)`` uint8.
      pairs: ``(m, 2)`` integers, indices into ``images``.
      batch: pairs per step.

    Returns:
      ``(m,)`` float32.
    """
    images = _checked(images)
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    result = np.empty(len(pairs), np.float32)

    def fill(start: int) -> None:
        chosen = pairs[start : start + batch]
        first, second = (_stack(images[chosen[:, side]], batch) for side in (0, 1))
        result[start : start + batch] = np.asarray(_paired(first, second))[: len(chosen)]

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, range(0, len(pairs), batch)))
    return result
