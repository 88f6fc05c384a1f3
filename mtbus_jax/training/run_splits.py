"""The folds of a run: drawn once, then always read from ``splits.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from mtbus_jax import files, splits, types
from mtbus_jax.data import stored
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_files
from mtbus_jax.training.run_files import SPLITS

# What a summary calls a split whose ``splits.json`` was edited.
CUSTOM = "custom"


def kind(content: dict[str, Any]) -> str:
    """The name of a run's split in tables, from the content of its ``splits.json``."""
    return CUSTOM if content.get("edited") else content["split"]


def drawing(data: config_dict.ConfigDict) -> dict[str, Any]:
    """Keyword arguments of the functions below on how folds are drawn, from a ``data`` section."""
    return {"split": data.split, "count": data.fold_count, "validation": data.validation}


def open_splits(
    workdir: Path, cases: types.Cases, split: str, count: int = 4, validation: bool = True
) -> tuple[list[splits.Split], dict[str, Any]]:
    """The folds of the run: those in ``splits.json`` if it is there, else drawn and written.

    Args:
      workdir: the run folder.
      cases: the dataset.
      split: a name of `splits.SPLITS`.
      count: of folds, where they are drawn.
      validation: see `splits.make_folds`, where they are drawn.

    Returns:
      The folds, and the content of ``splits.json``.

    Raises:
      UserError: if the file belongs to another dataset or split, or does not fit the images.
    """
    folds = find_folds(workdir, cases, split, count, validation)
    return folds, write_splits(workdir, cases, split, folds, count, validation)


def write_splits(
    workdir: Path,
    cases: types.Cases,
    split: str,
    folds: list[splits.Split],
    count: int = 4,
    validation: bool = True,
) -> dict[str, Any]:
    """Writes ``splits.json``; returns its content.

    Args:
      workdir: the run folder.
      cases: the dataset.
      split: a name of `splits.SPLITS`.
      folds: the folds of that split, perhaps edited by a user.
      count: of folds, where they are drawn.
      validation: see `splits.make_folds`, where they are drawn.
    """
    content = {
        "dataset": cases.name,
        "split": split,
        "edited": _edited(cases, split, folds, count, validation),
        "images": len(cases),
        "test_images": [len(fold.test) for fold in folds],
        "unused_images": [len(cases) - _used(fold) for fold in folds],
        # Counted anew at each start: the file may have been edited.
        "leaking_test_images": [len(splits.leaking(fold, cases.group)) for fold in folds],
        "leaking_validation_images": [
            len(splits.leaking_validation(fold, cases.group)) for fold in folds
        ],
        "not_compared": cases.not_compared,
        "folds": [fold.to_uids(cases.uid) for fold in folds],
    }
    files.write_json(workdir / SPLITS, content)
    return content


def _edited(
    cases: types.Cases, split: str, folds: list[splits.Split], count: int, validation: bool
) -> bool:
    """Whether folds differ from those that their split gives."""
    try:
        drawn = splits.make_folds(cases, split, count=count, validation=validation)
    except UserError:  # it gives none
        return True

    def sides(each: list[splits.Split]) -> list[list[set[str]]]:
        return [[set(uids) for uids in fold.to_uids(cases.uid).values()] for fold in each]

    return sides(folds) != sides(drawn)


def _used(fold: splits.Split) -> int:
    return len(fold.train) + len(fold.validation) + len(fold.test)


def find_folds(
    workdir: Path, cases: types.Cases, split: str, count: int = 4, validation: bool = True
) -> list[splits.Split]:
    """The folds that `open_splits` would return; writes nothing, raises the same."""
    path = workdir / SPLITS
    if path.exists():
        return _read_splits(workdir, cases, split)
    return splits.make_folds(cases, split, count=count, validation=validation)


def _read_splits(workdir: Path, cases: types.Cases, split: str) -> list[splits.Split]:
    """The folds of an existing ``splits.json``, checked against the dataset."""
    path, content = workdir / SPLITS, run_files.read_splits(workdir, counted=False)
    for field, wanted in (("dataset", cases.name), ("split", split)):
        # A folder of pictures may have another name now; its images are looked up below.
        names = cases.name, content["dataset"]
        renamed = field == "dataset" and any(map(stored.is_folder, names))
        if content.get(field) != wanted and not renamed:
            raise UserError(
                f"{path} is for {field}={content.get(field)!r}, the run for {wanted!r}. "
                "Choose another --workdir."
            )
    if not content.get("folds"):
        raise UserError(f"{path} lists no folds; remove it to have them drawn again.")
    folds = [splits.Split.from_uids(fold, cases.uid) for fold in content["folds"]]
    for number, fold in enumerate(folds):
        if not len(fold.train):
            raise UserError(f"{path}: fold {number} has no training images.")
    tested = np.concatenate([fold.test for fold in folds])
    if len(np.unique(tested)) != len(tested):
        raise UserError(f"{path}: an image is tested in two folds.")
    return folds
