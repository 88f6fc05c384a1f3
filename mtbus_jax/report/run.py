"""Everything a report needs from a run folder, read once and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions, summary, tables, trust
from mtbus_jax.evaluation.evaluate import REFINED, read_cases
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.training import logbook, run_files, run_folder, run_splits

EMPTIED, RENAMED = "mask emptied", "class set to normal"

T = TypeVar("T")

# Columns that `trust.csv` adds to those of `cases.csv`.
_TRUST_COLUMNS = (
    *("uncertainty", "warning", "prediction_set", "presence"),
    *("probable_predicted", "probable_dice"),
)
# Prefixes of those that it adds for each class.
_TRUST_PREFIXES = ("calibrated_", "uncalibrated_")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that has been tested.

    Attributes:
      workdir: its folder.
      config: content of ``config.json``.
      summary: content of ``summary.json``.
      environment: content of ``environment.json``; None if it is missing.
      splits: content of ``splits.json``; None if it is missing.
      metrics: rows of ``metrics.jsonl`` by fold.
      rows: one row per test image, see `case_rows`.
      trust: content of ``trust.json``; None if it is missing.
    """

    workdir: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    environment: dict[str, Any] | None
    splits: dict[str, Any] | None
    metrics: dict[int, list[dict[str, Any]]]
    rows: pd.DataFrame
    trust: dict[str, Any] | None

    @property
    def folds(self) -> list[int]:
        """The tested folds."""
        return sorted(int(fold) for fold in self.rows.fold.unique())

    @property
    def classes(self) -> types.Classes:
        """The classes that the run tells apart."""
        return types.Classes.of(self.config["data"])

    @property
    def has_masks(self) -> bool:
        """Whether the run segments."""
        return "final_dice" in self.rows

    @property
    def has_classes(self) -> bool:
        """Whether the run classifies."""
        return "final_predicted" in self.rows

    @property
    def refines(self) -> bool:
        """Whether masks and classes are made to agree."""
        return "correction" in self.rows

    @property
    def has_trust(self) -> bool:
        """Whether the run has uncertainties and warnings."""
        return "uncertainty" in self.rows and bool(self.rows.uncertainty.notna().any())


def read(workdir: Path) -> Run:
    """Reads a run folder.

    Raises:
      UserError: if the folder is not a run, has not been tested, has figures with the classes in
        another order, or has a broken file.
    """
    config = run_files.read_config(workdir)
    tested = read_cases(workdir)
    if not (workdir / summary.SUMMARY_JSON).exists():
        raise UserError(
            f"{workdir / summary.SUMMARY_JSON} is missing. Run main.py --mode=evaluate --workdir="
            f"{workdir} to write it."
        )
    if not len(tested):
        raise UserError(
            f"{workdir} has not tested an image, since all of them were trained on, so there is "
            "nothing to report. Predict other images with it, or train with "
            "--config.data.split=grouped."
        )
    run_folder.check_class_order(workdir)
    folds = sorted(int(fold) for fold in tested.fold.unique())
    return Run(
        workdir=workdir,
        config=config,
        summary=run_files.read_summary(workdir),
        environment=_if_there(workdir, run_folder.ENVIRONMENT, run_files.read_environment),
        splits=_if_there(workdir, run_splits.SPLITS, run_files.read_splits),
        metrics={f: logbook.read_metrics(run_folder.fold_dir(workdir, f)) for f in folds},
        rows=case_rows(
            tested,
            _trust_rows(workdir),
            types.Classes.of(config["data"]),
            refine=config["eval"]["refine"],
        ),
        trust=trust.read_content(workdir),
    )


def _if_there(workdir: Path, name: str, read: Callable[[Path], T]) -> T | None:
    return read(workdir) if (workdir / name).exists() else None


def _trust_rows(workdir: Path) -> pd.DataFrame | None:
    path = workdir / measure.ROWS
    if not path.exists():
        return None
    mend = f"Run main.py --mode=evaluate --workdir={workdir} to write it again"
    return tables.read(path, ("uid", "fold", "uncertainty", "warning"), mend=mend)


def case_rows(
    tested: pd.DataFrame,
    trusted: pd.DataFrame | None,
    classes: types.Classes = types.CLASSES,
    *,
    refine: bool = True,
) -> pd.DataFrame:
    """One row per test image, from ``cases.csv`` and, if there is one, ``trust.csv``.

    Besides the columns of `evaluate.case_rows` and the uncertainties of ``trust.csv``, it has the
    run's final answer, which is refined if possible unless ``refine`` is off: ``final_predicted``,
    ``final_dice``, ``class_right`` and ``wrong`` (class or mask, as in `trust`). If the answer is
    refined, ``correction`` says what refining changed.
    """
    rows = tested.copy()
    refined = refine and f"{REFINED}predicted" in rows
    prefix = REFINED if refined else ""
    wrong = np.zeros(len(rows), bool)
    if f"{prefix}predicted" in rows:
        rows["final_predicted"] = rows[f"{prefix}predicted"]
        rows["class_right"] = rows.final_predicted == rows.label
        wrong |= (~rows.class_right & rows.label.notna()).to_numpy()
    if f"{prefix}dice" in rows:
        rows["final_dice"] = rows[f"{prefix}dice"]
        wrong |= (rows.final_dice < trust.WRONG_DICE).to_numpy()
    rows["wrong"] = wrong
    if refined:
        renamed = rows.predicted != rows.final_predicted
        emptied = np.zeros(len(rows), bool)
        if classes.normal is not None:
            normal = rows.predicted == classes.names[classes.normal]
            emptied = (rows.predicted_pixels > 0) & normal
        rows["correction"] = np.select([emptied, renamed], [EMPTIED, RENAMED], "")
    if trusted is not None:
        columns = [c for c in trusted if c in _TRUST_COLUMNS or c.startswith(_TRUST_PREFIXES)]
        rows = rows.merge(trusted[["uid", *columns]], on="uid", how="left", validate="one_to_one")
        rows["warning"] = rows.warning.eq(True)
        if "prediction_set" in rows:
            rows["prediction_set"] = rows.prediction_set.fillna("")
    return rows


def predicted_masks(run: Run) -> np.ndarray | None:
    """The masks before refining, ``(n, height, width)`` bool in the order of the rows.

    None if the run does not segment or predictions were not kept.

    Raises:
      UserError: if the predictions belong to other images.
    """
    paths = [run_folder.fold_dir(run.workdir, fold) for fold in run.folds]
    if not run.has_masks or not all((p / stored_predictions.NAMES["test"]).exists() for p in paths):
        return None
    found: dict[str, np.ndarray] = {}
    for path in paths:
        stored = stored_predictions.read(path)
        found.update(zip(stored.uid.tolist(), stored.mask, strict=True))
    missing = [uid for uid in run.rows.uid if uid not in found]
    if missing:
        raise UserError(
            f"{run.workdir}: the kept predictions lack {len(missing)} of the tested images, such "
            f"as {missing[0]}. Run main.py --mode=evaluate --workdir={run.workdir} to write them "
            "again."
        )
    return np.stack([found[uid] for uid in run.rows.uid])
