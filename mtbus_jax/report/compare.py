"""Compares runs with paired tests over the test images that they have in common."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mtbus_jax.data import stored
from mtbus_jax.errors import UserError
from mtbus_jax.metrics import statistics
from mtbus_jax.metrics.statistics import CORRECT, DICE
from mtbus_jax.report.run import Run, read
from mtbus_jax.training import seen

# Number of images to list per pair of runs, those whose Dice differs most.
_CHANGED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Several runs, compared.

    Attributes:
      names: distinct names of the runs, in the order given.
      runs: content of each run folder, in the same order.
      warnings: what a reader must know before the figures.
      tests: paired tests of every pair of runs, for every measure that both have.
      changed: by pair of names, the common images whose Dice differs most: ``uid``, ``label``,
        ``a``, ``b``, ``change`` (a − b), the largest first.
    """

    names: list[str]
    runs: list[Run]
    warnings: list[str]
    tests: list[statistics.Comparison]
    changed: dict[tuple[str, str], pd.DataFrame]


def compare(workdirs: Sequence[Path | str]) -> ComparedRuns:
    """Compares the final answers of runs on one dataset, refined where possible.

    Args:
      workdirs: two or more different run folders.

    Raises:
      UserError: if there are fewer than two, one is not a tested run, or they cannot be compared.
    """
    paths = [Path(workdir) for workdir in workdirs]
    if len(paths) < 2:
        raise UserError("a comparison needs at least two run folders.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--compare: the same run folder is given twice.")
    runs = [read(path) for path in paths]
    datasets = dict(zip(map(str, paths), (run.summary["dataset"] for run in runs), strict=True))
    # Folders may have moved, so for them pixels are compared instead.
    if len(set(datasets.values())) > 1 and not all(map(stored.is_folder, datasets.values())):
        listed = ", ".join(f"{path} on {dataset}" for path, dataset in datasets.items())
        raise UserError(f"Runs on different datasets cannot be compared: {listed}.")
    names = _names(paths)
    warnings = _warnings(names, runs)
    tests: list[statistics.Comparison] = []
    changed = {}
    for (name_a, a), (name_b, b) in itertools.combinations(zip(names, runs, strict=True), 2):
        pairs, note = _common(name_a, a, name_b, b)
        warnings += note
        tests += _tests(name_a, name_b, pairs)
        if "final_dice_a" in pairs and "final_dice_b" in pairs:
            changed[name_a, name_b] = _most_changed(pairs)
    return ComparedRuns(names, runs, warnings, statistics.corrected(tests), changed)


def _check_same_pictures(which: str, a: Run, b: Run, uids: pd.Series) -> None:
    """Refuses runs whose images differ in pixels under the same names, if both runs know them.

    Raises:
      UserError: if the pixels of an image differ.
    """
    first, second = (seen.read(run.workdir) for run in (a, b))
    if first is None or second is None or None in (first.uids, second.uids):
        return
    if first.how != second.how:
        return
    one, other = (dict(zip(each.uids, each.digests, strict=True)) for each in (first, second))
    unlike = [uid for uid in uids if one.get(uid) != other.get(uid)]
    if unlike:
        raise UserError(
            f"{which} were tested on other pictures under the same names, such as {unlike[0]!r}, "
            "so they cannot be compared."
        )


def _names(paths: list[Path]) -> list[str]:
    """The folders' own names where they are distinct, else the paths."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _warnings(names: list[str], runs: list[Run]) -> list[str]:
    found = []
    sizes = {tuple(run.summary["image_size"]) for run in runs}
    if len(sizes) > 1:
        listed = ", ".join(
            f"{name} {' × '.join(map(str, run.summary['image_size']))}"
            for name, run in zip(names, runs, strict=True)
        )
        found.append(
            f"The runs saw images of different sizes ({listed} pixels): Dice is measured at each "
            "run's own size, and distances in its own pixels."
        )
    for name, run in zip(names, runs, strict=True):
        leaking = run.summary["leaking_test_images"]
        if leaking:
            found.append(
                f"{name}: {leaking} of {len(run.rows)} test images share a patient or a group of "
                "near-duplicates with training or validation images of their fold."
            )
    return found


def _common(name_a: str, a: Run, name_b: str, b: Run) -> tuple[pd.DataFrame, list[str]]:
    """The common images' rows, with columns of the two runs as ``_a`` and ``_b``, and warnings."""
    columns = ["uid", "fold", "label", "final_predicted", "final_dice", "class_right"]
    one, other = (run.rows[[c for c in columns if c in run.rows]] for run in (a, b))
    one = one.rename(columns={c: f"{c}_a" for c in one if c != "uid"})
    other = other.rename(columns={c: f"{c}_b" for c in other if c != "uid"})
    pairs = one.merge(other, on="uid", how="inner", validate="one_to_one")
    which = f"{name_a} and {name_b}"
    if pairs.empty:
        raise UserError(f"{which} have no test image in common, so they cannot be compared.")
    _check_same_pictures(which, a, b, pairs.uid)
    unlike = pairs.label_a.fillna("") != pairs.label_b.fillna("")  # two missing classes are equal
    if unlike.any():
        raise UserError(
            f"{which} were tested on other data under the same names: "
            f"{pairs.uid[unlike].iloc[0]} has two classes."
        )
    warnings = []
    if len(pairs) < max(len(a.rows), len(b.rows)):
        warnings.append(
            f"{which} have {len(pairs)} test images in common, of {len(a.rows)} and "
            f"{len(b.rows)}: the tests are over these, the means of each run over all of its own."
        )
    other_fold = int((pairs.fold_a != pairs.fold_b).sum())
    if other_fold:
        warnings.append(
            f"{which} use different splits: {other_fold} of {len(pairs)} common images are tested "
            "in another fold, by a network trained on other images."
        )
    return pairs, warnings


def _tests(name_a: str, name_b: str, pairs: pd.DataFrame) -> list[statistics.Comparison]:
    found = []
    for measure, column in ((DICE, "final_dice"), (CORRECT, "class_right")):
        if f"{column}_a" in pairs and f"{column}_b" in pairs:
            known = pairs[pairs.label_a.notna()] if measure == CORRECT else pairs
            a, b = (known[f"{column}_{side}"].to_numpy() for side in "ab")
            found.append(
                statistics.compare(measure, (name_a, name_b), a, b, strata=known.fold_a.to_numpy())
            )
    return found


def _most_changed(pairs: pd.DataFrame) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "uid": pairs.uid,
            "label": pairs.label_a.fillna(""),
            "a": pairs.final_dice_a,
            "b": pairs.final_dice_b,
            "change": pairs.final_dice_a - pairs.final_dice_b,
        }
    ).dropna(subset="change")
    order = rows.change.abs().sort_values(ascending=False, kind="stable").index
    rows = rows.loc[order].head(_CHANGED)
    return rows[rows.change != 0].reset_index(drop=True)
