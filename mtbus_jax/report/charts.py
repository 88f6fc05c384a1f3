"""The charts of a run: training curves, Dice by class, reliability, risk against coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtbus_jax import types
from mtbus_jax.metrics import calibration
from mtbus_jax.report import svg
from mtbus_jax.report.markup import Markup, element, number, percent, table
from mtbus_jax.report.run import Run

# Rows of a curve's table; all epochs are in metrics.jsonl.
_LISTED_EPOCHS = 30
# Points of a drawn curve, more than the eye can tell apart.
_DRAWN_POINTS = 240
_DICE_BINS = 25

_CURVES = {
    "loss": "Loss",
    "dice": "Dice",
    "accuracy": "Accuracy",
}
_ERRORS = {
    "wrong": ("Wrong in class or mask", "share wrong"),
    "wrong_class": ("Wrong class", "share wrong"),
    "dice_loss": ("Mask error", "mean 1 − DSC"),
}


def fold_class(fold: int) -> str:
    """Style of a fold's marks: six colours, repeated."""
    return f"c{fold % 6}"


def training(run: Run) -> list[Markup]:
    """One chart per quantity: training and validation, per fold; then the learning rate."""
    charts = []
    validated = any("validation_loss" in row for rows in run.metrics.values() for row in rows)
    for name, title in _CURVES.items():
        if (name == "dice" and not run.has_masks) or (name == "accuracy" and not run.has_classes):
            continue
        charts.append(
            _curve(
                run.metrics,
                title,
                {"training": f"train_{name}"}
                | ({"validation": f"validation_{name}"} if validated else {}),
            )
        )
    charts.append(_curve(run.metrics, "Learning rate", {"": "learning_rate"}))
    return charts


