"""From the rows of ``cases.csv`` to ``summary.json`` and ``summary.md``.

A fold's figure is the mean over its test images; a run's figure is mean ± standard deviation over
its folds. Ours divides by n − 1, since folds are a sample. The published one divides by n, if the
tables of Aumente-Maestro et al. 2025 came from the released script: it takes the deviation after a
column with the mean has been added to the folds, and the mean itself adds nothing to the sum of
squares while it raises the count by one. Beside published figures, ours is given with n as well.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtbus_jax import files
from mtbus_jax.evaluation import published, trust
from mtbus_jax.evaluation.evaluate import REFINED, read_cases
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.metrics import classification
from mtbus_jax.metrics.meaning import MASK_METRICS, meaning
from mtbus_jax.training import run_files, run_folder, run_splits
from mtbus_jax.types import CLASSES, Classes

SUMMARY_JSON, SUMMARY_MD = run_folder.SUMMARY, "summary.md"

PUBLISHED_DEVIATION = (
    "Published ± divide by the number of folds n, if the tables came from the released script; "
    "ours divide by n − 1. To compare the two, take the columns headed ± with n."
)
# Figures of an ensemble's networks by themselves.
_ALONE = ("dsc_average", "acc", "f1_weighted")


def fold_figures(
    rows: pd.DataFrame, *, refined: bool, classes: Classes = CLASSES
) -> dict[str, tuple[float, int]]:
    """All figures of one fold.

    Args:
      rows: of ``cases.csv``, one fold's.
      refined: whether to read the refined columns.
      classes: of the run.

    Returns:
      By name: the value, and the number of images it is a mean over (undefined ones left out).
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
        figures["f1_weighted"] = _defined(classification.f1_weighted(label, predicted), n)
    if not refined and "predicted" in rows:
        # Refining moves the decision, not the probabilities: the AUC belongs to the raw column.
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
      rows: of all folds, see `read_cases`.
      config: content of ``config.json``.
      split_info: content of ``splits.json``.
    """
    flat = run_folder.flatten(config)
    folds = sorted(int(fold) for fold in rows.fold.unique())
    flat["data.folds"] = folds  # what was done, not what was asked for
    if split_info.get("edited"):
        flat["data.split"] = run_splits.CUSTOM
    tasks, classes = tuple(config["tasks"]), Classes.of(config["data"])
    results, confusion = {}, {}
    for kind, refined in (("raw", False), ("refined", True)):
        if refined and not (config["eval"]["refine"] and f"{REFINED}dice" in rows):
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
        "dataset": config["data"]["name"],
        "model": config["model"]["name"],
        "tasks": list(tasks),
        "image_size": list(config["data"]["image_size"]),
        "split": flat["data.split"],
        "folds": folds,
        "folds_of_split": len(split_info["folds"]),
        "test_images": len(rows),
        "leaking_test_images": sum(split_info["leaking_test_images"][fold] for fold in folds),
        "departures_from_published_recipe": published.departures(flat),
        "results": results,
        "class_names": list(classes.names),
        "confusion_counts": confusion,
    }


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
      UserError: if the folder is no run, or nothing has been evaluated.
    """
    config = run_files.read_config(workdir)
    split_info = run_files.read_splits(workdir)
    result = summarise(read_cases(workdir), config, split_info)
    if isinstance(config.get("seed"), list):
        result["networks"] = _networks_alone(workdir, config["seed"], result)
    trusted = trust.read_content(workdir)
    if trusted is not None:
        result["trust"] = trusted
    files.write_json(workdir / SUMMARY_JSON, result)
    files.write_text(workdir / SUMMARY_MD, to_markdown(result))
    return result


def _networks_alone(workdir: Path, seeds: list[int], result: dict) -> list[dict[str, Any]]:
    """For each network of an ensemble its seed and what it reached by itself: means over folds."""
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
        means = {name: float(np.mean([figures[name][0] for figures in each])) for name in names}
        alone.append({"seed": seed, **means})
    return alone


