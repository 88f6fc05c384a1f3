"""What a run folder holds besides its folds: configuration, environment, splits.

A later start in the same folder continues the run, and is refused if it would mean something else.
``environment.json`` describes the last start.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import config_dict

from mtbus_jax import files, types
from mtbus_jax.data import places
from mtbus_jax.errors import UserError, unwritable
from mtbus_jax.training import former_fields, run_files
from mtbus_jax.training.run_files import CONFIG, ENVIRONMENT, SUMMARY
from mtbus_jax.training.schedule import COSINE

# Of a fold whose training is over: settings that may differ from fold to fold.
TRAINED = "trained.json"
CASES = "cases.csv"  # of a fold: one row per test image

# Fields that may differ when a run is continued: they change where files are and how much is done
# or shown, but not what a finished epoch computes.
FREE_FIELDS = frozenset(
    {
        "data.folds",
        *(f"data.{place}" for place in places.PLACES),
        "train.epochs",
        "train.devices",
        "train.steps_per_call",
        "train.checkpoint_seconds",
        "train.stop_patience",
        "eval.batch_size",
        "eval.refine",
        "eval.tta",
        "log.progress",
        "log.tensorboard",
    }
)
# Those of them that change how long a fold trains.
OF_A_FOLD = ("train.epochs", "train.stop_patience")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration → ``{"train.epochs": 200, ...}``; tuples become lists, as in JSON."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping | config_dict.ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def load_config(workdir: Path) -> config_dict.ConfigDict:
    """The configuration of the run in ``workdir``, lists turned into tuples again.

    A field that did not exist when the run was made gets the only value possible then.

    Raises:
      UserError: if it is missing or broken.
    """
    return config_from_json(former_fields.completed(run_files.read_config(workdir)))


def config_from_json(content: dict[str, Any]) -> config_dict.ConfigDict:
    """A configuration from its ``to_dict()`` as read from JSON, which has no tuples."""

    def freeze(value):
        if isinstance(value, dict):
            return {k: freeze(v) for k, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return config_dict.ConfigDict(freeze(content))


def record(workdir: Path, section: str, values: config_dict.ConfigDict) -> None:
    """Replaces a section of ``config.json``."""
    content = run_files.read_config(workdir)
    content[section] = values.to_dict()
    files.write_json(workdir / CONFIG, content)


def check_run(workdir: Path, config: config_dict.ConfigDict) -> None:
    """Refuses a folder in which ``config`` can neither start nor continue; writes nothing.

    Raises:
      UserError: if it is a file or holds a run of another configuration, naming the fields.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a folder.")
    path = workdir / CONFIG
    if path.exists():
        there = load_config(workdir)
        moved = places.may_have_moved(there, config)
        changed = [each for each in differences(there, config) if each[0] not in moved]
        # A run can continue with more epochs, except with a cosine, which spans all of them.
        epochs = there.train.epochs, config.train.epochs
        if config.train.course == COSINE and len(set(epochs)) > 1:
            changed.append(("train.epochs", *map(repr, epochs)))
        if changed:
            found = "; ".join(f"{field} ({old} there, {new} now)" for field, old, new in changed)
            raise UserError(
                f"{workdir} holds a run of another configuration: {found}. "
                "Choose another --workdir, or remove that folder to start over."
            )


def differences(
    first: config_dict.ConfigDict, second: config_dict.ConfigDict, *, whole: bool = False
) -> list[tuple[str, str, str]]:
    """Fields whose difference leads to other results: name, and the value in each configuration.

    Args:
      first: one of them.
      second: the other.
      whole: whether to compare also how long each trains, which may change in a continued run.
    """
    old, new = flatten(first.to_dict()), flatten(second.to_dict())
    free = FREE_FIELDS - set(OF_A_FOLD) if whole else FREE_FIELDS
    return [
        (field, repr(old.get(field, "absent")), repr(new.get(field, "absent")))
        for field in sorted(old.keys() | new.keys())
        if field not in free
        and old.get(field) != new.get(field)
        and not places.same_place(field, old.get(field), new.get(field))
    ]


