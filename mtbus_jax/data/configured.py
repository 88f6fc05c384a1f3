"""Loads the images that a configuration names, and fills in what depends on them."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import config_dict

from mtbus_jax import splits
from mtbus_jax.data import arrays, stored
from mtbus_jax.errors import UserError
from mtbus_jax.types import NO_LABEL, Cases, Classes


def load_configured(config: config_dict.ConfigDict) -> Cases:
    """The images that a configuration names.

    Raises:
      UserError: if they cannot be found, or have no mask or no class for a task of the run.
    """
    image_size = tuple(config.data.image_size)
    own = stored.is_folder(config.data.name)
    if config.data.arrays_file:
        cases = stored.load_arrays(
            config.data.arrays_file,
            name=config.data.name,
            image_size=image_size,
            resize=config.data.resize,
            enhancement=config.data.enhancement,
        )
    else:
        cases = arrays.load_cases(
            config.data.name,
            image_size=image_size,
            resize=config.data.resize,
            enhancement=config.data.enhancement,
            data_dir=config.data.data_dir or None,
            manual_dir=config.data.manual_dir or None,
            cache_dir=config.data.cache_dir or None,
            normal_class=config.data.normal_class if own else "",
        )
    _check_normal(cases, config.data.normal_class)
    cases = arrays.only_classes(
        _named(cases, tuple(config.data.class_names)),
        tuple(config.data.classes),
    )
    if config.data.folds_file:
        cases = dataclasses.replace(
            cases, test_fold=_read_folds(Path(config.data.folds_file).expanduser(), cases.uid)
        )
    _check_tasks(cases, tuple(config.tasks))
    return cases


def resolve(config: config_dict.ConfigDict, cases: Cases) -> config_dict.ConfigDict:
    """A copy of a configuration with every field that depends on the data filled in.

    Classes are named. A folder of your own, and a dataset with a file of folds, has no published
    split: "published", the default, becomes "given" where there are folds, else "grouped".

    Args:
      config: of a run.
      cases: from `load_configured`.
    """
    config = copy.deepcopy(config)
    names, normal = cases.classes.names, cases.classes.normal
    config.data.class_names = names
    config.data.normal_class = "" if normal is None else names[normal]
    config.data.classes = tuple(config.data.classes) or names
    if config.train.start_from:  # so that it is found from any folder
        config.train.start_from = str(Path(config.train.start_from).absolute())
    if leaves_split_open(config):
        given = (cases.test_fold >= 0).any()
        config.data.split = splits.GIVEN if given else splits.GROUPED
    return config


def leaves_split_open(config: config_dict.ConfigDict) -> bool:
    """Whether the split of a configuration depends on the data, see `resolve`."""
    own = stored.is_own(config.data.name)
    return config.data.split == splits.PUBLISHED and bool(own or config.data.folds_file)


def _check_normal(cases: Cases, name: str) -> None:
    """Refuses a "no lesion" class other than the one that the dataset was built with."""
    normal = None if cases.classes.normal is None else cases.classes.names[cases.classes.normal]
    if name not in ("", normal):
        has = "no class that means" if normal is None else f"the class {normal} for"
        raise UserError(
            f'data.normal_class={name}: {cases.name} has {has} "no lesion". A folder of your own '
            "takes another when it is built or packed (mtbus pack --normal_class)."
        )


def _named(cases: Cases, names: tuple[str, ...]) -> Cases:
    """The images of the classes that the configuration names, with codes in its order.

    An image without a known class stays. Without names, the cases are unchanged.

    Raises:
      UserError: if there is no such class, or one is named twice.
    """
    known, normal = cases.classes.names, cases.classes.normal
    if names in ((), known):
        return cases
    if len(set(names)) != len(names) or set(names) - set(known):
        raise UserError(
            f"data.class_names={names!r}: {cases.name} has the classes {', '.join(known)}; name "
            "those to tell apart, once each."
        )
    kept = ~cases.label_known | np.isin(cases.label, [known.index(name) for name in names])
    cases = cases.take(np.flatnonzero(kept))
    code = np.array([*(names.index(n) if n in names else NO_LABEL for n in known), NO_LABEL])
    healthy = None if normal is None else known[normal]
    return dataclasses.replace(
        cases,
        label=code[cases.label].astype(np.int32),  # NO_LABEL is -1: the last one
        classes=Classes(names, names.index(healthy) if healthy in names else None),
    )


def _read_folds(path: Path, uid: np.ndarray) -> np.ndarray:
    """``(n,)`` test folds from a table with the columns uid and fold, read like all tables.

    Raises:
      UserError: if the file cannot be read, or does not fit the images.
    """
    from tfds_busi import columns, listing

    field = f"data.folds_file={path}"
    try:
        names, rows = columns.read_table(path)
    except UserError as error:
        moved = "" if path.exists() else " If it lies elsewhere now, give its new place."
        raise UserError(f"{field}: {error}{moved}") from None
    known = columns.which(names)
    if not rows or not {"uid", "fold"} <= known.keys():
        raise UserError(f"{field} needs the columns uid and fold, and rows.")
    position = {str(name): index for index, name in enumerate(uid)}
    found: dict[str, int] = {}
    for line, row in rows:
        name = row.get(known["uid"], "")
        if name not in position or name in found:
            what = "is listed twice" if name in found else "is not an image of the dataset"
            raise UserError(f"{field}, line {line}: {name!r} {what}.")
        cell = row.get(known["fold"], "")
        if not cell:
            raise UserError(f"{field}, line {line}: {name!r} has no fold.")
        found[name] = columns.fold(cell, f"{field}, line {line}")
    missing = [name for name in position if name not in found]
    if missing:
        raise UserError(
            f"{field} lacks {len(missing)} of {len(uid)} images, such as {missing[0]!r}."
        )
    if max(found.values()) < 0:
        raise UserError(f"{field} marks no image as tested; give numbers of folds, or test.")
    try:
        return np.array(listing.from_zero([found[str(name)] for name in uid]), np.int32)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None


def _check_tasks(cases: Cases, tasks: tuple[str, ...]) -> None:
    """Refuses a task that no image has the truth for."""
    for task, known, what in (
        ("seg", cases.mask_known, "masks"),
        ("cls", cases.label_known, "classes"),
    ):
        if task in tasks and not known.any():
            other = "cls" if task == "seg" else "seg"
            raise UserError(
                f"{cases.name} has no {what}, which tasks={tasks!r} need. Add them, or train the "
                f"other task alone: --config.tasks={other}"
            )
    if "cls" in tasks and len(set(cases.label[cases.label_known].tolist())) < 2:
        raise UserError(
            f"{cases.name} has images of one class only, so there is nothing to tell apart. Add "
            "images of another, or train --config.tasks=seg"
        )
