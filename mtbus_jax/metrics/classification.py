"""Classification metrics over the images of one fold; thin wrappers of scikit-learn's functions.

scikit-learn takes a second to import, so each function that needs it imports it when called, and
training starts without it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mtbus_jax import types

_CLASSES = len(types.CLASSES)


def confusion_matrix(
    label: np.ndarray, predicted: np.ndarray, *, classes: int = _CLASSES
) -> np.ndarray:
    """Counts of images, ``(classes, classes)`` int64: row = true class, column = predicted."""
    from sklearn import metrics as sk

    if not len(label):
        return np.zeros((classes, classes), np.int64)
    return sk.confusion_matrix(label, predicted, labels=list(range(classes)))


def accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """Share of images classified correctly; undefined (NaN) without images."""
    return float(np.mean(label == predicted)) if len(label) else math.nan


def f1_per_class(
    label: np.ndarray, predicted: np.ndarray, *, classes: int = _CLASSES
) -> np.ndarray:
    """F1 of each class, ``(classes,)``; undefined (NaN) for a class neither true nor predicted."""
    from sklearn import metrics as sk

    if not len(label):
        return np.full(classes, np.nan)
    codes = list(range(classes))
    return sk.f1_score(label, predicted, labels=codes, average=None, zero_division=np.nan)


def f1_weighted(label: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes, weighted by their number of true images; NaN without images."""
    from sklearn import metrics as sk

    if not len(label):
        return math.nan
    present = sorted(set(np.asarray(label).tolist()))
    return float(
        sk.f1_score(label, predicted, labels=present, average="weighted", zero_division=0.0)
    )


class Rates(NamedTuple):
    """Rates of each class against the others, ``(classes,)`` each; NaN where undefined.

    Attributes:
      sensitivity: TP/(TP+FN), also called recall; undefined for a class without images.
      specificity: TN/(TN+FP); undefined for a class that all images have.
      precision: TP/(TP+FP), also called positive predictive value; undefined for a class that is
        never predicted.
    """

    sensitivity: np.ndarray
    specificity: np.ndarray
    precision: np.ndarray


def rates_one_vs_rest(
    label: np.ndarray, predicted: np.ndarray, *, classes: int = _CLASSES
) -> Rates:
    """Sensitivity, specificity and precision of each class against the others.

    With two classes, the sensitivity of one is the specificity of the other.

    Args:
      label: ``(n,)`` true class codes.
      predicted: ``(n,)`` predicted class codes.
      classes: number of classes.
    """
    counts = confusion_matrix(label, predicted, classes=classes)
    hits, true, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    others, wrongly_called = counts.sum() - true, called - hits
    pairs = ((hits, true), (others - wrongly_called, others), (hits, called))
    return Rates(
        *(np.where(whole > 0, part / np.maximum(whole, 1), np.nan) for part, whole in pairs)
    )


def auc_one_vs_rest(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the others, ``(classes,)``.

    With two classes, both areas equal the area of the binary problem, because the two probabilities
    sum to 1.

    Args:
      label: ``(n,)`` class codes.
      probability: ``(n, classes)``, rows sum to 1.

    Returns:
      The areas; NaN for a class that all images or no image has.
    """
    from sklearn import metrics as sk

    areas = np.full(probability.shape[-1], np.nan)
    for code in range(len(areas)):
        is_class = np.asarray(label) == code
        if is_class.any() and not is_class.all():
            areas[code] = sk.roc_auc_score(is_class, probability[:, code])
    return areas
