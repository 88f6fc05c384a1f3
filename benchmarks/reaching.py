"""When training reaches the published figures; for both sides of time_to_published.py.

A training run is a list of rows, one per epoch, as `our_time_to_published.py` and
`peer_time_to_published.py` print them: ``epoch`` (from 1), ``processor_seconds`` (of all threads
since the process began), and figures of the validation images after that epoch, raw (``dice``,
``accuracy``) and refined (``refined_dice``, ``refined_accuracy``). Needs only NumPy: both
environments import it, so both sides are judged by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


def figures(
    predicted: np.ndarray,
    class_id: np.ndarray,
    mask: np.ndarray,
    label: np.ndarray,
    *,
    normal: int | None,
) -> dict[str, float]:
    """Mean Dice coefficient and accuracy of some images, raw and refined.

    Two empty masks have a Dice coefficient of 1. Refining (PR of Aumente-Maestro et al. 2025)
    empties the mask of an image that is called normal and calls one with an empty mask normal.

    Args:
      predicted: ``(n, height, width)`` bool.
      class_id: ``(n,)`` integers, predicted.
      mask: ``(n, height, width)`` bool, the truth.
      label: ``(n,)`` integers, the truth.
      normal: code of the class without lesion; None if there is none: then nothing is refined.
    """
    versions = {"": (predicted, class_id), "refined_": (predicted, class_id)}
    if normal is not None:
        empty = ~predicted.any(axis=(1, 2))
        versions["refined_"] = (
            predicted & (class_id != normal)[:, None, None],
            np.where(empty, normal, class_id),
        )
    found = {}
    for prefix, (masks, classes) in versions.items():
        overlap = (masks & mask).sum(axis=(1, 2))
        size = masks.sum(axis=(1, 2)) + mask.sum(axis=(1, 2))
        dice = np.where(size == 0, 1.0, 2 * overlap / np.maximum(size, 1))
        found[f"{prefix}dice"] = float(dice.mean())
        found[f"{prefix}accuracy"] = float((classes == label).mean())
    return found


class Target(NamedTuple):
    """Figures to reach.

    Attributes:
      name: such as ``MT+PR+DO``.
      prefix: of the figures to compare with: ``""`` for raw, ``refined_``.
      dice: mean Dice coefficient, 0..1.
      accuracy: 0..1.
    """

    name: str
    prefix: str
    dice: float
    accuracy: float


class Reached(NamedTuple):
    """Processor minutes of a fold until a figure was reached; None if it never was.

    Attributes:
      first: until the first epoch that reached it.
      held: until the first epoch from which on every epoch reached it.
    """

    first: float | None
    held: float | None


def when(minutes: np.ndarray, enough: np.ndarray) -> Reached:
    """When a figure was first reached, and from when on it stayed reached.

    Args:
      minutes: ``(epochs,)`` up to the end of each epoch.
      enough: ``(epochs,)`` bool.
    """
    short = np.flatnonzero(~enough)
    start = int(short[-1]) + 1 if len(short) else 0
    return Reached(
        float(minutes[np.argmax(enough)]) if enough.any() else None,
        float(minutes[start]) if start < len(enough) else None,
    )


def over_folds(folds: Sequence[Sequence[dict[str, Any]]], name: str) -> np.ndarray:
    """``(epochs,)`` means over folds of what the rows call ``name``, with equal weights.

    A fold that stopped early keeps the row of its last epoch.
    """
    epochs = max(map(len, folds))
    held = [[*rows, *[rows[-1]] * (epochs - len(rows))] for rows in folds]
    return np.array([[row[name] for row in rows] for rows in held], float).mean(axis=0)


def compare(folds: Sequence[Sequence[dict[str, Any]]], target: Target) -> dict[str, Any]:
    """When the mean over folds reached the target, and where it ended.

    Args:
      folds: rows of each fold.
      target: the figures.

    Returns:
      `Reached` as a list under ``dice``, ``accuracy`` and ``both`` (in one and the same epoch); the
      last figures under ``last_dice`` and ``last_accuracy``.
    """
    minutes = over_folds(folds, "processor_seconds") / 60
    dice, accuracy = (over_folds(folds, target.prefix + name) for name in ("dice", "accuracy"))
    enough = {"dice": dice >= target.dice, "accuracy": accuracy >= target.accuracy}
    enough["both"] = enough["dice"] & enough["accuracy"]
    return {
        **{name: list(when(minutes, each)) for name, each in enough.items()},
        "last_dice": float(dice[-1]),
        "last_accuracy": float(accuracy[-1]),
    }


def whole_minutes(rows: Sequence[dict[str, Any]], *, epochs: int, finished: bool) -> float:
    """Processor minutes of all epochs of a fold; extrapolated if it is not finished.

    Every epoch that was not trained is assumed to cost as much as the last one that was. This needs
    at least two epochs, because the first one includes compiling.

    Args:
      rows: of the fold.
      epochs: of the recipe.
      finished: whether training finished, perhaps after fewer epochs.
    """
    seconds = rows[-1]["processor_seconds"]
    if not finished:
        more = epochs - rows[-1]["epoch"]
        seconds += more * (seconds - rows[-2]["processor_seconds"])
    return seconds / 60
