"""Deterministic oversampling (Aumente-Maestro et al. 2025): images of rare classes repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError

REPLICATION_RULES = ("round", "ceil")


def replication_factors(counts: Sequence[int], *, rule: str = "round") -> list[int]:
    """How often deterministic oversampling repeats the images of each class.

    RF_c = round(1/P_c), P_c the share of class c in the training set. The paper prints ⌈1/P_c⌉,
    but its worked example and its code round; both are offered.

    Args:
      counts: training images per class.
      rule: ``"round"`` (halves go to the even number, as Python rounds) or ``"ceil"``.

    Returns:
      One factor per class, ≥ 1; 1 for a class without images.

    Raises:
      UserError: for an unknown rule.
    """
    if rule not in REPLICATION_RULES:
        known = ", ".join(REPLICATION_RULES)
        raise UserError(f"train.oversample_rule: {rule!r} is unknown. Known: {known}.")
    total = sum(counts)
    factors = []
    for count in counts:
        if count == 0:
            factors.append(1)
        elif rule == "round":
            factors.append(round(total / count))
        else:
            factors.append(-(-total // count))
    return factors


def oversample(train: np.ndarray, label: np.ndarray, *, rule: str = "round") -> np.ndarray:
    """Deterministic oversampling: repeats each training image by its class's replication factor.

    Args:
      train: ``(a,)`` indices into the dataset.
      label: ``(n,)`` class codes of the whole dataset.
      rule: see `replication_factors`.

    Returns:
      ``(b,)`` indices, b ≥ a; images without a label occur once. The order has no meaning: it is
      shuffled again in every epoch.
    """
    own = label[train]
    known = own[own != types.NO_LABEL]
    factors = np.array(replication_factors(np.bincount(known).tolist(), rule=rule))
    repeats = np.ones(len(train), int)
    repeats[own != types.NO_LABEL] = factors[known]
    return np.repeat(train, repeats)
