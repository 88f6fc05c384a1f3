"""Checks that every network of the registry learns, by training on simulated images in a budget.

    python benchmarks/phantoms.py --out=runs/phantoms
    python benchmarks/phantoms.py --out=runs/phantoms --networks=acsnet,unet

Each network trains on fold 0 of the phantoms with one recipe, for a fixed budget of optimiser
steps, and is tested on images it has not seen; RATES names those whose learning rate differs. It
has learnt if its DSC and its accuracy, before refining, are both above 0.6; the most frequent of
the three classes has 0.47 of the images. Weights are drawn, and the networks are narrower than
published, so that a CPU can train all of them; --width=published gives them their full width.
Images are small, too. Figures after such short training do not show which network is better.

Each network's run folder is in --out. An interrupted run continues where it was, a finished one is
only read, so the same command completes the table. The table is Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import side_by_side

from configs import best
from mtbus_jax import crossval, models
from mtbus_jax.data import load_configured
from mtbus_jax.runtime import backend
from mtbus_jax.splits import published_folds
from mtbus_jax.training import trained_folds

ENOUGH = 0.6
# Feature maps of the first level, where the published number is too many for a CPU; networks that
# are not named keep their default.
WIDTHS = {
    "unetpp": 8,
    "nnunet": 8,
    "adityan": 16,
    "attention_unet": 12,
    "basic_unetpp": 8,
    "residual_unet": 12,
    "swin_unetr": 12,
    "bts_unet": 16,
    "acsnet": 16,
    "residual_mtl": 8,
}
# Where the recipe's rate is too high: at 2e-3 the head of `swin_unetr` dies within an epoch.
RATES = {"swin_unetr": 5e-4}


def recipe(network: str, options: argparse.Namespace):
    """The configuration of one network, with as many epochs as the budget allows."""
    config = best.get_config()
    config.name = network
    config.data.name = "phantom"
    config.data.data_dir = options.data_dir
    config.data.folds = (0,)
    config.data.image_size = (options.size, options.size)
    config.model.name = network
    config.model.encoder = config.model.encoder_weights = None
    config.model.frozen_statistics = None
    if options.width == "small" and network in WIDTHS:
        config.model.width = WIDTHS[network]
    config.train.batch_size = options.batch
    config.train.augmentation = "upright"
    config.train.encoder_rate = 1.0
    config.train.learning_rate = RATES.get(network, config.train.learning_rate)
    config.eval.tta = config.eval.average = False
    config.log.progress = config.log.tensorboard = False
    cases = load_configured(config)
    steps = math.ceil(len(published_folds(cases.label, cases.test_fold)[0].train) / options.batch)
    config.train.epochs = max(1, options.steps // steps)
    return config, config.train.epochs * steps


def measure(network: str, options: argparse.Namespace) -> dict:
    """Trains and tests one network, or reads its results if they are there."""
    config, steps = recipe(network, options)
    workdir = Path(options.out) / network
    result = crossval.train_and_evaluate(config, workdir)
    figures = result["results"]["raw"]["figures"]
    lines = (workdir / "fold_0" / "metrics.jsonl").read_text().splitlines()
    seconds = sum(json.loads(line)["seconds"] for line in lines)
    trained = trained_folds.load(workdir, (0,))
    return {
        "network": network,
        "width": config.model.width or "",
        "parameters": models.parameter_count(trained.variables[0]["params"]),
        "steps": steps,
        "dsc": figures["dsc_average"]["mean"],
        "accuracy": figures["acc"]["mean"],
        "test_images": figures["acc"]["n"][0],
        "minutes": seconds / 60,
    }


def row(found: dict) -> str:
    """One line of the table."""
    reached = found["dsc"] > ENOUGH and found["accuracy"] > ENOUGH
    return (
        f"| `{found['network']}` | {found['width']} | {found['parameters']:,} | {found['steps']} "
        f"| {found['dsc']:.3f} | {found['accuracy']:.3f} | {'yes' if reached else 'no'} "
        f"| {found['minutes']:.1f} |"
    )


def main() -> None:
    """Measures each network and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder for the run folders")
    parser.add_argument(
        "--networks", default=",".join(models.REGISTRY), help="names, comma-separated"
    )
    parser.add_argument("--steps", type=int, default=300, help="budget of optimiser steps")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--width", choices=("small", "published"), default="small")
    parser.add_argument("--data_dir", default="", help="where the built phantoms lie")
    parser.add_argument("--json", default="", help="write the results here")
    options = parser.parse_args()
    backend.prepare_for_training()
    print("| network | width | parameters | steps | DSC | accuracy | learnt | minutes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |", flush=True)
    rows = []
    for network in options.networks.split(","):
        rows.append(measure(network, options))
        print(row(rows[-1]), flush=True)
    if options.json:
        side_by_side.write(options.json, {"networks": rows})


if __name__ == "__main__":
    main()