def _curve(metrics: dict[int, list[dict[str, Any]]], title: str, fields: dict[str, str]) -> Markup:
    values = [
        row[field]
        for rows in metrics.values()
        for row in rows
        for field in fields.values()
        if field in row
    ]
    last = max(rows[-1]["epoch"] for rows in metrics.values() if rows)
    y = svg.Axis.around("", values, zero=True)
    chart = svg.Chart(svg.Axis.whole("epoch", last), y)
    entries, columns = [], {}
    for fold, rows in metrics.items():
        if not rows:
            continue
        epochs = [row["epoch"] for row in rows]
        for part, field in fields.items():
            if field not in rows[0]:  # a fold without validation images
                continue
            style = fold_class(fold) + (" faint" if part == "training" else "")
            series = [row[field] for row in rows]
            chart.line(epochs, series, style)
            columns[f"fold {fold} {part}".strip()] = dict(zip(epochs, series, strict=True))
        entries.append((fold_class(fold), f"fold {fold}"))
        # Older runs always tested their best epoch.
        tested = rows[-1].get("tested_epoch", rows[-1]["best_epoch"])
        there = [row for row in rows if row["epoch"] == tested]
        if there and fields.get("validation") in there[0]:
            value = there[0][fields["validation"]]
            text = f"fold {fold}: {value:.3f} in epoch {tested}, whose weights are tested"
            chart.points([tested], [value], fold_class(fold), titles=[text])
    step = -(-last // _LISTED_EPOCHS)
    listed = sorted({1, last, *range(step, last + 1, step)})
    digits = 6 if title == "Learning rate" else 3
    rows = [
        [str(epoch), *(number(column.get(epoch), digits) for column in columns.values())]
        for epoch in listed
    ]
    note = None
    if any(name.endswith("validation") for name in columns):
        entries += [("faint neutral", "training"), ("neutral", "validation")]
        note = "A dot marks the epoch whose weights are tested."
    text = f"{title} over {last} epochs; " + "; ".join(
        f"{name} ends at {number(list(column.values())[-1], digits)}"
        for name, column in columns.items()
    )
    return svg.figure(
        title,
        chart.drawing(f"{title} per epoch", text),
        entries,
        table(f"{title} per epoch", ["epoch", *columns], rows),
        note,
    )


def dice_by_class(rows: pd.DataFrame, classes: types.Classes) -> Markup:
    """The distribution of the images' final Dice by class, with quartiles."""
    rows = rows[rows.final_dice.notna()]
    present = [name for name in classes.names if (rows.label == name).any()]
    ticks = list(range(1, len(present) + 1))
    x = svg.Axis("", 0.5, len(present) + 0.5, (), digits=0)
    chart = svg.Chart(x, svg.Axis.unit("Dice"))
    lines = []
    for place, name in zip(ticks, present, strict=True):
        values = np.sort(rows.final_dice[rows.label == name].to_numpy())
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        _silhouette(chart, place, values)
        chart.line([place - 0.33, place + 0.33], [middle, middle], "median")
        for edge in (low, high):
            chart.line([place - 0.22, place + 0.22], [edge, edge], "quartile")
        chart.label(place, name)
        zero = int((values == 0).sum())
        lines.append([name, str(len(values)), number(low), number(middle), number(high), str(zero)])
    text = "; ".join(f"{line[0]}: median {line[3]} of {line[1]} images" for line in lines)
    return svg.figure(
        "Dice by class",
        chart.drawing("Dice of the test images by true class", text),
        [("bar c0", "images, by width"), ("median", "median"), ("quartile", "quartiles")],
        table(
            "Dice by class",
            ["true class", "images", "lower quartile", "median", "upper quartile", "Dice 0"],
            lines,
        ),
    )


def _silhouette(chart: svg.Chart, place: float, values: np.ndarray) -> None:
    """A mirrored histogram of Dice along the vertical axis; the fullest bin has the full width."""
    count, edges = np.histogram(values, bins=_DICE_BINS, range=(0, 1))
    half = 0.4 * count / count.max()
    for low, high, reach, n in zip(edges, edges[1:], half, count, strict=False):
        if n:
            box = (place - reach, place + reach), (low, high)
            chart.box(*box, "c0", title=f"{n} images, Dice {low:.2f} to {high:.2f}")


def reliability(rows: pd.DataFrame, classes: types.Classes) -> Markup:
    """Accuracy against stated confidence, before and after calibration."""
    rows = rows[rows.uncertainty.notna()]
    label = rows.label.map(classes.names.index).to_numpy()
    chart = svg.Chart(svg.Axis.unit("stated confidence"), svg.Axis.unit("accuracy"))
    chart.line([0, 1], [0, 1], "ideal")
    lines, errors = [], {}
    for when, prefix, style in (
        ("after", "calibrated", "c0"),
        ("before", "uncalibrated", "c1 dash"),
    ):
        probability = rows[[f"{prefix}_{name}" for name in classes.names]].to_numpy(float)
        errors[when] = calibration.expected_calibration_error(probability, label)
        found = calibration.reliability(probability, label)
        titles = []
        for i, (confidence, accuracy, n) in enumerate(
            zip(found.confidence, found.accuracy, found.count, strict=True)
        ):
            left, right = found.edges[i : i + 2]
            means = number(confidence), number(accuracy)
            titles.append(f"{when}: {n} images, confidence {means[0]}, accuracy {means[1]}")
            if n:
                lines.append([f"{when}, {left:.1f} to {right:.1f}", str(n), *means])
            if n and when == "after":
                share = n / len(label)
                chart.box((left, right), (0, share), "shade", title=f"{n} images")
        chart.line(found.confidence, found.accuracy, style)
        chart.points(found.confidence, found.accuracy, style.split()[0], titles=titles)
    text = (
        f"Expected calibration error {number(errors['before'])} before and "
        f"{number(errors['after'])} after calibration. On the diagonal, accuracy equals the stated "
        "confidence."
    )
    return svg.figure(
        "Reliability",
        chart.drawing("Reliability diagram", text),
        [
            ("c1 dash", "before calibration"),
            ("c0", "after"),
            ("ideal", "ideal"),
            ("bar shade", "share of the images"),
        ],
        table("Reliability by bin", ["confidence", "images", "mean confidence", "accuracy"], lines),
        text,
    )


def risk_coverage(rows: pd.DataFrame, kept: float) -> list[Markup]:
    """The error that remains when the most uncertain images are left out, one chart per error.

    Args:
      rows: rows of the run.
      kept: share of images at which the curves are read.
    """
    rows = rows[rows.uncertainty.notna()]
    errors = {"wrong": rows.wrong.to_numpy(float)}
    if "final_predicted" in rows:
        errors["wrong_class"] = (~rows.class_right).to_numpy(float)
    if "final_dice" in rows:
        errors["dice_loss"] = 1 - rows.final_dice.to_numpy()
    if len(errors) == 2:  # with one task, "wrong" adds nothing to that task's own error
        del errors["wrong"]
    return [
        _risk(name, error, rows.uncertainty.to_numpy(float), kept) for name, error in errors.items()
    ]


def _risk(name: str, error: np.ndarray, uncertainty: np.ndarray, kept: float) -> Markup:
    title, label = _ERRORS[name]
    curve = calibration.risk_coverage(error, uncertainty)
    best = calibration.risk_coverage(error, error)
    chart = svg.Chart(
        svg.Axis("share of the images kept", 0, 1, (0, 0.25, 0.5, 0.75, 1), digits=2),
        svg.Axis.around(label, [0, *curve.risk, *best.risk]),
    )
    drawn = np.unique(np.linspace(0, len(error) - 1, _DRAWN_POINTS).round().astype(int))
    whole = curve.at(1.0)
    chart.line([0, 1], [whole, whole], "ideal")
    chart.line(best.coverage[drawn], best.risk[drawn], "c2 dash")
    chart.line(curve.coverage[drawn], curve.risk[drawn], "c0")
    value = curve.at(kept)
    chart.points([kept], [value], "c0", titles=[f"{percent(kept, 0)} kept: {number(value)}"])
    shares = [k / 10 for k in range(1, 11)]
    lines = [
        [percent(share, 0), number(curve.at(share)), number(best.at(share))] for share in shares
    ]
    left_out = percent(1 - kept, 0)
    text = (
        f"{number(whole)} over all images, {number(value)} without the {left_out} most uncertain."
    )
    return svg.figure(
        title,
        chart.drawing(f"{title}: risk against coverage", text),
        [("c0", "by uncertainty"), ("c2 dash", "best possible order"), ("ideal", "random order")],
        table(title, ["images kept", "by uncertainty", "best order"], lines),
        text,
    )


def grid(charts: list[Markup]) -> Markup:
    """Charts side by side where there is room."""
    return element("div", charts, class_="charts")
