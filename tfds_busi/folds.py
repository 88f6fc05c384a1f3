"""The published test folds: how they are drawn, and a digest that detects a different draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

FOLDS = 4
SEED = 1993


def draw_test_folds(labels: Sequence[int], *, folds: int = FOLDS, seed: int = SEED) -> np.ndarray:
    """The fold in which each image is tested, stratified by class (Aumente-Maestro et al. 2025).

    Args:
      labels: ``(n,)`` class codes, in the published order; the order decides the draw.
      folds: number of folds.
      seed: random state of scikit-learn's ``StratifiedKFold``; 1993 is the published one.

    Returns:
      ``(n,)`` int32, 0 ≤ fold < ``folds``.

    Raises:
      ValueError: if every class has fewer images than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    labels = np.asarray(labels)
    test_fold = np.empty(len(labels), np.int32)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(np.zeros((len(labels), 1)), labels)):
        test_fold[test] = fold
    return test_fold


def digest(uid: Iterable[str], test_fold: Iterable[int]) -> str:
    """SHA-256 over the lines ``uid,fold``, in order."""
    lines = [f"{name},{int(fold)}\n" for name, fold in zip(uid, test_fold, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
