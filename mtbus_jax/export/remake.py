"""The commands that train a network again, from the settings that a run records."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from mtbus_jax import configuration
from mtbus_jax.configuration import values
from mtbus_jax.training import config_hash, run_folder

# Settings outside the configuration hash that decide what is known about a network.
_OF_EVALUATION = ("eval.refine", "eval.tta")


def commands(config: config_dict.ConfigDict, workdir: str, folds: Sequence[int] = ()) -> list[str]:
    """Command lines that make a run: one, or for an ensemble its trainings and their joining.

    They start from the shipped configuration of the run's name, or from ``base``, and state the
    fields that differ from it, and the seed. The folders of the data are left out.

    Args:
      config: of the run.
      workdir: name for its folder.
      folds: those to train; none for all.
    """
    recipe = config.name if config.name in configuration.shipped_names() else "base"
    fields = _changes(config, configuration.load_config(recipe))
    if folds:
        fields["data.folds"] = tuple(folds)
    if not isinstance(config.seed, tuple):
        return [_train(recipe, workdir, fields | {"seed": config.seed})]
    runs = [f"{workdir}_{seed}" for seed in config.seed]
    lines = [
        _train(recipe, run, fields | {"seed": seed})
        for run, seed in zip(runs, config.seed, strict=True)
    ]
    return [*lines, f"mtbus ensemble --runs {' '.join(runs)} --out={workdir}"]


def _changes(config: config_dict.ConfigDict, recipe: config_dict.ConfigDict) -> dict[str, Any]:
    """Values by field where a run differs from a recipe, but for the seed."""
    base = run_folder.flatten(configuration.defaults())
    here, there = (config_hash.settings(each.to_dict()) for each in (config, recipe))
    found = {
        field: here.get(field, base.get(field))
        for field in sorted(here.keys() | there.keys())
        if field != "seed" and here.get(field, ...) != there.get(field, ...)
    }
    flat, usual = run_folder.flatten(config), run_folder.flatten(recipe)
    return found | {f: flat[f] for f in _OF_EVALUATION if flat[f] != usual[f]}


def _train(recipe: str, workdir: str, fields: dict[str, Any]) -> str:
    words = [f"mtbus train --config={recipe} --workdir={workdir}"]
    for field, value in fields.items():
        text = values.as_text(tuple(value) if isinstance(value, list) else value)
        words.append(f"--config.{field}={shlex.quote(str(text))}")
    return " ".join(words)
