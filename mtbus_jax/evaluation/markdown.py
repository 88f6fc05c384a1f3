"""Writes the content of ``summary.json`` as Markdown for readers: ``summary.md``."""

from __future__ import annotations

import math
from typing import Any

from mtbus_jax.escaping import markdown, markdown_table
from mtbus_jax.evaluation.remarks import Remark, remarks
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.metrics.meaning import meaning
from mtbus_jax.models import weights

PUBLISHED_DEVIATION = (
    "The published ± divides by the number of folds n if the tables came from the released script; "
    "ours divides by n − 1. To compare the two, use the columns headed ± with n."
)


def to_markdown(result: dict) -> str:
    """``summary.md`` from the content of ``summary.json``."""
    kinds = list(result["results"])
    height, width = result["image_size"]
    lines = [
        f"# {markdown(result['name'])}: {result['model']} on {markdown(result['dataset'])}",
        "",
        f"Tasks {' + '.join(result['tasks'])}; {result['split']} split, folds "
        f"{', '.join(map(str, result['folds']))} of {result['folds_of_split']}; "
        f"{result['test_images']} test images at {height} × {width} pixels. Configuration hash "
        f"{result['configuration']}.",
    ]
    if kinds:
        lines.append(
            "Mean over the test images of a fold, then mean ± standard deviation over folds "
            "(n − 1)."
        )
    if "encoder_weights" in result:
        source = result["encoder_weights"]
        started = markdown(source) if source else "random weights"
        lines.append(f"The encoder started from {started}.")
    if "encoder_start" in result:
        lines.append(markdown(weights.Start(**result["encoder_start"]).in_words()))
    for remark in remarks(result):
        lines += ["", _remark(remark)]
    lines.append("")
    if kinds:
        lines += _figure_table(result, kinds)
    if any(_has_published(result, kind) for kind in kinds):
        lines += ["", PUBLISHED_DEVIATION]
    if "networks" in result:
        lines += ["", *_networks_table(result, kinds[-1])]
    for kind, counts in result["confusion_counts"].items():
        lines += ["", *confusion_table(f"{kind}, all folds pooled", counts, result["class_names"])]
    if "trust" in result:
        lines += ["", *measure.to_markdown(result["trust"])]
    lines += ["", "Research software, not a medical device.", ""]
    return "\n".join(lines)


def _networks_table(result: dict, kind: str) -> list[str]:
    networks = result["networks"]
    names = list(networks[0])[1:]
    rows = [[network["seed"], *(f"{network[name]:.3f}" for name in names)] for network in networks]
    return [
        f"An ensemble: the mean of {len(networks)} networks per fold. Each network alone, {kind}:",
        "",
        *markdown_table(["seed", *(meaning(name).title for name in names)], rows, labels=0),
    ]


def _remark(remark: Remark) -> str:
    title = f"**{remark.title}:** " if remark.title else ""
    items = f" {'; '.join(remark.items)}." if remark.items else ""
    return f"> {title}{remark.text}{items}"


def _figure_table(result: dict, kinds: list[str]) -> list[str]:
    shown = [kind for kind in kinds if _has_published(result, kind)]
    titles = {"raw": "raw", "refined": "refined (PR)"}
    header = ["", *(titles[kind] for kind in kinds), "images"]
    for kind in shown:
        setting = result["results"][kind]["published_setting"]
        header += [f"{kind}, ± with n", f"published {setting}"]
    rows = []
    for name in result["results"][kinds[0]]["figures"]:
        cells = [meaning(name).title]
        figures = {kind: result["results"][kind]["figures"].get(name) for kind in kinds}
        cells += [plus_minus(figures[kind]) for kind in kinds]
        cells.append(image_counts([f["n"] for f in figures.values() if f]))
        for kind in shown:
            beside = (figures[kind] or {}).get("published")
            ours = with_n(figures[kind]) if beside else None
            cells += [plus_minus(ours), plus_minus(beside)]
        rows.append(cells)
    return markdown_table(header, rows)


def _has_published(result: dict, kind: str) -> bool:
    return any(figure["published"] for figure in result["results"][kind]["figures"].values())


def image_counts(counts: list[list[int]]) -> str:
    """Images behind a figure: one number, or raw / refined where refining changed it.

    Args:
      counts: for each kind of prediction, in the order of the columns, the images of each fold.
    """
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


def confusion_table(kind: str, counts: list[list[int]], names: list[str]) -> list[str]:
    """Lines of a confusion matrix in percent.

    Args:
      kind: what is counted, for the caption, such as ``raw``.
      counts: numbers of images by true class and predicted class.
      names: names of the classes.
    """
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = [f"{100 * count / total:.1f}" if total else "" for count in row]
        rows.append([name, *cells, total])
    return [
        f"Confusion matrix, {kind}, in percent of the true class:",
        "",
        *markdown_table(["true class", *(f"as {name}" for name in names), "images"], rows),
    ]
