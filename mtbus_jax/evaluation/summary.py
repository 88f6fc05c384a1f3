"""From the rows of ``cases.csv`` to ``summary.json`` and ``summary.md``.

A fold's figure is the mean over its test images. A run's figure is mean ± standard deviation over
its folds. Our standard deviation divides by n − 1, since folds are a sample. The published one
divides by n if the tables of Aumente-Maestro et al. 2025 came from the released script. That script
adds a column with the mean to the folds before it takes the deviation. The mean adds nothing to the
sum of squares but raises the count by one. Where there are published figures, our deviation is also
given with division by n.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtbus_jax import files, models
from mtbus_jax.evaluation import markdown, published, trust
from mtbus_jax.evaluation.evaluate import REFINED, read_cases
from mtbus_jax.metrics import classification
from mtbus_jax.metrics.meaning import MASK_METRICS
from mtbus_jax.training import config_hash, run_files, run_folder, run_splits
from mtbus_jax.types import CLASSES, Classes

SUMMARY_JSON, SUMMARY_MD = run_folder.SUMMARY, "summary.md"

# Figures given for each network of an ensemble alone.
_ALONE = ("dsc_average", "acc", "f1_weighted")


def fold_figures(
    rows: pd.DataFrame, *, refined: bool, classes: Classes = CLASSES
) -> dict[str, tuple[float, int]]:
    """All figures of one fold.

    Args:
      rows: the rows of ``cases.csv`` of one fold.
      refined: whether to read the refined columns.
      classes: the run's classes.

    Returns:
      For each figure, by name: the value and the number of images behind it. Images where the
      figure is undefined do not count.
    """
    prefix = REFINED if refined else ""
    figures: dict[str, tuple[float, int]] = {}
    if f"{prefix}dice" in rows:
        dice = rows[f"{prefix}dice"]
        for name in classes.names:
            figures[f"dsc_{name}"] = _mean(dice[rows.label == name])
        figures["dsc_average"] = _mean(dice)
        for metric in MASK_METRICS:
            if f"{prefix}{metric}" in rows:
                figures[metric] = _mean(rows[f"{prefix}{metric}"])
    if f"{prefix}predicted" in rows:
        known = rows[rows.label.notna()]
        label = _codes(known.label, classes)
        predicted = _codes(known[f"{prefix}predicted"], classes)
        n = len(known)
        figures["acc"] = _defined(classification.accuracy(label, predicted), n)
        per_class = classification.f1_per_class(label, predicted, classes=len(classes))
        for name, value in zip(classes.names, per_class, strict=True):
            figures[f"f1_{name}"] = _defined(value, n)
        rates = classification.rates_one_vs_rest(label, predicted, classes=len(classes))
        for rate, values in rates._asdict().items():
            for name, value in zip(classes.names, values, strict=True):
                figures[f"{rate}_{name}"] = _defined(value, n)
        figures["f1_weighted"] = _defined(classification.f1_weighted(label, predicted), n)
    if not refined and "predicted" in rows:
        # Refining changes the decision, not the probabilities: the AUC is a raw figure only.
        probability = known[[f"probability_{name}" for name in classes.names]].to_numpy()
        areas = classification.auc_one_vs_rest(label, probability)
        for name, value in zip(classes.names, areas, strict=True):
            figures[f"auc_{name}"] = _defined(value, n)
    if not refined and "incoherent" in rows:
        figures["incoherent_ratio"] = _mean(rows.incoherent.astype(float))
    return figures


def _mean(values: pd.Series) -> tuple[float, int]:
    defined = values.dropna()
    return (float(defined.mean()) if len(defined) else math.nan), len(defined)


def _defined(value: float, n: int) -> tuple[float, int]:
    """A figure over ``n`` images, or over none if it is undefined."""
    return float(value), 0 if math.isnan(value) else n


def _codes(names: pd.Series, classes: Classes) -> np.ndarray:
    return names.map(classes.names.index).to_numpy(int)


def summarise(rows: pd.DataFrame, config: dict[str, Any], split_info: dict[str, Any]) -> dict:
    """The content of ``summary.json``.

    Args:
      rows: the rows of all folds, see `read_cases`.
      config: content of ``config.json``.
      split_info: content of ``splits.json``.

    Returns:
      The content; for a run without test images, it has no figures.
    """
    flat = run_folder.flatten(config)
    tested = sorted(int(fold) for fold in rows.fold.unique())
    folds = tested or list(config["data"]["folds"])
    flat["data.folds"] = folds  # what was done, not what was asked for
    if split_info.get("edited"):
        flat["data.split"] = run_splits.CUSTOM
    tasks, classes = tuple(config["tasks"]), Classes.of(config["data"])
    results, confusion = {}, {}
    unused = split_info.get("unused_images")
    for kind, refined in (("raw", False), ("refined", True)):
        if not tested or (refined and not (config["eval"]["refine"] and f"{REFINED}dice" in rows)):
            continue
        per_fold = [
            fold_figures(rows[rows.fold == fold], refined=refined, classes=classes)
            for fold in folds
        ]
        setting = published.setting_name(
            tasks, oversample=config["train"]["oversample"], refined=refined
        )
        reference = published.figures(config["data"]["name"], config["model"]["name"], setting)
        results[kind] = {
            "published_setting": setting,
            "figures": {
                name: _over_folds([figures[name] for figures in per_fold], reference.get(name))
                for name in per_fold[0]
            },
        }
        column = f"{REFINED if refined else ''}predicted"
        if column in rows:
            known = rows[rows.label.notna()]
            codes = (_codes(known[name], classes) for name in ("label", column))
            matrix = classification.confusion_matrix(*codes, classes=len(classes))
            confusion[kind] = matrix.tolist()
    return {
        "name": config["name"],
        "configuration": config_hash.of(config),
        "dataset": config["data"]["name"],
        "model": config["model"]["name"],
        **_encoder_weights(config["model"]),
        "tasks": list(tasks),
        "image_size": list(config["data"]["image_size"]),
        "split": flat["data.split"],
        "folds": folds,
        "folds_of_split": len(split_info["folds"]),
        "test_images": len(rows),
        "leaking_test_images": sum(split_info["leaking_test_images"][fold] for fold in folds),
        "leaking_validation_images": sum(
            split_info["leaking_validation_images"][fold] for fold in folds
        )
        if "leaking_validation_images" in split_info
        else 0,
        "started_from": Path(config["train"].get("start_from") or "").name,
        "not_compared": split_info.get("not_compared", ""),
        "validation_images": sum(len(split_info["folds"][fold]["validation"]) for fold in folds),
        "unused_images": sum(unused[fold] for fold in folds) if unused else 0,
        "departures_from_published_recipe": published.departures(flat),
        "results": results,
        "class_names": list(classes.names),
        "confusion_counts": confusion,
    }


def _encoder_weights(model: dict[str, Any]) -> dict[str, str]:
    """Where the encoder's initial weights came from, "" if random; {} without such an encoder."""
    network = models.REGISTRY.get(model["name"])
    if not hasattr(network, "encoder_weights"):
        return {}
    return {"encoder_weights": model.get("encoder_weights") or ""}


