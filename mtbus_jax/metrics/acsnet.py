"""Segmentation metrics as ACSNet's released code has them, for comparison with its tables alone.

He et al. 2024 (Comput. Biol. Med., PII S0010482524004037). The code makes test masks smaller by
bilinear interpolation and asks afterwards which pixels are exactly 1 and which exactly 0. Between
them lies a soft border that belongs to neither, and what is predicted there counts nowhere: errors
at the outline, which are most errors, are not seen. The mean surface distance goes one way
only, and where a mask is empty distances are 0, the best value.

Every function takes ``truth`` and ``prediction``, ``(height, width)`` arrays, and returns a float.

| metric                            | both empty | only truth empty | only prediction empty |
|-----------------------------------|------------|------------------|-----------------------|
| legacy_soft_border_dice, -jaccard | undefined  | 0                | 0                     |
| legacy_hausdorff95                | 0          | 0                | 0                     |
| legacy_directed_surface_distance  | 0          | 0                | 0                     |

Undefined is NaN: then no pixel counts, which for the first two can also be where a lesion is all
border and nothing is predicted outside it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from PIL import Image

from mtbus_jax.metrics import segmentation


def soft_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask at another size as Pillow's bilinear filter makes it, which widens where it shrinks.

    Which filter the released code has is not certain; with this one a seventh of the lesions' area
    in BUSI is border at 256×256, as was found there.

    Args:
      mask: ``(source_height, source_width)`` bool.
      height: target height in pixels.
      width: target width in pixels.

    Returns:
      ``(height, width)`` float64 in [0, 1], in steps of 1/255: exactly 0 and 1 off the outline.
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

    Not the way back, so that a prediction that finds half of a lesion is as good as its outline.
    Boundaries as in `segmentation.hausdorff95`; 0 where a mask is empty.

    Args:
      truth: ``(height, width)`` bool.
      prediction: ``(height, width)`` bool.
    """
    segmentation.check(truth, prediction)
    if not truth.any() or not prediction.any():
        return 0.0
    to_truth = scipy.ndimage.distance_transform_edt(~segmentation.boundary(truth))
    return float(to_truth[segmentation.boundary(prediction)].mean())
