"""Matches the grey values of one set of pictures to the distribution of another set."""

from __future__ import annotations

import numpy as np

_VALUES = 256


def histogram(images: np.ndarray) -> np.ndarray:
    """Counts how often each grey value occurs in all the pictures together.

    Args:
      images: uint8 of any shape.

    Returns:
      ``(256,)`` int64.
    """
    return np.bincount(images.ravel(), minlength=_VALUES)


def match(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Maps grey values so that, over all pictures together, they are distributed as in a reference.

    Histogram matching by quantiles (Gonzalez, Woods, "Digital Image Processing", 4th ed. 2018,
    section 3.3): a grey value becomes the one with the same cumulative share in the reference,
    interpolated between the values that occur there. One table, which never decreases, serves all
    pictures: a pixel brighter than another never becomes darker than it, even between pictures.

    Args:
      images: uint8 of any shape, not empty.
      reference: ``(256,)`` counts of `histogram`, not all 0.

    Returns:
      uint8 of the same shape.
    """
    present = np.flatnonzero(reference)
    own, wanted = (_cumulative_share(counts) for counts in (histogram(images), reference))
    table = np.interp(own, wanted[present], present)
    return np.rint(table).astype(np.uint8)[images]


def _cumulative_share(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) / counts.sum()