def open_run(workdir: Path, config: config_dict.ConfigDict) -> None:
    """Starts the run in ``workdir`` or continues it; writes configuration and environment.

    Raises:
      UserError: if the folder holds a run of another configuration, naming the fields.
    """
    check_run(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(f"--workdir={workdir}", error) from None
    files.write_json(workdir / CONFIG, config.to_dict())
    files.write_json(workdir / ENVIRONMENT, environment())


def environment() -> dict[str, Any]:
    """Hardware and versions that a reader of a result wants to know."""
    devices = jax.devices()
    versions = {}
    for package in _PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in devices],
        "processes": jax.process_count(),
        "packages": versions,
        "command": sys.argv,
    }


def fold_dir(workdir: Path, fold: int) -> Path:
    """Folder of one fold inside a run folder."""
    return workdir / f"fold_{fold}"


def lock_path(workdir: Path, fold: int) -> Path:
    """File that lets only one process at a time work on a fold, see `locks`.

    It is outside the fold's folder, which may not exist yet.
    """
    return workdir / "locks" / f"fold_{fold}.lock"


def fold_numbers(workdir: Path) -> list[int]:
    """Folds that have a folder, in their order; folders with other names are ignored."""
    names = (path.name.removeprefix("fold_") for path in workdir.glob("fold_*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def write_trained(workdir: Path, fold: int, config: config_dict.ConfigDict) -> None:
    """Records that a fold is trained, and with which of the settings that may change."""
    flat = flatten(config)
    files.write_json(fold_dir(workdir, fold) / TRAINED, {field: flat[field] for field in OF_A_FOLD})


def differing_settings(workdir: Path, folds: Sequence[int]) -> list[str]:
    """Settings in which the folds of a run differ, one text per field; empty if there are none.

    A fold trained before these settings were recorded is ignored.

    Args:
      workdir: the run folder.
      folds: the tested folds.

    Raises:
      UserError: if a record is broken.
    """
    paths = {fold: fold_dir(workdir, fold) / TRAINED for fold in folds}
    records = {f: run_files.read_trained(path) for f, path in paths.items() if path.exists()}
    found = []
    for field in OF_A_FOLD:
        values = {fold: record[field] for fold, record in records.items()}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{value} in fold {fold}" for fold, value in values.items())
            found.append(f"{field} is {listed}")
    return found


def network_dir(workdir: Path, number: int) -> Path:
    """Folder of one network inside the run folder of an ensemble, itself a small run folder."""
    return workdir / f"network_{number}"


def networks(workdir: Path, config: config_dict.ConfigDict) -> list[Path]:
    """Run folders whose weights make up a run: those of an ensemble's networks, else the run's own.

    Args:
      workdir: the run folder.
      config: of the run; an ensemble has one ``seed`` for each network.

    Raises:
      UserError: if a network's folder is missing.
    """
    if not isinstance(config.get("seed"), tuple):
        return [workdir]
    folders = [network_dir(workdir, number) for number in range(len(config.seed))]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise UserError(
            f"{workdir} is an ensemble of {len(folders)} networks, but lacks {', '.join(missing)}: "
            "copy the folder again, or make the ensemble again (python -m mtbus_jax.ensemble)."
        )
    return folders


def check_class_order(workdir: Path) -> None:
    """Refuses a run whose summary has other class codes than its configuration.

    Raises:
      UserError: if there is a ``summary.json`` that names other classes, or the same in another
        order, or is broken.
    """
    path = workdir / SUMMARY
    if not path.exists():
        return
    content = files.read_json(path)
    names = content.get("class_names") if isinstance(content, dict) else None
    expected = list(types.Classes.of(load_config(workdir).get("data", {})).names)
    if names != expected:
        raise UserError(
            f"{path}: the run's classes are {names}, by its configuration they are {expected}. A "
            "class code means something else there; use the version that trained it."
        )


def check_folds(wanted: tuple[int, ...], available: int) -> None:
    """Refuses a fold that does not exist.

    Raises:
      UserError: for no fold, a repeated or an unknown one.
    """
    bad = [fold for fold in wanted if type(fold) is not int]
    bad += [fold for fold in wanted if fold not in bad and not 0 <= fold < available]
    if bad or not wanted or len(set(wanted)) != len(wanted):
        raise UserError(
            f"data.folds={tuple(wanted)!r}: give distinct folds out of 0 to {available - 1}, such "
            "as --config.data.folds='(0,)'."
        )
