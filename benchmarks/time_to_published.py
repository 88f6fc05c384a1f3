"""Processor minutes until validation images reach the published figures, with PyTorch beside it.

    python benchmarks/time_to_published.py --out=runs/time --peer_python=VENV/bin/python --folds=0,1
    python benchmarks/time_to_published.py --out=runs/time --settings= --recipes=configs/best.py

A recipe is trained fold by fold, each in its own process, with no program compiled beforehand.
Processor time is that of all its threads from its start to the end of an epoch: imports, reading
the data, compiling, training, validation. The PyTorch side has the network, weights, batches,
losses and learning rates of this library (peer_batches.py, torch_lite_unet.py). Its images are
already augmented, so it spends nothing on that; the time that drawing them took is given below the
table. The losses of its first three steps must agree, or the comparison stops. PyTorch's threads
are told to sleep while they wait (OMP_WAIT_POLICY), so that waiting is not counted as work.

What is compared with what:

- The published figures are MT UNet++'s, means over the test images of four folds. Here means over
  the validation images of the trained folds are compared with them, epoch by epoch: test images are
  not evaluated. Validation images are fewer (about 68 per fold of Curated BUSI) and
  were looked at when recipes were chosen.
- Refined figures (MT+PR+DO) are compared with refined ones, and raw ones (MT+DO, where published)
  with raw ones. Neither side averages over mirror images here, as testing may do.
- A cell has the minutes to the first epoch that reaches a figure, and in brackets those to the
  epoch from which on every epoch reaches it. One epoch may reach a figure by chance; the brackets
  are not affected by that, and no window has to be chosen. "Both" means both in the same epoch.

RECIPE:EPOCHS trains only that many epochs of a recipe that is too long, at least two, and
extrapolates the minutes of all its epochs from the last one. It is then not known whether and when
such a recipe reaches the figures. A finished fold is kept in --out and only read; an interrupted
one is trained again, since its processor time would be that of two starts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peer_batches
import reaching
import side_by_side
from training_sides import OURS, Recipe, train_here, train_there

from mtbus_jax import commandline, configuration, data, files, splits, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import published
from mtbus_jax.runtime import backend
from mtbus_jax.training import run_folder, run_splits

RECIPES = "configs/best.py,configs/mt_nnunet_small.py,configs/mt_unetpp.py:2"
HEADS = ("recipe", "dataset", "side", "folds", "held against", "epochs", "to DSC", "to accuracy")
HEADS += ("to both", "DSC, accuracy at the end", "all epochs")


def read_recipe(text: str, changes: dict[str, Any]) -> Recipe:
    """The recipe that ``FILE`` or ``FILE:EPOCHS`` names, with the changes of the command line.

    Raises:
      UserError: for an unknown file or field, an unfit number of epochs, or a recipe without masks
        or classes.
    """
    path, _, epochs = text.partition(":")
    config = configuration.read(configuration.Given(path, changes))
    if epochs and not (epochs.isdecimal() and 2 <= int(epochs) <= config.train.epochs):
        raise UserError(
            f"--recipes={text}: give a number of epochs from 2, of which the first compiles and "
            f"the last is extrapolated from, to {config.train.epochs}, which are all."
        )
    if set(config.tasks) != set(types.TASKS):
        raise UserError(f"--recipes={text}: tasks={tuple(config.tasks)} must be seg and cls.")
    arguments = [f"--config={path}", *(f"--config.{k}={v}" for k, v in changes.items())]
    return Recipe(config, arguments, int(epochs or config.train.epochs))


def check_data(config: Any, folds: tuple[int, ...]) -> None:
    """Refuses data that lacks what this measures.

    Raises:
      UserError: for a fold that does not exist or has no validation images, or for an image whose
        mask or class is not known.
    """
    cases = data.load_configured(config)
    config = data.resolve(config, cases)
    parts = splits.make_folds(cases, **run_splits.drawing(config.data))
    run_folder.check_folds(folds, len(parts))
    if not all(len(parts[fold].validation) for fold in folds):
        which = "data.split={split}, data.validation={validation}".format(**config.data)
        raise UserError(f"{which}: there are no validation images to judge by.")
    if not (cases.mask_known.all() and cases.label_known.all()):
        raise UserError(f"{cases.name} has images whose mask or class is not known.")


def targets_of(dataset: str, given: Sequence[float]) -> list[reaching.Target]:
    """The figures to reach: published, or given for both the raw and the refined ones.

    Raises:
      UserError: for a dataset without published figures, if none are given.
    """
    if given:
        return [reaching.Target("given", prefix, *given) for prefix in ("refined_", "")]
    found = []
    for prefix in ("refined_", ""):
        name = published.setting_name(types.TASKS, oversample=True, refined=bool(prefix))
        figures = published.figures(dataset, "unetpp", name)
        if {"dsc_average", "acc"} <= set(figures):
            target = figures["dsc_average"].mean, figures["acc"].mean
            found.append(reaching.Target(name, prefix, *target))
    if not found:
        raise UserError(
            f"there are no published figures for {dataset}; give the figures to reach with "
            "--target=DSC,ACCURACY."
        )
    return found


def measured(out: Path, recipe: Recipe, fold: int, side: str, train) -> dict:
    """Reads the result of a fold and side from ``out``, or trains it and writes it there.

    Raises:
      UserError: if what is there was measured with other settings.
    """
    config = recipe.config
    part = "" if recipe.epochs == config.train.epochs else f"_{recipe.epochs}_epochs"
    path = out / f"{config.name}_{config.data.name}_{fold}_{side}{part}.json".replace(" ", "_")
    free = ("name", "data.data_dir", "data.manual_dir", "data.cache_dir", "data.folds")
    settings = run_folder.flatten(config)
    settings = {k: v for k, v in settings.items() if k not in free and not k.startswith("log.")}
    settings = json.loads(json.dumps(settings))
    if path.exists():
        found = files.read_json(path, mend="Remove it, and it is measured again")
        if found["settings"] != settings:
            raise UserError(
                f"{path} was measured with other settings. Choose another --out, or remove it."
            )
        return found
    found = train() | {"settings": settings}
    files.write_json(path, found)
    return found


def line_of(recipe: Recipe, side: str, folds: dict[int, dict], target: reaching.Target) -> dict:
    """One line of the table, as figures."""
    rows = [each["rows"] for each in folds.values()]
    epochs = recipe.config.train.epochs
    whole = [
        reaching.whole_minutes(each["rows"], epochs=epochs, finished=each["finished"])
        for each in folds.values()
    ]
    return {
        "recipe": recipe.config.name,
        "dataset": recipe.config.data.name,
        "side": side,
        "folds": list(folds),
        "target": target._asdict(),
        "epochs": epochs,
        "trained": max(map(len, rows)),
        "finished": all(each["finished"] for each in folds.values()),
        **reaching.compare(rows, target),
        "whole_minutes": float(np.mean(whole)),
    }


def in_words(line: dict) -> str:
    """A line of `line_of` in Markdown."""

    def minutes(reached: list) -> str:
        first, held = (None if each is None else f"{each:.1f}" for each in reached)
        if first is None:
            return "not" if line["finished"] else f"not in {line['trained']} epochs"
        return f"{first} ({held or 'lost'})"

    target, all_epochs = line["target"], f"{line['whole_minutes']:.1f}"
    if not line["finished"]:
        all_epochs = f"{line['whole_minutes']:.0f}, extrapolated from {line['trained']} epochs"
    kind = "refined" if target["prefix"] else "raw"
    cells = (
        f"`{line['recipe']}`",
        line["dataset"],
        line["side"],
        ", ".join(map(str, line["folds"])),
        f"{target['name']}, {kind}: {target['dice']:.3f}, {target['accuracy']:.3f}",
        line["epochs"],
        *(minutes(line[name]) for name in ("dice", "accuracy", "both")),
        f"{line['last_dice']:.3f}, {line['last_accuracy']:.3f}",
        all_epochs,
    )
    return f"| {' | '.join(map(str, cells))} |"


def main(argv: Sequence[str], *, program: str) -> None:
    """Measures what is missing and prints the table."""
    given, rest = configuration.take(argv)
    parser = argparse.ArgumentParser(prog=program, description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=commandline.file_path, help="for the figures")
    parser.add_argument("--recipes", type=commandline.names, default=commandline.names(RECIPES))
    parser.add_argument("--folds", type=commandline.numbers, default=(0, 1, 2, 3))
    parser.add_argument("--target", type=_pair, default=(), help="DSC,ACCURACY; else as published")
    parser.add_argument("--peer_python", default="", help="interpreter with requirements.txt")
    parser.add_argument("--settings", default="best", help="of the peer; none with --settings=")
    parser.add_argument("--json", default="", help="write the results here")
    options = parser.parse_args(rest)
    if given.file:
        parser.error("configurations are given with --recipes; --config.FIELD=… changes them all")
    peers = side_by_side.settings_of(parser, options)
    recipes = [read_recipe(text, dict(given.changes)) for text in options.recipes]
    targets = {r.config.data.name: targets_of(r.config.data.name, options.target) for r in recipes}
    backend.prepare_for_training()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}", flush=True)
    lines, notes, runs = [], [], {}
    for recipe in recipes:
        check_data(recipe.config, options.folds)
        of_recipe: dict[str, dict[int, dict]] = {}
        odd = peer_batches.without_peer(recipe.config)
        has_peer = not odd and recipe.epochs == recipe.config.train.epochs
        for fold in options.folds:
            found = measured(out, recipe, fold, OURS, lambda r=recipe, f=fold: train_here(r, f))
            of_recipe.setdefault(OURS, {})[fold] = found
            for name in peers if has_peer else ():

                def train(recipe=recipe, fold=fold, name=name):
                    return train_there(recipe, fold, name, options.peer_python)

                side = f"PyTorch {name}"
                of_recipe.setdefault(side, {})[fold] = measured(out, recipe, fold, side, train)
        for side, folds in of_recipe.items():
            runs[f"{recipe.config.name} {recipe.config.data.name} {side}"] = folds
            for target in targets[recipe.config.data.name]:
                lines.append(line_of(recipe, side, folds, target))
                print(in_words(lines[-1]), flush=True)
            notes += _notes(recipe, side, folds)
        if peers and not has_peer:
            why = ", ".join(odd) or f"{recipe.epochs} of {recipe.config.train.epochs} epochs"
            notes.append(f"{recipe.config.name} has no PyTorch side: {why}.")
    print("", *notes, sep="\n")
    if options.json:
        side_by_side.write(options.json, {"lines": lines, "runs": runs})


def _notes(recipe: Recipe, side: str, folds: dict[int, dict]) -> list[str]:
    """What there is to say about a side that has no column."""
    facts = [each["facts"] for each in folds.values()]
    images = sum(each["validation_images"] for each in facts)
    start = np.mean([each["start_seconds"] for each in facts])
    seconds = [[row["processor_seconds"] for row in each["rows"]] for each in folds.values()]
    first = np.mean([each[0] for each in seconds]) - start
    text = (
        f"{recipe.config.name}, {recipe.config.data.name}, {side}: {images} validation images in "
        f"{len(folds)} fold(s); processor seconds: {start:.0f} before training, {first:.0f} in the "
        "first epoch"
    )
    later = [(each[-1] - each[0]) / (len(each) - 1) for each in seconds if len(each) > 1]
    if later:
        text += f", {np.mean(later):.0f} in a later one"
    drawing = [each["our_augmentation_seconds"] for each in facts if "our_losses" in each]
    if drawing:
        text += f"; {np.mean(drawing):.0f} more for drawing its images"
    return [text + "."]


def _pair(text: str) -> tuple[float, float]:
    """Type of ``--target``."""
    dsc, accuracy = map(float, text.split(","))
    return dsc, accuracy


if __name__ == "__main__":
    commandline.run("time_to_published.py", main)
