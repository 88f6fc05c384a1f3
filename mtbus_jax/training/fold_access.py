"""Steps before a run works on its folds: compare processes, lock folds, check their weights.

Several processes may be one run over several machines (`parallel`), or work on different folds of
one run folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtbus_jax import data, files, locks, splits, types
from mtbus_jax.data import places
from mtbus_jax.errors import UserError, unwritable
from mtbus_jax.runtime import parallel
from mtbus_jax.training import checkpoint, run_folder, run_splits


def same_everywhere(config: config_dict.ConfigDict, cases: types.Cases) -> str:
    """Checks that all processes run the same; returns the dataset's fingerprint."""
    fingerprint = data.fingerprint(cases)
    own = {f"data.{place}" for place in places.PLACES}
    own |= {places.NAME, places.FOLDS_FILE, "log.progress"}
    fields = {k: v for k, v in run_folder.flatten(config).items() if k not in own}
    parallel.check_same({"dataset": fingerprint, **fields})
    return fingerprint


def from_primary(read: Callable[[], list[splits.Split]]) -> list[splits.Split]:
    """Folds that process 0 reads, in every process."""
    return parallel.on_primary(
        read,
        to_json=lambda folds: [fold.to_json() for fold in folds],
        from_json=lambda folds: [splits.Split.from_json(fold) for fold in folds],
    )


@contextlib.contextmanager
def held(workdir: Path, folds: Sequence[int]) -> Iterator[None]:
    """Locks the folds for the block; process 0 holds the locks for all processes of a run.

    Raises:
      UserError: if another process has one of them.
    """
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            for fold in folds:
                path = run_folder.lock_path(workdir, fold)
                try:
                    holder = stack.enter_context(locks.hold(path))
                except OSError as error:
                    raise unwritable(path, error) from None
                if holder is not None:
                    raise UserError(
                        f"fold {fold} of {workdir} is in use by {holder}. Wait until it has ended, "
                        "or name other folds with --config.data.folds; several processes may train "
                        f"different folds of one run. If it is gone for good, remove {path}."
                    )

            for folder in (workdir, *(run_folder.fold_dir(workdir, fold) for fold in folds)):
                files.remove_leftovers(folder)

        parallel.on_primary(hold)
        yield


def arguments(
    workdir: Path, cases: types.Cases, folds: list[splits.Split], fold: int, fingerprint: str
) -> dict[str, Any]:
    """Keyword arguments that describe a fold: its number, folder, and what it depends on."""
    origin = {"dataset": fingerprint, "split": folds[fold].fingerprint(cases.uid)}
    return {"fold": fold, "directory": run_folder.fold_dir(workdir, fold), "origin": origin}


def check_origins(
    workdir: Path, cases: types.Cases, folds: list[splits.Split], fingerprint: str
) -> None:
    """Refuses a run folder if any of its folds, wanted now or not, was trained on other images."""
    for fold in run_folder.fold_numbers(workdir):
        if fold < len(folds):
            given = arguments(workdir, cases, folds, fold, fingerprint)
            directory = given["directory"] / "checkpoints"
            checkpoint.Checkpoints(directory, given["origin"]).check_origin()


def check_dataset(workdir: Path, cases: types.Cases) -> None:
    """Refuses a dataset other than the one a run was trained on; changes nothing.

    Args:
      workdir: a run folder, whose weights may be gone.
      cases: the dataset.

    Raises:
      UserError: if images, masks, classes or the run's folds differ.
    """
    config = run_folder.load_config(workdir)
    folds = run_splits.find_folds(workdir, cases, **run_splits.drawing(config.data))
    fingerprint = data.fingerprint(cases)
    for folder in run_folder.networks(workdir, config):
        check_origins(folder, cases, folds, fingerprint)
