"""From the network's resolution back to a picture's own size."""

from __future__ import annotations

import numpy as np

from mtbus_jax.images.preprocess import sampled


def to_original(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples probabilities to the picture's size, by linear interpolation.

    The network saw only the rows of the picture that `preprocess.sampled` gives. Its row i stands
    for the i-th of them, and the rows in between are interpolated; so are columns. If the picture
    is smaller than the network's input, several network rows stand for one of the picture, and
    their mean is taken. Beyond the last sampled row or column, its value is repeated.

    Thresholding after this step gives a mask closer to the truth than thresholding first and
    repeating pixels, which also shifts the mask by half a network pixel.

    Args:
      probability: ``(network_height, network_width)`` float.
      height: of the picture in pixels.
      width: of the picture in pixels.

    Returns:
      ``(height, width)`` float32. If the picture is at least as large as the network's input, every
      value of ``probability`` occurs in it, so a mask that is not empty stays so.
    """
    return _along(_along(probability.astype(np.float32), height, axis=0), width, axis=1)


def _along(values: np.ndarray, original: int, *, axis: int) -> np.ndarray:
    """Resamples ``values`` to ``original`` places along one axis.

    It takes two selections and a weighted sum. A matrix product would give the same, but takes
    several times as long with a matrix of nearly all zeros, and far longer on a busy machine.
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
