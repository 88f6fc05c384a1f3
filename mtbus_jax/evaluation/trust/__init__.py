"""How far a prediction can be trusted: fitted on validation images, measured on test images."""

from __future__ import annotations

from mtbus_jax.evaluation.trust.apply import (
    ERROR_RATE,
    NEVER,
    WARNING_SHARE,
    WRONG_DICE,
    Assessment,
    Doubt,
    FoldTrust,
    Judgement,
    Logistic,
    Presence,
    Trust,
    assess,
    expected_dice,
    join,
    join_classes,
    judge,
    lesion_by_class,
    mask_signs,
    signs_of_doubt,
)
from mtbus_jax.evaluation.trust.file import TRUST, read, read_content

__all__ = [
    "ERROR_RATE",
    "NEVER",
    "TRUST",
    "WARNING_SHARE",
    "WRONG_DICE",
    "Assessment",
    "Doubt",
    "FoldTrust",
    "Judgement",
    "Logistic",
    "Presence",
    "Trust",
    "assess",
    "expected_dice",
    "join",
    "join_classes",
    "judge",
    "lesion_by_class",
    "mask_signs",
    "read",
    "read_content",
    "signs_of_doubt",
]
