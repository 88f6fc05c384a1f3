"""The parts of a run's page around tables and charts: warnings, corrections, trust, setup."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtbus_jax.evaluation import trust
from mtbus_jax.evaluation.markdown import plus_minus
from mtbus_jax.evaluation.remarks import remarks
from mtbus_jax.metrics.meaning import KINDS, meaning
from mtbus_jax.report import charts, markup
from mtbus_jax.report.markup import Child, Markup, element, number, percent
from mtbus_jax.report.run import EMPTIED, RENAMED, Run
from mtbus_jax.training import run_folder


def section(name: str, title: str, *children: Child) -> Markup:
    """A part of the page that the navigation can reach."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def missing(what: str, mend: str) -> Markup:
    """Says that something is missing and how to get it."""
    return element(
        "p", element("strong", "Not in this run folder: "), what, " ", mend, class_="missing"
    )


def warnings(summary: dict[str, Any]) -> list[Markup]:
    """What a reader must know before the figures."""
    found = []
    for remark in remarks(summary):
        text = _with_code(remark.text)
        if remark.items:
            text.append(element("ul", [element("li", element("code", i)) for i in remark.items]))
        if remark.title:
            title = element("strong", f"{remark.title}."), " "
            found.append(element("div", *title, *text, class_="callout"))
        else:
            found.append(element("p", *text, class_="callout plain"))
    return found


def _with_code(text: str) -> list[Child]:
    """Sentences in which text between backquotes becomes code."""
    parts = text.split("`")
    return [element("code", part) if i % 2 else part for i, part in enumerate(parts)]


def tiles(run: Run) -> Markup:
    """The few figures to read first: those of the final result, with the published ones."""
    kind = list(run.summary["results"])[-1]
    figures = run.summary["results"][kind]["figures"]
    items = []
    for name in ("dsc_average", "acc", "f1_weighted"):
        if name not in figures:
            continue
        reference = figures[name]["published"]
        beside = f"published {plus_minus(reference)}" if reference else "nothing published"
        items.append(
            element(
                "div",
                element("dt", meaning(name).title),
                element("dd", plus_minus(figures[name]), class_="value"),
                element("dd", f"{KINDS[kind]}; {beside}", class_="note"),
            )
        )
    if run.refines:
        changed = int((run.rows.correction != "").sum())
        items.append(
            element(
                "div",
                element("dt", "Corrected by refining"),
                element("dd", f"{changed} of {len(run.rows)}", class_="value"),
                element("dd", element("a", "what it changed", href="#corrections"), class_="note"),
            )
        )
    return element("dl", items, class_="tiles")


def corrections(run: Run) -> Markup:
    """What refining changed, and whether that was an improvement."""
    rows = run.rows
    lines = []
    for correction in (EMPTIED, RENAMED):
        found = rows[rows.correction == correction]
        better, worse = _effect(found)
        numbers = len(found), better, worse, len(found) - better - worse
        lines.append([correction, *map(str, numbers)])
    text = (
        "Refining empties the mask of an image classified normal and calls an image with an empty "
        "mask normal. It changed "
        f"{int((rows.correction != '').sum())} of {len(rows)} images; each is marked in the list "
        "of cases, with the prediction before and after."
    )
    return markup.join(
        element("p", text),
        markup.table(
            "Automatic corrections",
            ["correction", "images", "for the better", "for the worse", "neither"],
            lines,
        ),
    )


def _effect(rows: pd.DataFrame) -> tuple[int, int]:
    """Images that a correction brought nearer to the truth, and further from it."""
    gain = np.sign(rows.final_dice - rows.dice)
    gain += (rows.final_predicted == rows.label).astype(int) - (rows.predicted == rows.label)
    return int((gain > 0).sum()), int((gain < 0).sum())


def trust_section(run: Run) -> list[Child]:
    """Reliability, risk against coverage, prediction sets and warnings."""
    if not run.has_trust or run.trust is None:
        mend = "main.py --mode=evaluate on the run folder writes them."
        return [missing("trust.csv and trust.json, with uncertainties and warnings.", mend)]
    unknown = int(run.rows.uncertainty.isna().sum())
    measured = run.trust["measured"]["test"]
    drawn = charts.risk_coverage(run.rows, measured["kept"])
    if run.has_classes:
        drawn.insert(0, charts.reliability(run.rows, run.classes))
    images = sum(fold["validation_images"] for fold in run.trust["folds"].values())
    text = (
        f"Fitted on the {images} validation images of the folds, separately for each fold. The "
        "charts show the test images."
    )
    tables = element("div", _trust_facts(run), _refining(run.trust), class_="beside")
    note = f"Wrong: another class, or a mask with Dice below {trust.WRONG_DICE}."
    if unknown:
        text += (
            f" {unknown} of {len(run.rows)} test images are in no row of trust.csv and left out."
        )
    return [element("p", text), charts.grid(drawn), tables, element("p", note, class_="note")]


def _trust_facts(run: Run) -> Markup:
    rows, measured = run.rows[run.rows.uncertainty.notna()], run.trust["measured"]["test"]
    warned, calm = rows.wrong[rows.warning], rows.wrong[~rows.warning]
    facts = [
        ["cases with a warning", percent(len(warned) / len(rows))],
        ["wrong among those with a warning", percent(warned.mean()) if len(warned) else "–"],
        ["wrong among those without", percent(calm.mean()) if len(calm) else "–"],
    ]
    if "conformal" in measured:
        sets, aim = measured["conformal"], percent(1 - run.trust["error_rate"], 0)
        facts += [
            [f"prediction sets that hold the true class (aim: {aim})", percent(sets["coverage"])],
            ["classes in a prediction set, on average", number(sets["size"], 2)],
        ]
    return markup.table("Warnings and prediction sets", ["share or mean", "test images"], facts)


def _refining(content: dict[str, Any]) -> Markup | None:
    parts = content["measured"]["validation"], content["measured"]["test"]
    if any("refining" not in part for part in parts):
        return None
    titles = {"raw": "none", "hard": "hard rules", "probable": "most probable pair"}
    rows = [
        [title, *(number(part["refining"][kind][f]) for part in parts for f in ("dsc", "acc"))]
        for kind, title in titles.items()
    ]
    header = ["refining", "validation DSC", "validation accuracy", "test DSC", "test accuracy"]
    return markup.table("Ways of refining", header, rows)


def setup(run: Run) -> list[Child]:
    """Configuration, environment, and the sizes of the splits."""
    fields = run_folder.flatten(run.config)
    parts = [
        markup.disclosure(
            "Configuration",
            markup.table("Configuration", ["field", "value"], _pairs(fields), class_="pairs"),
        )
    ]
    if run.environment is None:
        parts.append(missing("environment.json.", "Continuing the run writes it."))
    else:
        values = run_folder.flatten(run.environment)
        parts.append(
            markup.disclosure(
                "Environment",
                markup.table("Environment", ["what", "value"], _pairs(values), class_="pairs"),
            )
        )
    if run.splits is None:
        parts.append(missing("splits.json.", "Continuing the run writes it."))
    else:
        rows = [
            [
                str(fold),
                *(str(len(run.splits["folds"][fold][p])) for p in ("train", "validation", "test")),
                str(run.splits["leaking_test_images"][fold]),
            ]
            for fold in run.folds
        ]
        header = ["fold", "training", "validation", "test", "leaking test images"]
        parts.append(markup.disclosure("Splits", markup.table("Images by fold", header, rows)))
    return parts


def _pairs(values: dict[str, Any]) -> list[list[str]]:
    return [[key, _plain(value)] for key, value in values.items()]


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
