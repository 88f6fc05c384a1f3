"""Classification metrics over the images of one fold; thin names over scikit-learn's functions.

scikit-learn takes a second to import, so that is done where it is needed: training starts without.
"""

from __future__ import annotations

import numpy as np

from mtbus_jax import types

_CLASSES = len(types.CLASSES)


def confusion_matrix(
    label: np.ndarray, predicted: np.ndarray, *, classes: int = _CLASSES
) -> np.ndarray:
    """Counts of images, ``(classes, classes)`` int64: row = true class, column = predicted."""
    from sklearn import metrics as sk

    return sk.confusion_matrix(label, predicted, labels=list(range(classes)))


def accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """Share of images classified correctly."""
    return float(np.mean(label == predicted))


def f1_per_class(
    label: np.ndarray, predicted: np.ndarray, *, classes: int = _CLASSES
) -> np.ndarray:
    """F1 of each class, ``(classes,)``; undefined (NaN) for a class neither true nor predicted."""
    from sklearn import metrics as sk

    codes = list(range(classes))
    return sk.f1_score(label, predicted, labels=codes, average=None, zero_division=np.nan)


def f1_weighted(label: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes, weighted by their number of true images."""
    from sklearn import metrics as sk

    present = sorted(set(np.asarray(label).tolist()))
    return float(
        sk.f1_score(label, predicted, labels=present, average="weighted", zero_division=0.0)
    )


def auc_one_vs_rest(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the others, ``(classes,)``.

    Args:
      label: ``(n,)`` class codes.
      probability: ``(n, classes)``, rows sum to 1.

    Returns:
      NaN for a class of which the images hold all or none.
    """
    from sklearn import metrics as sk

    areas = np.full(probability.shape[-1], np.nan)
    for code in range(len(areas)):
        is_class = np.asarray(label) == code
        if is_class.any() and not is_class.all():
            areas[code] = sk.roc_auc_score(is_class, probability[:, code])
    return areas
