"""Segmentation metrics as ACSNet's released code computes them, only to compare with its tables.

He et al. 2024 (Comput. Biol. Med., PII S0010482524004037). The code shrinks test masks by bilinear
interpolation and then counts only pixels that are exactly 1 or exactly 0. The soft border between
them belongs to neither, so predictions there are not counted: errors at the outline, which are most
errors, are missed. The mean surface distance is measured in one direction only. If a mask is empty,
distances are 0, the best value.

Every function takes ``truth`` and ``prediction``, ``(height, width)`` arrays, and returns a float.

| metric                            | both empty | only truth empty | only prediction empty |
|-----------------------------------|------------|------------------|-----------------------|
| legacy_soft_border_dice, -jaccard | undefined  | 0                | 0                     |
| legacy_hausdorff95                | 0          | 0                | 0                     |
| legacy_directed_surface_distance  | 0          | 0                | 0                     |

Undefined is NaN: no pixel counts. For the first two metrics this can also happen if a lesion is all
border and nothing is predicted outside it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from PIL import Image

from mtbus_jax.metrics import segmentation


def soft_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask resized by Pillow's bilinear filter, whose support widens when it shrinks an image.

    It is not certain which filter the released code uses. With this one a seventh of the lesions'
    area in BUSI is border at 256×256, as with the released code.

    Args:
      mask: ``(source_height, source_width)`` bool.
      height: target height in pixels.
      width: target width in pixels.

    Returns:
      ``(height, width)`` float64 in [0, 1], in steps of 1/255; exactly 0 or 1 away from the
      outline.
    """
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)) / 255


def legacy_soft_border_dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Dice over the pixels where the truth is exactly 0 or 1.

    Args:
      truth: ``(height, width)`` float in [0, 1], see `soft_mask`.
      prediction: ``(height, width)`` bool.
    """
    hit, wrong = _counts(truth, prediction)
    return 2 * hit / (2 * hit + wrong) if hit + wrong else math.nan


def legacy_soft_border_jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Jaccard index over the pixels where the truth is exactly 0 or 1; arguments as for Dice."""
    hit, wrong = _counts(truth, prediction)
    return hit / (hit + wrong) if hit + wrong else math.nan


def _counts(truth: np.ndarray, prediction: np.ndarray) -> tuple[int, int]:
    """True positives; false positives and negatives together."""
    if not np.issubdtype(truth.dtype, np.floating) or prediction.dtype != bool:
        raise TypeError(
            f"the truth must be floating and the prediction boolean, got {truth.dtype} and "
            f"{prediction.dtype}"
        )
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(f"masks must be 2-D and alike, got {truth.shape} and {prediction.shape}")
    lesion, background = truth == 1, truth == 0
    hit = int(np.count_nonzero(lesion & prediction))
    missed = int(np.count_nonzero(lesion)) - hit
    return hit, missed + int(np.count_nonzero(background & prediction))


def legacy_hausdorff95(truth: np.ndarray, prediction: np.ndarray) -> float:
    """`segmentation.hausdorff95` in pixels, but 0 where a mask is empty.

    Args:
      truth: ``(height, width)`` bool.
      prediction: ``(height, width)`` bool.
    """
    found = segmentation.hausdorff95(truth, prediction)
    return 0.0 if math.isnan(found) else found


def legacy_directed_surface_distance(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean distance in pixels from the boundary of the prediction to that of the truth.

    The opposite direction is left out, so missed parts of a lesion do not count. Boundaries are as
    in `segmentation.hausdorff95`; the distance is 0 if a mask is empty.

    Args:
      truth: ``(height, width)`` bool.
      prediction: ``(height, width)`` bool.
    """
    segmentation.check(truth, prediction)
    if not truth.any() or not prediction.any():
        return 0.0
    to_truth = scipy.ndimage.distance_transform_edt(~segmentation.boundary(truth))
    return float(to_truth[segmentation.boundary(prediction)].mean())
