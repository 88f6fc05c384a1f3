"""The case browser's data and controls; ``assets/cases.js`` and its neighbours drive it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mtbus_jax.escaping import json_element
from mtbus_jax.evaluation import trust
from mtbus_jax.report.markup import Markup, element
from mtbus_jax.report.pictures import BLOCK, Pictures
from mtbus_jax.report.run import EMPTIED, RENAMED, Run

# Decimal places of numbers in the page.
_DIGITS = 4

Options = list[tuple[str, str]]


def data(run: Run, pictures: Pictures | None) -> dict[str, Any]:
    """Everything the script needs except pictures: columns with one entry per test image.

    Classes are codes, and undefined numbers are None. Columns that the run lacks are left out.
    """
    rows = run.rows
    columns: dict[str, list] = {"uid": rows.uid.tolist(), "fold": rows.fold.astype(int).tolist()}
    for name, column in {
        "label": "label",
        "raw_class": "predicted",
        "final_class": "final_predicted",
        "probable_class": "probable_predicted",
    }.items():
        if column in rows:
            codes = rows[column].map({name: i for i, name in enumerate(run.classes.names)})
            columns[name] = [None if np.isnan(code) else int(code) for code in codes]
    for name, column in {
        "raw_dice": "dice",
        "final_dice": "final_dice",
        "probable_dice": "probable_dice",
        "hausdorff": "refined_hausdorff" if run.refines else "hausdorff",
        "uncertainty": "uncertainty",
        "presence": "presence",
    }.items():
        if column in rows:
            columns[name] = _rounded(rows[column])
    for name in ("wrong", "warning"):
        if name in rows:
            columns[name] = rows[name].astype(int).tolist()
    for name in ("correction", "prediction_set"):
        if name in rows:
            columns[name] = rows[name].tolist()
    kind = "calibrated" if f"calibrated_{run.classes.names[0]}" in rows else "probability"
    if run.has_classes:
        columns["probability"] = [
            list(each)
            for each in zip(
                *(_rounded(rows[f"{kind}_{c}"]) for c in run.classes.names), strict=True
            )
        ]
    height, width = (0, 0) if pictures is None else pictures.truth.shape[1:]
    return {
        "classes": list(run.classes.names),
        "height": height,
        "width": width,
        "block": BLOCK,
        "pictures": pictures is not None,
        "predictions": pictures is not None and pictures.prediction is not None,
        "calibrated": kind == "calibrated",
        "goodDice": trust.WRONG_DICE,
        "columns": columns,
    }


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), _DIGITS) for v in values]


def blocks(run: Run, pictures: Pictures | None) -> Iterator[Markup]:
    """The data as script elements that browsers do not run: columns, then blocks of pictures."""
    yield Markup(json_element("case-data", data(run, pictures)))
    if pictures is not None:
        for number, block in enumerate(pictures.blocks()):
            yield Markup(json_element(f"pictures-{number}", block))


def filters(run: Run) -> list[Markup]:
    """The controls that choose cases, as far as this run has data for them."""
    names: Options = [(name, name) for name in run.classes.names]
    shown = [_select("class", "True class", [("", "all"), *names])]
    if run.has_classes:
        shown.append(_select("predicted", "Predicted class", [("", "all"), *names]))
    shown.append(_select("correct", "Correctness", [("", "all"), *_correctness(run)]))
    if run.has_trust:
        warning = [("", "all"), ("yes", "with a warning"), ("no", "without")]
        shown.append(_select("warning", "Warning", warning))
    if run.refines:
        changed = [("any", "corrected"), ("emptied", EMPTIED), ("renamed", RENAMED)]
        shown.append(_select("correction", "Correction", [("", "all"), *changed, ("no", "none")]))
    if len(run.folds) > 1:
        folds = [(str(fold), f"fold {fold}") for fold in run.folds]
        shown.append(_select("fold", "Fold", [("", "all"), *folds]))
    return shown


def _correctness(run: Run) -> Options:
    options: Options = [("right", "right"), ("wrong", "wrong in class or mask")]
    if run.has_classes and run.has_masks:
        options += [("class_right", "class right"), ("class_wrong", "class wrong")]
        options += [
            ("mask_good", f"Dice {trust.WRONG_DICE} or more"),
            ("mask_poor", f"Dice below {trust.WRONG_DICE}"),
        ]
    return options


def order(run: Run) -> Markup:
    """The control that sorts."""
    options: Options = [("", "as in the dataset")]
    if run.has_masks:
        options += [("dice", "lowest Dice first"), ("-dice", "highest Dice first")]
    if run.has_trust:
        options += [
            ("-uncertainty", "most uncertain first"),
            ("uncertainty", "least uncertain first"),
        ]
    return _select("sort", "Sort", options)


def _select(name: str, label: str, options: Options) -> Markup:
    return element(
        "label",
        element("span", label),
        element("select", [element("option", text, value=v) for v, text in options], name=name),
    )


def panels(run: Run, pictures: Pictures) -> list[Markup]:
    """The pictures of a case: image, truth, prediction and, with both tasks, the refined one."""
    shown = [("image", "Image"), ("truth", "Truth")]
    if pictures.prediction is not None:
        shown.append(("prediction", "Prediction"))
        if run.refines:
            shown.append(("refined", "Refined"))
    return [
        element(
            "figure",
            element("canvas", role="img", aria_label=title),
            element("figcaption", element("b", title), " ", element("span")),
            class_="panel",
            data_layer=name,
        )
        for name, title in shown
    ]
