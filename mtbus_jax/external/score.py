"""The figures of an external test: values, intervals, and how well uncertainty ranks errors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtbus_jax import types
from mtbus_jax.evaluation import summary, trust
from mtbus_jax.evaluation.evaluate import REFINED, case_rows
from mtbus_jax.evaluation.trust.measure import KEPT
from mtbus_jax.metrics import calibration, classification, segmentation
from mtbus_jax.predict import Prediction
from mtbus_jax.training.steps import Predictions

RESAMPLES, LEVEL = 1000, 0.95  # of the bootstrap


class Interval(NamedTuple):
    """A figure with its uncertainty.

    Attributes:
      value: over all images; None if it is undefined.
      low: lower end of the interval, or None.
      high: upper end, or None.
      n: number of images behind the value.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def rows_of(cases: types.Cases, predictions: Sequence[Prediction]) -> pd.DataFrame:
    """One row per image: the columns of ``cases.csv`` and those about trust.

    Besides the columns of `case_rows`, it has ``group``; ``answer_class``, the class that ``mtbus
    predict`` answers; ``answer_dice``, the Dice of its mask; and with trust ``uncertainty`` and
    ``warning``.

    Args:
      cases: n images, with the classes of the run.
      predictions: the predictions for these images, in the same order.
    """
    probability = logits = None
    if predictions[0].probability is not None:
        probability = np.stack([each.probability for each in predictions])[..., None]
    if predictions[0].class_probability is not None:
        logits = np.log(np.maximum([each.class_probability for each in predictions], 1e-30))
    rows = case_rows(cases, Predictions(probability, logits))
    rows["label"] = rows.label.where(cases.label_known, None)
    rows.insert(1, "group", cases.group)
    if logits is not None:
        rows["answer_class"] = [each.class_name for each in predictions]
    if probability is not None:
        truth = cases.mask[..., 0] > 0
        pairs = zip(truth, predictions, strict=True)
        dice = np.array([segmentation.dice(true, each.mask) for true, each in pairs])
        rows["answer_dice"] = np.where(cases.mask_known, dice, np.nan)
    if predictions[0].uncertainty is not None:
        rows["uncertainty"] = [each.uncertainty for each in predictions]
        rows["warning"] = [bool(each.warning) for each in predictions]
    return rows


def measured(rows: pd.DataFrame, classes: types.Classes, group: np.ndarray) -> dict[str, Any]:
    """All figures over the images of an external test.

    Args:
      rows: rows from `rows_of`.
      classes: classes of the run.
      group: ``(n,)``, equal for images that belong together, such as those of a patient.

    Returns:
      ``results``, raw and refined figures as `Interval` by name; ``confusion_counts``; and with
      trust ``risk``, the mean of each error over all images and over the least uncertain ones.
    """
    kinds = {"raw": False, "refined": True}
    results, confusion = {}, {}
    for kind, refined in kinds.items():
        prefix = REFINED if refined else ""
        if refined and f"{REFINED}dice" not in rows:
            continue
        figures = functools.partial(summary.fold_figures, refined=refined, classes=classes)
        results[kind] = {
            name: figure._asdict() for name, figure in intervals(rows, group, figures).items()
        }
        known = rows[rows.label.notna()]
        if f"{prefix}predicted" in rows and len(known):
            codes = [
                known[column].map(classes.names.index).to_numpy(int)
                for column in ("label", f"{prefix}predicted")
            ]
            matrix = classification.confusion_matrix(*codes, classes=len(classes))
            confusion[kind] = matrix.tolist()
    content = {"results": results, "confusion_counts": confusion}
    if "uncertainty" in rows:
        content["risk"] = risk(rows)
    return content


def intervals(
    rows: pd.DataFrame,
    group: np.ndarray,
    figures: Callable[[pd.DataFrame], dict[str, tuple[float, int]]],
) -> dict[str, Interval]:
    """Figures with percentile bootstrap intervals over groups of images.

    Whole groups are drawn with replacement, so that images of one patient do not count as
    independent (Davison, Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).

    Args:
      rows: n rows from `rows_of`.
      group: ``(n,)``, the group of each row.
      figures: function from rows to pairs of value and number of images, by name.
    """
    members = [np.flatnonzero(group == each) for each in np.unique(group)]
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(members), size=len(members))
        index = np.concatenate([members[each] for each in chosen])
        for name, (value, _n) in figures(rows.iloc[index]).items():
            drawn.setdefault(name, []).append(value)
    found = {}
    for name, (value, n) in figures(rows).items():
        values = np.array(drawn[name])
        values = values[~np.isnan(values)]
        found[name] = Interval(None, None, None, 0)
        if n and len(values):
            tail = (1 - LEVEL) / 2
            low, high = np.quantile(values, [tail, 1 - tail])
            found[name] = Interval(value, float(low), float(high), n)
    return found


def risk(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How much the mean error falls when the most uncertain images are left out.

    Args:
      rows: rows from `rows_of`, with trust.

    Returns:
      For ``wrong_class``, ``dice_loss`` (1 − DSC) and ``wrong`` (wrong class, or DSC below
      `trust.WRONG_DICE`), the means ``all`` and ``kept`` over the images whose truth is known.
    """
    errors = {}
    known = np.ones(len(rows), bool)
    wrong = np.zeros(len(rows), bool)
    if "answer_class" in rows and rows.label.notna().any():
        known &= rows.label.notna().to_numpy()
        errors["wrong_class"] = (rows.answer_class != rows.label).to_numpy(float)
        wrong |= errors["wrong_class"] > 0
    if "answer_dice" in rows and rows.answer_dice.notna().any():
        known &= rows.answer_dice.notna().to_numpy()
        errors["dice_loss"] = 1 - rows.answer_dice.to_numpy()
        wrong |= (rows.answer_dice < trust.WRONG_DICE).to_numpy()
    errors["wrong"] = wrong.astype(float)
    uncertainty = rows.uncertainty.to_numpy()[known]
    if not known.any():
        return {}
    found = {}
    for name, error in errors.items():
        curve = calibration.risk_coverage(error[known], uncertainty)
        found[name] = {"all": curve.at(1.0), "kept": curve.at(KEPT)}
    return found
