"""Finds fields of a configuration that have no effect given its other fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import config_dict

from mtbus_jax import configuration, data, losses, splits, types
from mtbus_jax.data import places
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_folder, schedule

_Config = config_dict.ConfigDict


def _course(name: str) -> tuple[Callable[[_Config], bool], str]:
    return lambda config: config.train.course == name, f"train.course={name}"


def _task(name: str) -> tuple[Callable[[_Config], bool], str]:
    return lambda config: name in config.tasks, f"{name} in tasks"


def _both_tasks(config: _Config) -> bool:
    return set(config.tasks) == set(types.TASKS)


_AUGMENTED = (lambda config: config.train.augment, "train.augment=True")
# By field: whether a configuration reads it, and a text saying which ones do.
_READ: dict[str, tuple[Callable[[_Config], bool], str]] = {
    "data.fold_count": (
        # A user's folder without folds is split by groups, which is known once it has been read.
        lambda config: config.data.split == splits.GROUPED or data.leaves_split_open(config),
        f"data.split={splits.GROUPED}",
    ),
    "data.validation": (lambda config: config.data.split != splits.ALL, "another data.split"),
    "loss.weight": (
        lambda config: _both_tasks(config) and config.loss.weighting == losses.FIXED,
        f"a network with both tasks and loss.weighting={losses.FIXED}",
    ),
    "loss.gamma": _task(types.CLASSIFICATION),
    "loss.class_weights": _task(types.CLASSIFICATION),
    "loss.double_softmax": _task(types.CLASSIFICATION),
    "loss.label_smoothing": _task(types.CLASSIFICATION),
    "loss.cross_entropy": _task(types.SEGMENTATION),
    "loss.dice": _task(types.SEGMENTATION),
    "loss.dice_smoothing": _task(types.SEGMENTATION),
    "loss.reconstruction": (lambda config: config.model.name == "adityan", "model.name=adityan"),
    "train.oversample_rule": (
        lambda config: config.train.oversample,
        "train.oversample=True",
    ),
    "train.augmentation": _AUGMENTED,
    "train.rotation_fill": _AUGMENTED,
    "train.elastic": _AUGMENTED,
    "train.speckle": _AUGMENTED,
    "train.small_scale": (
        lambda config: config.train.small_share > 0,
        "train.small_share=0.6 or another share",
    ),
    "train.mixup": (lambda config: config.train.batch_size > 1, "train.batch_size=2 or more"),
    "train.warmup": _course(schedule.COSINE),
    "train.cosine_floor": _course(schedule.COSINE),
    "train.decay_factor": _course(schedule.DECAY),
    "train.decay_epochs": _course(schedule.DECAY),
    "train.plateau_factor": _course(schedule.PLATEAU),
    "train.plateau_patience": _course(schedule.PLATEAU),
    "train.plateau_threshold": _course(schedule.PLATEAU),
    "train.min_learning_rate": _course(schedule.PLATEAU),
    "train.average_decay": (
        lambda config: config.train.keep == schedule.AVERAGE,
        f"train.keep={schedule.AVERAGE}",
    ),
    "eval.refine": (_both_tasks, "a network with both tasks"),
    "eval.fill_holes": _task(types.SEGMENTATION),
}


def check(config: _Config, given: Iterable[str]) -> None:
    """Refuses fields that were set on the command line and have no effect.

    A recipe may set a field that another change leaves unread, but someone who types a field
    expects it to matter.

    Args:
      config: the whole one.
      given: names of the fields that were set one by one.

    Raises:
      UserError: for the first that is not read and differs from ``configs/base.py``.
    """
    plain = run_folder.flatten(configuration.read(configuration.Given("base", {})))
    values: dict[str, Any] = run_folder.flatten(config)
    for field in given:
        is_read, where = _READ.get(field, (lambda config: True, ""))
        if not is_read(config) and values[field] != plain[field]:
            raise UserError(
                f"--config.{field} has no effect in this run: only {where} reads it. Leave it out, "
                "or change that as well."
            )


def check_tested_again(fields: Iterable[str]) -> None:
    """Refuses fields that have no effect when a run is tested again.

    Args:
      fields: that were set one by one.

    Raises:
      UserError: for one that is neither in ``eval`` nor the place of data.
    """
    known = {places.NAME, places.FOLDS_FILE, *(f"data.{name}" for name in places.PLACES)}
    for field in fields:
        if field not in known and not field.startswith(("eval.", "log.")):
            raise UserError(
                f"--config.{field} does not matter when a run is tested again: everything but "
                "eval.* and the folders of the data is the run's own. Leave it out."
            )
