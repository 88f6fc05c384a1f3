"""Figures of a run folder for a paper's table, by our rules and by the paper's."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
from ml_collections import config_dict

from mtbus_jax import configuration, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.metrics import classification
from mtbus_jax.reproduce.papers import rules
from mtbus_jax.reproduce.papers.tables import Paper, PaperRow
from mtbus_jax.training import run_folder

# Columns of `evaluate.case_rows`, by their names in the tables.
_COLUMNS = {
    "dice": "dice",
    "jaccard": "jaccard",
    "hausdorff95": "hausdorff95",
    "surface_distance": "average_surface_distance",
}
# Fields in which a run may differ without being reported.
_SILENT = ("name", "seed", "data.class_names", "data.normal_class", "data.cache_dir")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over folds: mean, and standard deviation with n − 1 and with n; NaN if undefined."""

    mean: float
    sd: float
    sd_n: float


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The results of a run.

    Attributes:
      folder: the run folder.
      departures: departures from the paper's configuration, as texts.
      folds: the folds that were tested.
      images: number of tested images, over all folds.
      ours: figures by metric, by our rules.
      theirs: figures by metric, by the paper's rules; empty if it has no rules of its own, or
        without masks.
      dice_by_rule: Dice by `rules.RULES`; empty like ``theirs``.
      border: share of the lesions' area that is soft border; NaN like ``theirs``.
      further_masks: number of images with more than one mask.
      not_measured: why ``theirs`` is empty, or "".
    """

    folder: Path
    departures: tuple[str, ...]
    folds: tuple[int, ...]
    images: int
    ours: dict[str, Spread]
    theirs: dict[str, Spread] = dataclasses.field(default_factory=dict)
    dice_by_rule: dict[str, Spread] = dataclasses.field(default_factory=dict)
    border: float = math.nan
    further_masks: int = 0
    not_measured: str = ""


def read(paper: Paper, row: PaperRow, folder: Path, manual_dir: str) -> Run:
    """Reads a run folder and scores it.

    Args:
      paper: the paper with the table.
      row: the row that the run is for.
      folder: the run folder.
      manual_dir: folder with the raw BUSI download; "" takes the run's own.

    Raises:
      UserError: if it is not a run, has not been tested, or has another network.
    """
    config = run_folder.load_config(folder)
    wanted = configuration_of(paper, row)
    if config.model.name != wanted.model.name:
        raise UserError(
            f"--runs={row.name}={folder}: the network there is {config.model.name}, and "
            f"{row.label} is {wanted.model.name}. Give another folder."
        )
    cases = read_cases(folder)
    folds = tuple(sorted(int(fold) for fold in cases.fold.unique()))
    classes = types.Classes.of(config.data)
    run = Run(
        folder,
        _departures(config, wanted, folds),
        folds,
        len(cases),
        _over_folds([_ours(rows, classes) for _, rows in cases.groupby("fold")]),
    )
    if not paper.soft_borders or types.SEGMENTATION not in config.tasks:
        return run
    return _by_their_rules(run, cases, manual_dir or config.data.manual_dir)


def configuration_of(paper: Paper, row: PaperRow) -> config_dict.ConfigDict:
    """The configuration that follows the paper for a row whose network is in this library."""
    config = configuration.read(configuration.Given(paper.config, {}))
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(row.fields or {})
    return config


def _departures(
    config: config_dict.ConfigDict, wanted: config_dict.ConfigDict, folds: tuple[int, ...]
) -> tuple[str, ...]:
    # A field left at the network's default is the same as that default written out.
    own, theirs = (run_folder.flatten(each.to_dict()) for each in (config, wanted))
    silent = {
        field
        for field, value in theirs.items()
        if field.startswith("model.") and (own.get(field) is None) and value is True
    }
    found = [
        f"{field} = {here} instead of {there}"
        for field, here, there in run_folder.differences(config, wanted)
        if field not in _SILENT and field not in silent
    ]
    if config.train.epochs != wanted.train.epochs:
        found.append(f"{config.train.epochs} epochs instead of {wanted.train.epochs}")
    if len(folds) != wanted.data.fold_count:
        found.append(f"{len(folds)} folds instead of {wanted.data.fold_count}")
    return tuple(found)


def _over_folds(folds: list[dict[str, float]]) -> dict[str, Spread]:
    names = dict.fromkeys(name for fold in folds for name in fold)
    result = {}
    for name in names:
        values = np.array([fold.get(name, math.nan) for fold in folds])
        values = values[~np.isnan(values)]
        several = len(values) > 1
        result[name] = Spread(
            float(values.mean()) if len(values) else math.nan,
            float(values.std(ddof=1)) if several else math.nan,
            float(values.std()) if several else math.nan,
        )
    return result


def _ours(rows: pd.DataFrame, classes: types.Classes) -> dict[str, float]:
    """A fold's figures: for masks, means over images; for classes, see `class_figures`."""
    found = {
        name: float(rows[column].mean()) for name, column in _COLUMNS.items() if column in rows
    }
    rows = rows[rows.label.notna()]
    if "predicted" in rows and len(rows):
        codes = (rows[c].map(classes.names.index).to_numpy() for c in ("label", "predicted"))
        matrix = classification.confusion_matrix(*codes, classes=len(classes))
        found |= class_figures(matrix)
    return found


def class_figures(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, and means over classes of precision, recall and F1.

    Classes that no image has are left out. One that is never predicted has precision 0 and F1 0.

    Args:
      confusion: ``(classes, classes)`` counts, row = true class.
    """
    hit, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    there = true > 0
    precision = hit / np.maximum(predicted, 1)
    recall = hit / np.maximum(true, 1)
    f1 = 2 * hit / np.maximum(true + predicted, 1)
    return {
        "accuracy": float(hit.sum() / confusion.sum()),
        "precision": float(precision[there].mean()),
        "recall": float(recall[there].mean()),
        "f1": float(f1[there].mean()),
    }


def _by_their_rules(run: Run, cases: pd.DataFrame, manual_dir: str) -> Run:
    if not manual_dir:
        why = (
            "the masks as drawn are needed: --config.data.manual_dir=FOLDER with the BUSI download"
        )
        return dataclasses.replace(run, not_measured=why)
    try:
        drawn = rules.read_drawn(Path(manual_dir).expanduser(), list(cases.uid))
    except UserError as error:
        return dataclasses.replace(run, not_measured=str(error))
    theirs, dice, border = [], [], []
    for fold in run.folds:
        stored = stored_predictions.read(run_folder.fold_dir(run.folder, fold))
        pairs = [(drawn[str(uid)], mask) for uid, mask in zip(stored.uid, stored.mask, strict=True)]
        theirs.append(_means([rules.theirs(*pair) for pair in pairs]))
        dice.append(_means([rules.dice_by_rule(*pair) for pair in pairs]))
        border += [rules.border_share(each, mask.shape) for each, mask in pairs]
    return dataclasses.replace(
        run,
        theirs=_over_folds(theirs),
        dice_by_rule=_over_folds(dice),
        border=float(np.nanmean(border)),
        further_masks=sum((each.every != each.first).any() for each in drawn.values()),
    )


def _means(images: list[dict[str, float]]) -> dict[str, float]:
    return pd.DataFrame(images).mean().to_dict()
