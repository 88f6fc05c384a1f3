"""What each ingredient of the modern recipe is worth, on validation images.

    python benchmarks/ablation.py --out=runs/ablation --manual_dir=DOWNLOADS
    python benchmarks/ablation.py --out=runs/ablation --config=best_bus_uclm --folds=0,1

Each row is the recipe with one ingredient removed, or one added, trained on the same folds with the
same seed. Figures are those of the validation images after the last epoch, not refined, so that
choices based on this table leave the test images unseen. The difference from the whole recipe is
taken fold by fold. Runs that differ only in the seed lie up to 0.03 of Dice and 0.07 of accuracy
apart on one fold, so a smaller difference on a few folds means nothing.

Each row's run folder is in --out. An interrupted run continues where it was, a finished one is only
read, so the same command completes the table. The table is Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import side_by_side

from mtbus_jax import configuration, crossval
from mtbus_jax.runtime import backend

WHOLE = "whole"
# By name: the fields that differ from the whole recipe.
CHANGES = {
    WHOLE: {},
    "weights drawn": {"model.encoder_weights": "", "train.encoder_rate": 1.0},
    "encoder as fast": {"train.encoder_rate": 1.0},
    "statistics frozen": {"model.frozen_statistics": True},
    "statistics of batches": {"model.frozen_statistics": None},
    "encoder lite1": {"model.encoder": "lite1"},
    "nearest": {"data.resize": "nearest"},
    "area": {"data.resize": "area"},
    "varied augmentation": {"train.augmentation": "varied"},
    "released augmentation": {"train.augmentation": "released"},
    "upright augmentation": {"train.augmentation": "upright"},
    "no augmentation": {"train.augment": False},
    "elastic 0.5": {"train.elastic": 0.5},
    "speckle 0.5": {"train.speckle": 0.5},
    "mixup 0.2": {"train.mixup": 0.2},
    "smaller at first": {"train.small_share": 0.6, "train.small_scale": 0.5},
    "black corners": {"train.rotation_fill": "zero"},
    "Dice alone": {"loss.cross_entropy": 0.0},
    "focal loss": {"loss.gamma": 2.0},
    "no smoothing": {"loss.label_smoothing": 0.0},
    "no decay": {"train.weight_decay": 0.0},
    "no clipping": {"train.clip_norm": 0.0},
    "plateau": {"train.course": "plateau", "train.warmup": 0.0},
    "averaged weights": {"train.keep": "average"},
    "oversampled": {"train.oversample": True},
    "deep supervision off": {"model.deep_supervision": False},
    "192 pixels": {"data.image_size": (192, 192)},
}


def recipe(change: str, options: argparse.Namespace):
    """The configuration of one row."""
    config = configuration.read(configuration.Given(None, {}), default=options.config)
    config.data.folds = tuple(map(int, options.folds.split(",")))
    config.data.data_dir, config.data.manual_dir = options.data_dir, options.manual_dir
    config.seed = options.seed
    config.eval.tta = config.eval.average = False
    config.log.progress = config.log.tensorboard = False
    if options.epochs:
        config.train.epochs = options.epochs
    config.data.name = options.data or config.data.name
    if options.size:
        config.data.image_size = (options.size, options.size)
    config.update_from_flattened_dict(CHANGES[change])
    return config


def measure(change: str, options: argparse.Namespace) -> dict:
    """Trains one row, or reads it if it is there; returns its validation figures by fold."""
    config = recipe(change, options)
    folder = f"{config.name}_{change.replace(' ', '_')}_{options.seed}"
    crossval.train_and_evaluate(config, Path(options.out) / folder)
    last = []
    for fold in config.data.folds:
        path = Path(options.out) / folder / f"fold_{fold}" / "metrics.jsonl"
        last.append(json.loads(path.read_text(encoding="utf-8").splitlines()[-1]))
    return {
        "change": change,
        "dsc": [line["validation_dice"] for line in last],
        "accuracy": [line["validation_accuracy"] for line in last],
    }


def row(found: dict, whole: dict) -> str:
    """One line of the table."""
    cells = [found["change"]]
    for figure in ("dsc", "accuracy"):
        differences = [a - b for a, b in zip(found[figure], whole[figure], strict=True)]
        cells.append(f"{statistics.fmean(found[figure]):.3f}")
        cells.append("" if found is whole else f"{statistics.fmean(differences):+.3f}")
        cells.append("" if found is whole else ", ".join(f"{d:+.3f}" for d in differences))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measures each row and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder for the run folders")
    parser.add_argument("--config", default="best", help="a shipped configuration")
    parser.add_argument("--data", default="", help="name of another dataset")
    parser.add_argument("--changes", default="", help="names, comma-separated; default: all")
    parser.add_argument("--folds", default="0,1,2,3", help="numbers, comma-separated")
    parser.add_argument("--seed", type=int, default=1993)
    parser.add_argument("--epochs", type=int, default=0, help="0: those of the configuration")
    parser.add_argument(
        "--size", type=int, default=0, help="image side in pixels, for rows that do not set it"
    )
    parser.add_argument("--manual_dir", default="", help="folder with the downloaded dataset")
    parser.add_argument("--data_dir", default="", help="where built datasets lie")
    parser.add_argument("--json", default="", help="write the results here")
    options = parser.parse_args()
    asked = list(dict.fromkeys(options.changes.split(","))) if options.changes else []
    unknown = [name for name in asked if name not in CHANGES]
    if unknown:
        parser.error(f"--changes: {', '.join(unknown)}. Choose from {', '.join(CHANGES)}.")
    whole = recipe(WHOLE, options)
    same = [name for name in CHANGES if name != WHOLE and recipe(name, options) == whole]
    vain = [name for name in asked if name in same]
    if vain:
        parser.error(f"--changes: {', '.join(vain)}: the recipe is so already. Leave it out.")
    names = [WHOLE, *(name for name in asked or CHANGES if name not in (WHOLE, *same))]
    backend.prepare_for_training()
    print("| change | DSC | difference | by fold | accuracy | difference | by fold |")
    print("| --- | ---: | ---: | --- | ---: | ---: | --- |", flush=True)
    rows = []
    for name in names:
        rows.append(measure(name, options))
        print(row(rows[-1], rows[0]), flush=True)
    if options.json:
        side_by_side.write(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