def to_markdown(result: dict) -> str:
    """``summary.md`` from the content of ``summary.json``."""
    kinds = list(result["results"])
    height, width = result["image_size"]
    lines = [
        f"# {result['name']}: {result['model']} on {result['dataset']}",
        "",
        f"Tasks {' + '.join(result['tasks'])}; {result['split']} split, folds "
        f"{', '.join(map(str, result['folds']))} of {result['folds_of_split']}; "
        f"{result['test_images']} test images at {height} × {width} pixels.",
        "Mean over the test images of a fold, then mean ± standard deviation over folds (n − 1).",
        "",
    ]
    lines += [f"> {warning}" for warning in _warnings(result)]
    if lines[-1]:
        lines.append("")
    lines += _figure_table(result, kinds)
    if any(_has_published(result, kind) for kind in kinds):
        lines += ["", PUBLISHED_DEVIATION]
    if "networks" in result:
        lines += ["", *_networks_table(result, kinds[-1])]
    for kind, counts in result["confusion_counts"].items():
        lines += ["", *_confusion_table(kind, counts, result["class_names"])]
    if "trust" in result:
        lines += ["", *measure.to_markdown(result["trust"])]
    lines += ["", "Research software, not a medical device.", ""]
    return "\n".join(lines)


def _networks_table(result: dict, kind: str) -> list[str]:
    networks = result["networks"]
    names = list(networks[0])[1:]
    lines = [
        f"An ensemble: the mean of {len(networks)} networks a fold. Each of them alone, {kind}:",
        "",
        _row(["seed", *(meaning(name).title for name in names)]),
        _row(["---:"] * (len(names) + 1)),
    ]
    for network in networks:
        cells = [str(network["seed"]), *(f"{network[name]:.3f}" for name in names)]
        lines.append(_row(cells))
    return lines


def _warnings(result: dict) -> list[str]:
    warnings = []
    leaking = result["leaking_test_images"]
    if leaking:
        warnings.append(
            f"**Leak:** {leaking} of {result['test_images']} test images share a patient or a "
            "group of near-duplicates with training or validation images of their fold. "
            "`--config.data.split=grouped` avoids it."
        )
    if result["split"] == run_splits.CUSTOM:
        warnings.append(
            f"**A split of one's own:** `{run_splits.SPLITS}` was edited by hand, so the figures "
            "are not those of a published, given or grouped split."
        )
    departures = result["departures_from_published_recipe"]
    if departures is None:
        warnings.append("No figures are published for this dataset.")
    elif departures:
        warnings.append(
            "**Not the published recipe**, so the published figures beside are no yardstick: "
            + "; ".join(departures)
            + "."
        )
    return [line for warning in warnings for line in (warning, "")][:-1]


def _figure_table(result: dict, kinds: list[str]) -> list[str]:
    shown = [kind for kind in kinds if _has_published(result, kind)]
    titles = {"raw": "raw", "refined": "refined (PR)"}
    header = ["", *(titles[kind] for kind in kinds), "images"]
    for kind in shown:
        setting = result["results"][kind]["published_setting"]
        header += [f"{kind}, ± with n", f"published {setting}"]
    lines = [_row(header), _row(["---"] + ["---:"] * (len(header) - 1))]
    for name in result["results"][kinds[0]]["figures"]:
        cells = [meaning(name).title]
        figures = {kind: result["results"][kind]["figures"].get(name) for kind in kinds}
        cells += [plus_minus(figures[kind]) for kind in kinds]
        cells.append(_image_counts([f["n"] for f in figures.values() if f]))
        for kind in shown:
            beside = (figures[kind] or {}).get("published")
            ours = with_n(figures[kind]) if beside else None
            cells += [plus_minus(ours), plus_minus(beside)]
        lines.append(_row(cells))
    return lines


def _has_published(result: dict, kind: str) -> bool:
    return any(figure["published"] for figure in result["results"][kind]["figures"].values())


def _image_counts(counts: list[list[int]]) -> str:
    """Images behind the figure: one number, or raw / refined where refining changed it."""
    totals = [str(sum(n)) for n in counts]
    return totals[0] if len(set(totals)) == 1 else " / ".join(totals)


def with_n(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure of ``summary.json`` with the standard deviation divided by n, not n − 1."""
    folds = sum(value is not None for value in figure["folds"])
    if figure["sd"] is None:
        return figure
    return figure | {"sd": figure["sd"] * math.sqrt((folds - 1) / folds)}


def plus_minus(figure: dict[str, Any] | None) -> str:
    """Mean ± standard deviation as text; empty without a figure."""
    if figure is None:
        return ""
    if figure["mean"] is None:
        return "undefined"
    spread = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
    return f"{figure['mean']:.3f}{spread}"


def _confusion_table(kind: str, counts: list[list[int]], names: list[str]) -> list[str]:
    lines = [
        f"Confusion matrix, {kind}, in percent of the true class (all folds pooled):",
        "",
        _row(["true \\ predicted", *names, "images"]),
        _row(["---"] + ["---:"] * (len(names) + 1)),
    ]
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = [f"{100 * count / total:.1f}" if total else "" for count in row]
        lines.append(_row([name, *cells, str(total)]))
    return lines


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
