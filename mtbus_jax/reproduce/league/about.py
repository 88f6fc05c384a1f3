"""What a reader must know about the league table: recipe, data, split, leaks, machines."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from mtbus_jax import configuration
from mtbus_jax.data import places
from mtbus_jax.reproduce import facts
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.reproduce.league.results import Row
from mtbus_jax.training import run_files, run_folder, run_splits

# Sections and fields that do not affect what is computed, or that differ between rows.
_SILENT = ("log.", "model.", "name", "seed", "data.folds")
_SILENT += tuple(f"data.{name}" for name in places.PLACES)


@dataclasses.dataclass(frozen=True)
class About:
    """See `gather`.

    Attributes:
      facts: texts about what all rows share, by name.
      recipe: fields in which the recipe differs from ``configs/base.py``, with both values.
      warnings: what must stand above the figures.
      trained_on: machines, one line each.
      runs: names of the run folders that exist.
    """

    facts: dict[str, str]
    recipe: list[tuple[str, Any, Any]]
    warnings: list[str]
    trained_on: tuple[str, ...]
    runs: tuple[str, ...]


def gather(league: League, rows: list[Row]) -> About:
    """Gathers the facts from the configuration and from the run folders that exist.

    Raises:
      UserError: if a file of a run folder is broken.
    """
    config = league.config(league.entries[0], league.seeds[0])
    directories = [
        league.directory(row.entry, seed) for row in rows for seed in row.runs.seed.unique()
    ]
    split = next((each for d in directories if (each := _splits(d))), None)
    drawn = run_splits.kind(split) if split else config.data.split
    height, width = config.data.image_size
    common = {
        "data": f"{league.dataset}, {height}×{width} pixels",
        "split": f"{drawn}, folds {', '.join(map(str, league.folds))}",
        "seeds": ", ".join(map(str, league.seeds)),
        "tasks": " and ".join(config.tasks),
        "epochs": str(config.train.epochs),
        "batch": f"{config.train.batch_size} images",
        "weights tested": f"{config.train.keep} (train.keep)",
    }
    warnings = _warnings(league)
    if split:
        folds = [split["folds"][fold] for fold in league.folds]
        if not config.train.oversample:
            steps = [
                math.ceil(len(fold["train"]) / config.train.batch_size) * config.train.epochs
                for fold in folds
            ]
            common["optimiser steps"] = ", ".join(map(str, steps)) + " in these folds"
        common["test images"] = ", ".join(str(len(fold["test"])) for fold in folds)
        leaking = sum(split["leaking_test_images"][fold] for fold in league.folds)
        if leaking:
            images = sum(len(fold["test"]) for fold in folds)
            warnings.append(
                f"**Leak:** {leaking} of {images} test images share a patient or a group of "
                "near-duplicates with training or validation images of their fold. "
                "`--config.data.split=grouped` avoids it."
            )
    trained_on = tuple(dict.fromkeys(line for d in directories for line in facts.hardware(d)))
    return About(common, _recipe(config), warnings, trained_on, tuple(d.name for d in directories))


def _splits(directory) -> dict | None:
    return run_files.read_splits(directory) if (directory / run_splits.SPLITS).exists() else None


def _warnings(league: League) -> list[str]:
    made_for = league.recipe.model.name
    warnings = [
        f"All networks use one recipe, `{league.recipe.name}`, made for `{made_for}`. The figures "
        "are for equal conditions and a small budget, not the best that each network can reach: "
        "the published recipes train most of them far longer."
    ]
    if len(league.seeds) < 2:
        warnings.append("One seed only: differences of one or two points of Dice mean nothing.")
    return warnings


def _recipe(config) -> list[tuple[str, Any, Any]]:
    base = run_folder.flatten(configuration.read(configuration.Given(None, {}), default="base"))
    own = run_folder.flatten(config)
    return [
        (field, value, base.get(field, "absent"))
        for field, value in own.items()
        if not field.startswith(_SILENT)
        and field != "train.encoder_rate"  # only for rows with weights, see `League.config`
        and value != base.get(field, "absent")
    ]
