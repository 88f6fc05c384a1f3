"""Fits `trust` on a run's validation images and measures it on its test images.

Writes ``trust.json`` (what was fitted and how well it works) and ``trust.csv`` (one row per test
image). Each fold's test images are assessed only with what was fitted on that fold's validation
images. Images whose mask or label is not known are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy

from mtbus_jax import files, refine, splits, types
from mtbus_jax.escaping import markdown_table
from mtbus_jax.evaluation import stored_predictions, trust
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.evaluation.trust import fit
from mtbus_jax.metrics import calibration, segmentation
from mtbus_jax.training import run_folder

ROWS = "trust.csv"
# Share of the cases that remain when the most uncertain ones are left out.
KEPT = 0.8
# Titles of an image's possible errors.
ERROR_TITLES = {
    "wrong": "wrong (class or mask)",
    "wrong_class": "wrong class",
    "dice_loss": "1 − DSC",
}
# Prefixes of the columns with a class's probability.
_UNCALIBRATED, _CALIBRATED = "uncalibrated_", "calibrated_"

# mask (n, height, width) bool and class id (n,) of n images, None for what is not computed
_Pair = tuple[np.ndarray | None, np.ndarray | None]


def write_trust(workdir: Path, cases: types.Cases, folds: list[splits.Split]) -> dict[str, Any]:
    """Fits, measures and writes both files for the evaluated folds of a run.

    A fold is left out if no validation image or no test image of it has a known truth. If no fold
    remains, nothing is written and the files of an earlier evaluation are removed.

    Args:
      workdir: the run folder.
      cases: the run's dataset.
      folds: the run's splits.

    Returns:
      The content of ``trust.json``, empty if nothing was written.

    Raises:
      UserError: if no fold has been evaluated, or predictions are missing.
    """
    done = sorted(int(fold) for fold in read_cases(workdir).fold.unique())
    fitted: trust.Trust = {}
    rows = {"validation": [], "test": []}
    for fold in done:
        if not len(folds[fold].validation):
            continue
        directory = run_folder.fold_dir(workdir, fold)
        parts = {
            part: (
                stored_predictions.read(directory, part),
                cases.take(getattr(folds[fold], part)),
            )
            for part in rows
        }
        for part, (stored, truth) in parts.items():
            stored_predictions.check_images(directory, part, stored, truth.uid)
        parts = {part: whose_truth_is_known(*each) for part, each in parts.items()}
        if not all(len(truth) for _, truth in parts.values()):
            continue
        fitted[fold] = fit_stored(*parts["validation"])
        for part, (stored, truth) in parts.items():
            rows[part].append(_rows(stored, truth, fitted[fold], fold))
    if not fitted:
        for name in (ROWS, trust.TRUST):
            (workdir / name).unlink(missing_ok=True)
        return {}
    tables = {part: pd.concat(each, ignore_index=True) for part, each in rows.items()}
    content = {
        "error_rate": trust.ERROR_RATE,
        "warning_share": trust.WARNING_SHARE,
        "wrong_dice": trust.WRONG_DICE,
        "folds": {str(fold): dataclasses.asdict(values) for fold, values in fitted.items()},
        "measured": {part: measure(table) for part, table in tables.items()},
    }
    files.write_text(workdir / ROWS, tables["test"].to_csv(index=False))
    files.write_json(workdir / trust.TRUST, content)
    return content


def whose_truth_is_known(
    stored: stored_predictions.Stored, truth: types.Cases
) -> tuple[stored_predictions.Stored, types.Cases]:
    """Only the images whose truth is known for everything that the run predicts."""
    known = np.ones(len(truth), bool)
    if stored.probability is not None:
        known &= truth.mask_known
    if stored.logits is not None:
        known &= truth.label_known
    return (stored, truth) if known.all() else (stored.take(known), truth.take(known))


def fit_stored(stored: stored_predictions.Stored, truth: types.Cases) -> trust.FoldTrust:
    """Fits trust on images that the network was not trained on.

    Args:
      stored: the network's predictions for n images.
      truth: the images, in the same order; their masks and labels are known.
    """
    mask = truth.mask[..., 0] > 0
    answer, class_id = _hard(stored, truth.classes)
    wrong_class, wrong_mask = _wrong(answer, class_id, truth)
    return fit.fit(
        stored.mean_probability,
        stored.disagreement,
        stored.class_logits,
        mask=answer,
        class_id=class_id,
        label=truth.label,
        has_lesion=mask.any(axis=(1, 2)),
        wrong_class=wrong_class,
        wrong_mask=wrong_mask,
        normal=truth.classes.normal,
    )


def _hard(stored: stored_predictions.Stored, classes: types.Classes) -> _Pair:
    """The tested prediction, refined if possible; trust foresees its errors."""
    mask = None if stored.probability is None else stored.mask
    if stored.logits is None:
        return mask, None
    if mask is None:
        return None, stored.logits.argmax(axis=-1)
    return tuple(map(np.asarray, refine.refine(mask, stored.logits, normal=classes.normal)))


def _wrong(
    mask: np.ndarray | None, class_id: np.ndarray | None, truth: types.Cases
) -> tuple[np.ndarray, np.ndarray]:
    """Whether class and mask are wrong; False for a task that the run does not have."""
    wrong_class = wrong_mask = np.zeros(len(truth), bool)
    if class_id is not None:
        wrong_class = class_id != truth.label
    if mask is not None:
        wrong_mask = _dice(mask, truth) < trust.WRONG_DICE
    return wrong_class, wrong_mask


def _dice(mask: np.ndarray, truth: types.Cases) -> np.ndarray:
    true_mask = truth.mask[..., 0] > 0
    return np.array([segmentation.dice(t, m) for t, m in zip(true_mask, mask, strict=True)])


def _rows(
    stored: stored_predictions.Stored, truth: types.Cases, fitted: trust.FoldTrust, fold: int
) -> pd.DataFrame:
    """One row per image: its assessment, its correction, and whether the answer was right."""
    names, normal = np.array(truth.classes.names), truth.classes.normal
    found = trust.join(
        stored.mean_probability,
        stored.disagreement,
        stored.class_logits,
        {fold: fitted},
        [fold],
        normal=normal,
    )
    mask, class_id = _hard(stored, truth.classes)
    judged = trust.judge(found, mask, class_id, {fold: fitted}, [fold])
    columns: dict[str, Any] = {"uid": truth.uid, "fold": fold, "label": names[truth.label]}
    columns |= {"uncertainty": judged.uncertainty, "warning": judged.warning}
    columns["wrong"] = np.logical_or(*_wrong(mask, class_id, truth))
    if class_id is not None:
        columns["predicted"] = names[class_id]
        uncalibrated = scipy.special.softmax(stored.logits, axis=-1)
        for code, name in enumerate(names):
            columns[_UNCALIBRATED + name] = uncalibrated[:, code]
            columns[_CALIBRATED + name] = found.class_probability[:, code]
        columns["prediction_set"] = ["|".join(names[s]) for s in found.prediction_set]
    if mask is not None:
        columns["dice"] = _dice(mask, truth)
        columns["presence"] = found.presence
        columns["lesion_odds"] = found.lesion_odds
    if mask is not None and class_id is not None:
        columns["correction"] = corrections(stored.mask, stored.logits, normal=normal)
        probable_mask, probable_class = map(
            np.asarray,
            refine.refine_probable(
                jnp.asarray(stored.probability),
                jnp.asarray(found.class_probability, jnp.float32),
                jnp.asarray(found.lesion_odds, jnp.float32),
                normal=normal,
            ),
        )
        columns["raw_predicted"] = names[stored.logits.argmax(axis=-1)]
        columns["raw_dice"] = _dice(stored.mask, truth)
        columns["probable_predicted"] = names[probable_class]
        columns["probable_dice"] = _dice(probable_mask, truth)
    return pd.DataFrame(columns)


def corrections(
    mask: np.ndarray, class_logits: np.ndarray, *, normal: int | None = types.NORMAL
) -> np.ndarray:
    """What prediction refining changes, as text; empty where it changes nothing.

    Args:
      mask: ``(n, height, width)`` bool, before refining.
      class_logits: ``(n, classes)``.
      normal: code of the class "no lesion", None if there is none.
    """
    class_id = class_logits.argmax(axis=-1)
    if normal is None:
        return np.full(len(mask), "")
    empty = ~mask.any(axis=(1, 2))
    emptied = ~empty & (class_id == normal)
    renamed = empty & (class_id != normal)
    return np.select([emptied, renamed], ["mask emptied", "class set to normal"], "")


def measure(rows: pd.DataFrame) -> dict[str, Any]:
    """Measures how well uncertainty, probabilities and both kinds of refining do on these images.

    Args:
      rows: rows of ``trust.csv``.

    Returns:
      By name: ``images``, ``kept`` and ``warned``; ``risk``, for each kind of error its mean over
      all images, over the share `KEPT` that is least uncertain, and over the share `KEPT` with the
      smallest errors (the best possible order); with classes ``calibration`` and ``conformal``;
      with both tasks ``refining``: DSC and accuracy raw, by the hard rules and by the most probable
      pair.
    """
    errors: dict[str, np.ndarray] = {"wrong": rows.wrong.to_numpy(float)}
    if "predicted" in rows:
        errors["wrong_class"] = (rows.predicted != rows.label).to_numpy(float)
    if "dice" in rows:
        errors["dice_loss"] = 1 - rows.dice.to_numpy()
    result: dict[str, Any] = {"images": len(rows), "kept": KEPT, "risk": {}}
    for name, error in errors.items():
        curve = calibration.risk_coverage(error, rows.uncertainty.to_numpy())
        best = calibration.risk_coverage(error, error).at(KEPT)
        result["risk"][name] = {"all": curve.at(1.0), "kept": curve.at(KEPT), "best": best}
    result["warned"] = float(rows.warning.mean())
    if "predicted" in rows:
        names = [c.removeprefix(_CALIBRATED) for c in rows if c.startswith(_CALIBRATED)]
        label = rows.label.map(names.index).to_numpy()
        result["calibration"] = {
            when: calibration.expected_calibration_error(
                rows[[prefix + name for name in names]].to_numpy(), label
            )
            for when, prefix in (("before", _UNCALIBRATED), ("after", _CALIBRATED))
        }
        sets = rows.prediction_set.fillna("").str.split("|")
        covered = [name in members for name, members in zip(rows.label, sets, strict=True)]
        sizes = [len([m for m in members if m]) for members in sets]
        result["conformal"] = {"coverage": float(np.mean(covered)), "size": float(np.mean(sizes))}
    if "probable_predicted" in rows:
        result["refining"] = {
            kind: {
                "dsc": float(rows[f"{prefix}dice"].mean()),
                "acc": float((rows[f"{prefix}predicted"] == rows.label).mean()),
            }
            for kind, prefix in (("raw", "raw_"), ("hard", ""), ("probable", "probable_"))
        }
    return result


_FRACTION: Callable[[float], str] = "{:.3f}".format


def to_markdown(content: dict[str, Any]) -> list[str]:
    """Lines about trust for ``summary.md``, from the content of ``trust.json``."""
    test, validation = content["measured"]["test"], content["measured"]["validation"]
    share = round(100 * (1 - KEPT))
    whose = " of the refined answers" if "refining" in test else ""
    lines = [
        "## Trust",
        "",
        f"Fitted on each fold's validation images, measured on its test images: mean error{whose} "
        f"over all test images, without the {share} % most uncertain, and without the {share} % "
        "with the largest errors, the best that any uncertainty could reach.",
        "",
        *markdown_table(
            ["error", "all", f"without {share} %", "at best"],
            [
                [ERROR_TITLES[name], *(_FRACTION(risk[each]) for each in ("all", "kept", "best"))]
                for name, risk in test["risk"].items()
            ],
        ),
    ]
    if "calibration" in test:
        error, sets = test["calibration"], test["conformal"]
        lines += [
            "",
            f"Expected calibration error {_FRACTION(error['before'])} before and "
            f"{_FRACTION(error['after'])} after temperature scaling, of the average over "
            "all predictions of an image. Prediction sets at an error rate of "
            f"{content['error_rate']}: they hold the true class in "
            f"{_FRACTION(sets['coverage'])} of the cases, {sets['size']:.2f} classes on average.",
        ]
    if "refining" in test:
        kinds = {"raw": "none", "hard": "hard rules (PR)", "probable": "most probable pair"}
        parts = [(part["refining"], f) for part in (validation, test) for f in ("dsc", "acc")]
        rows = [
            [title, *(_FRACTION(figures[kind][f]) for figures, f in parts)]
            for kind, title in kinds.items()
        ]
        figures = [f"{part} {f}" for part in ("validation", "test") for f in ("DSC", "accuracy")]
        lines += ["", *markdown_table(["refining", *figures], rows)]
    return lines