def _over_folds(values: list[tuple[float, int]], reference: published.Figure | None) -> dict:
    numbers = np.array([value for value, _ in values])
    defined = numbers[~np.isnan(numbers)]
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "folds": [None if math.isnan(value) else value for value in numbers.tolist()],
        "n": [n for _, n in values],
        "published": None
        if reference is None
        else {
            "table": reference.table,
            "mean": reference.mean,
            "sd": None if math.isnan(reference.sd) else reference.sd,
        },
    }


def write_summary(workdir: Path) -> dict:
    """Writes ``summary.json`` and ``summary.md`` from what the run folder holds.

    Returns:
      The content of ``summary.json``.

    Raises:
      UserError: if the folder is not a run, or nothing has been evaluated.
    """
    config = run_files.read_config(workdir)
    split_info = run_files.read_splits(workdir)
    result = summarise(read_cases(workdir), config, split_info)
    if isinstance(config.get("seed"), list) and result["results"]:
        result["networks"] = _networks_alone(workdir, config["seed"], result)
    encoder = run_files.read_encoder(workdir)
    if encoder is not None:
        result["encoder_start"] = encoder
    trusted = trust.read_content(workdir)
    if trusted is not None:
        result["trust"] = trusted
    result["differing_settings"] = run_folder.differing_settings(workdir, result["folds"])
    files.write_json(workdir / SUMMARY_JSON, result)
    files.write_text(workdir / SUMMARY_MD, markdown.to_markdown(result))
    return result


def _networks_alone(workdir: Path, seeds: list[int], result: dict) -> list[dict[str, Any]]:
    """Seed and mean figures over folds for each network of an ensemble alone."""
    kind = list(result["results"])[-1]
    alone = []
    for number, seed in enumerate(seeds):
        rows = read_cases(run_folder.network_dir(workdir, number), splits_of=workdir)
        each = [
            fold_figures(
                rows[rows.fold == fold],
                refined=kind == "refined",
                classes=Classes(tuple(result["class_names"]), None),
            )
            for fold in result["folds"]
        ]
        names = [name for name in _ALONE if name in each[0]]
        means = {n: _over_folds([figures[n] for figures in each], None)["mean"] for n in names}
        alone.append({"seed": seed, **means})
    return alone
