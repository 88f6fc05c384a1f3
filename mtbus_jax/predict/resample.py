"""From the network's resolution back to a picture's own size."""

from __future__ import annotations

import numpy as np


def to_original(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities at the size of the picture, by linear interpolation between what was sampled.

    The network saw of the picture the rows floor(i · height / n) (`preprocess.resize_nearest`), so
    its row i speaks for that row, and rows between are interpolated; columns likewise. Below the
    network's size several of its rows speak for one of the picture, and their mean is taken.
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
    rows = _weights(probability.shape[0], height)
    cols = _weights(probability.shape[1], width)
    return rows @ probability.astype(np.float32) @ cols.T


def _weights(network: int, original: int) -> np.ndarray:
    """``(original, network)`` float32, rows that sum to 1: interpolation along one axis."""
    sampled = np.arange(network) * original // network  # as in preprocess.resize_nearest
    if original < network:
        hit = (sampled == np.arange(original)[:, None]).astype(np.float32)
        return hit / hit.sum(axis=1, keepdims=True)
    place = np.interp(np.arange(original), sampled, np.arange(network))
    # A hat of width one around each network pixel.
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(network))).astype(np.float32)
