"""Segmentation metrics of one pair of masks, each with its rule for empty masks.

Every function takes ``truth`` and ``prediction``, boolean ``(height, width)`` arrays, and returns a
float. NaN means undefined; averages leave it out and give the number of images that remain.

| metric                      | both empty | only truth empty | only prediction empty |
|-----------------------------|------------|------------------|-----------------------|
| dice, jaccard               | 1          | 0                | 0                     |
| hausdorff, hausdorff95, ASD | 0          | undefined        | undefined             |
| recall                      | undefined  | undefined        | 0                     |
| precision                   | undefined  | 0                | undefined             |
| specificity                 | 1          | TN/(TN+FP)       | 1, or undefined       |
| legacy_hausdorff            | 0          | undefined        | undefined             |
| legacy_recall, -_precision  | undefined  | undefined        | undefined             |

Specificity is undefined where the truth fills the image. Distances are in pixels of the arrays
given. The released code of Aumente-Maestro et al. 2025 computes some of these metrics differently;
those versions have names that start with ``legacy_``. The versions of ACSNet are in `acsnet`.
"""

from __future__ import annotations

import numpy as np
import scipy


def _counts(truth: np.ndarray, prediction: np.ndarray) -> tuple[int, int, int]:
    """True positives, false positives, false negatives."""
    check(truth, prediction)
    tp = int(np.count_nonzero(truth & prediction))
    return tp, int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp


def check(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Refuses arrays that cannot be two masks of one image.

    Raises:
      TypeError: if one is not boolean.
      ValueError: if they are not 2-D or differ in shape.
    """
    if truth.dtype != bool or prediction.dtype != bool:
        raise TypeError(f"masks must be boolean, got {truth.dtype} and {prediction.dtype}")
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(
            f"masks must be 2-D and equal in shape, got {truth.shape} and {prediction.shape}"
        )


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Dice similarity coefficient, 2TP/(2TP+FP+FN), in [0, 1]."""
    tp, fp, fn = _counts(truth, prediction)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


def jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Jaccard index (intersection over union), TP/(TP+FP+FN), in [0, 1]."""
    tp, fp, fn = _counts(truth, prediction)
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def recall(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Recall (sensitivity), TP/(TP+FN), in [0, 1]; a missed lesion counts as 0."""
    tp, _, fn = _counts(truth, prediction)
    return tp / (tp + fn) if tp + fn else np.nan


def precision(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Precision, TP/(TP+FP), in [0, 1]."""
    tp, fp, _ = _counts(truth, prediction)
    return tp / (tp + fp) if tp + fp else np.nan


def specificity(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Specificity, TN/(TN+FP), in [0, 1]; undefined if the truth fills the image."""
    tp, fp, fn = _counts(truth, prediction)
    tn = truth.size - tp - fp - fn
    return tn / (tn + fp) if tn + fp else np.nan


def hausdorff(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Hausdorff distance in pixels: the larger directed distance between the two pixel sets."""
    distances = _set_distances(truth, prediction, truth, prediction)
    return distances if isinstance(distances, float) else float(max(d.max() for d in distances))


def hausdorff95(truth: np.ndarray, prediction: np.ndarray) -> float:
    """95th percentile Hausdorff distance (HD95) in pixels, between the two boundaries.

    The larger of the two directed 95th percentiles (not the percentile of both pooled). The
    boundary of a mask consists of its pixels with a 4-neighbour outside the mask or the image.
    """
    distances = _surface_distances(truth, prediction)
    if isinstance(distances, float):
        return distances
    return float(max(np.percentile(d, 95) for d in distances))


def average_surface_distance(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Average symmetric surface distance in pixels: mean over both boundaries' pixels, pooled.

    Boundaries as in `hausdorff95`.
    """
    distances = _surface_distances(truth, prediction)
    return distances if isinstance(distances, float) else float(np.concatenate(distances).mean())


def boundary(mask: np.ndarray) -> np.ndarray:
    """``(height, width)`` bool: pixels of a mask with a 4-neighbour outside it or the image."""
    return mask & ~scipy.ndimage.binary_erosion(mask)


def _surface_distances(truth: np.ndarray, prediction: np.ndarray):
    return _set_distances(truth, prediction, boundary(truth), boundary(prediction))


def _set_distances(
    truth: np.ndarray, prediction: np.ndarray, a: np.ndarray, b: np.ndarray
) -> float | tuple[np.ndarray, np.ndarray]:
    """Distances from each pixel of ``a`` to set ``b`` and vice versa, or the value if empty."""
    check(truth, prediction)
    if not truth.any() or not prediction.any():
        return np.nan if truth.any() or prediction.any() else 0.0
    to_b = scipy.ndimage.distance_transform_edt(~b)
    to_a = scipy.ndimage.distance_transform_edt(~a)
    return to_b[a], to_a[b]


def legacy_hausdorff(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The released code's "Hausdorff": image rows as points of a ``width``-dimensional space.

    Not a distance in pixels; only for comparison with the published tables.
    """
    check(truth, prediction)
    if truth.any() != prediction.any():
        return np.nan
    rows = truth.astype(float), prediction.astype(float)
    return max(
        scipy.spatial.distance.directed_hausdorff(*rows)[0],
        scipy.spatial.distance.directed_hausdorff(*reversed(rows))[0],
    )


def legacy_recall(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The released code's recall: undefined without a true positive, which hides missed lesions."""
    return recall(truth, prediction) if _counts(truth, prediction)[0] else np.nan


def legacy_precision(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The released code's precision: undefined without a true positive."""
    return precision(truth, prediction) if _counts(truth, prediction)[0] else np.nan


# Columns of cases.csv, in this order.
METRICS = {
    "dice": dice,
    "jaccard": jaccard,
    "hausdorff": hausdorff,
    "hausdorff95": hausdorff95,
    "average_surface_distance": average_surface_distance,
    "recall": recall,
    "precision": precision,
    "specificity": specificity,
    "legacy_hausdorff": legacy_hausdorff,
    "legacy_recall": legacy_recall,
    "legacy_precision": legacy_precision,
}
