"""Keeps the basis of a run's figures: a small table of its test images, and its configuration.

    python benchmarks/keep_results.py runs/best results/best
    python benchmarks/keep_results.py runs/on_bus_uclm results/across/on_bus_uclm

Writes cases.csv (one row per test image: uid, fold, class, prediction, probabilities, Dice, each
before and after refining) and config.json (without the places of files on this machine). Of the
output of mtbus external it keeps cases.csv with groups instead of folds, and the settings of the
test as test.json. With --check it writes nothing and prints DSC average and accuracy, and the
configuration hash of a run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from mtbus_jax.data import places
from mtbus_jax.training import config_hash, run_folder

COLUMNS = [
    "uid",
    "fold",
    "label",
    "predicted",
    "probability_benign",
    "probability_malignant",
    "probability_normal",
    "dice",
    "refined_predicted",
    "refined_dice",
]
# Of the output of mtbus external, in test.json.
SETTINGS = ["name", "model", "trained_on", "dataset", "weights", "folds", "refining"]
SETTINGS += ["intensity_matched", "image_size"]


def keep(run: Path, out: Path) -> None:
    """Writes the two files of a run, or of a test on other data."""
    files = sorted(run.glob("fold_*/cases.csv"))
    external = not files and (run / "cases.csv").exists()
    if not files and not external:
        raise SystemExit(
            f"{run}: no fold has been tested. Name a run folder of main.py, or the output of mtbus "
            "external."
        )
    # "normal" and its like are names, not missing values.
    tables = [
        pd.read_csv(path, keep_default_na=False)
        for path in ([run / "cases.csv"] if external else files)
    ]
    columns = ["group" if name == "fold" and external else name for name in COLUMNS]
    out.mkdir(parents=True, exist_ok=True)
    pd.concat(tables)[columns].to_csv(out / "cases.csv", index=False, float_format="%.4f")
    if external:
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        settings = {name: found[name] for name in SETTINGS}
        (out / "test.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    config = json.loads((run / run_folder.CONFIG).read_text(encoding="utf-8"))
    config["data"] = {k: v for k, v in config["data"].items() if k not in places.PLACES}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def figures(path: Path, prefix: str = "") -> pd.DataFrame:
    """DSC average and accuracy over the folds of a kept table.

    Args:
      path: ``cases.csv`` as `keep` writes it.
      prefix: ``""`` for the network's answer, ``"refined_"`` for the refined answer.

    Returns:
      Rows ``dsc`` and ``acc``, columns ``mean`` and ``std`` (n − 1) over folds; of a test on other
      data the mean over all images, and NaN.
    """
    cases = pd.read_csv(path, keep_default_na=False)
    cases["dsc"] = cases[f"{prefix}dice"].astype(float)
    cases["acc"] = (cases[f"{prefix}predicted"] == cases["label"]).astype(float)
    folds = cases["fold"] if "fold" in cases else pd.Series(0, cases.index)
    return cases.groupby(folds)[["dsc", "acc"]].mean().agg(["mean", "std"]).T


def configuration(folder: Path) -> str:
    """The configuration hash of a kept run, see `config_hash.of`."""
    content = json.loads((folder / run_folder.CONFIG).read_text(encoding="utf-8"))
    return config_hash.of(content)


def main() -> None:
    """Keeps a run, or prints the figures of a kept one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="run folder; with --check a folder of results")
    parser.add_argument("out", type=Path, nargs="?", help="folder to write, such as results/best")
    parser.add_argument("--check", action="store_true", help="print hash and figures of a kept run")
    options = parser.parse_args()
    if options.check:
        if (options.run / run_folder.CONFIG).exists():
            print(f"configuration: {configuration(options.run)}")
        for prefix, name in (("", "raw"), ("refined_", "refined")):
            found = figures(options.run / "cases.csv", prefix)
            text = [
                f"{k} {row['mean']:.3f}" + (f" ± {row['std']:.3f}" if row["std"] >= 0 else "")
                for k, row in found.iterrows()
            ]
            print(f"{name}: {', '.join(text)}")
    elif options.out is None:
        parser.error("name the folder to write, such as results/best")
    else:
        keep(options.run, options.out)


if __name__ == "__main__":
    main()
