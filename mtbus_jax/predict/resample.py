"""From the network's resolution back to a picture's own size."""

from __future__ import annotations

import numpy as np

from mtbus_jax.images.preprocess import sampled


def to_original(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities at the size of the picture, by linear interpolation between what was sampled.

    The network saw some rows of the picture, those of `preprocess.sampled`, so its row i speaks for
    the i-th of them, and rows between are interpolated; so are columns. Below the network's size
    several of its rows speak for one of the picture, and their mean is taken.
    Beyond the last sampled row or column its value holds.

    A mask that is thresholded after this differs less from the truth than one that is thresholded
    first and enlarged by repeating pixels, which is also shifted by half a network pixel.

    Args:
      probability: ``(network_height, network_width)`` float.
      height: of the picture in pixels.
      width: of the picture in pixels.

    Returns:
      ``(height, width)`` float32. If the picture is at least as large as the network's input, every
      value of ``probability`` occurs in it, so a mask that is not empty does not become so.
    """
    return _along(_along(probability.astype(np.float32), height, axis=0), width, axis=1)


def _along(values: np.ndarray, original: int, *, axis: int) -> np.ndarray:
    """``values`` with ``original`` places along one axis.

    Two picks and a weighted sum, although it is linear: a product with a matrix that is nearly all
    zero takes several times as long, on a busy machine far more.
    """
    network = values.shape[axis]
    seen = sampled(original, network)
    shape = (-1, 1) if axis == 0 else (1, -1)
    if original < network:
        starts = np.searchsorted(seen, np.arange(original))
        counts = np.bincount(seen, minlength=original).astype(np.float32)
        return np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape)
    place = np.interp(np.arange(original), seen, np.arange(network))
    before = place.astype(int)
    after = np.minimum(before + 1, network - 1)
    share = (place - before).astype(np.float32).reshape(shape)
    enlarged = values.take(before, axis=axis) * (1 - share)
    enlarged += values.take(after, axis=axis) * share
    return enlarged
