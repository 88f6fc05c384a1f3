"""Grey values of one set of pictures brought to the distribution of another's."""

from __future__ import annotations

import numpy as np

_VALUES = 256


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each grey value occurs in some pictures together.

    Args:
      images: uint8 of any shape.

    Returns:
      ``(256,)`` int64.
    """
    return np.bincount(images.ravel(), minlength=_VALUES)


def match(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Pictures whose grey values, taken together, are distributed as in a reference.

    Histogram matching by quantiles (Gonzalez, Woods, "Digital Image Processing", 4th ed. 2018,
    section 3.3): a grey value becomes the one with the same cumulative share in the reference,
    interpolated between the values that occur there. It is one table for all pictures, and it
    never falls: brighter pixels stay as bright or brighter, within and between pictures.

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
