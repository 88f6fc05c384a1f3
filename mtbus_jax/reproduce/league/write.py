"""The league table as files: Markdown, two CSV files, and a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd

from mtbus_jax.escaping import markdown, markdown_table
from mtbus_jax.reproduce import output
from mtbus_jax.reproduce.facts import NOTICE
from mtbus_jax.reproduce.league import about as about_lib
from mtbus_jax.reproduce.league import costs, picture, results
from mtbus_jax.reproduce.league.entries import Entry
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.reproduce.league.results import KINDS, Row, Spread

_TITLES = {"dsc_average": "DSC", "acc": "accuracy"}
_NOT_DONE, _NOT_APPLICABLE = "not done yet", "—"
_TOLD = 3  # missing jobs of a row that are named
# Columns of the CSV file.
_BEHIND = ("dsc_behind_first", "dsc_behind_low", "dsc_behind_high")
_COST = ("parameters", "gflop", "train_images_per_second", "predict_ms", "train_memory_bytes")
_COST += ("machine", "load")


def write(league: League, *, command: str, not_measured: dict[Entry, str]) -> list[Path]:
    """Writes ``league_<dataset>.md``, ``.csv``, ``_runs.csv`` and ``.svg`` from what is done.

    Args:
      league: the rows and their folder.
      command: as given, to put into the table.
      not_measured: why a row's cost could not be measured.

    Returns:
      The paths, in that order; without a finished row no picture.

    Raises:
      UserError: if a file of a run folder is broken, or the folder cannot be written.
    """
    rows = results.rows(league)
    about = about_lib.gather(league, rows)
    drawing = picture.draw(league, rows)
    texts = {
        f"{league.name}.md": to_markdown(
            league, rows, about, command=command, not_measured=not_measured, pictured=bool(drawing)
        ),
        f"{league.name}.csv": to_csv(league, rows),
        f"{league.name}_runs.csv": runs_csv(rows),
    }
    if drawing:
        texts[f"{league.name}.svg"] = drawing
    return output.write_texts(league.workdir, texts)


def to_markdown(
    league: League,
    rows: list[Row],
    about: about_lib.About,
    *,
    command: str,
    not_measured: dict[Entry, str],
    pictured: bool,
) -> str:
    """The content of ``league_<dataset>.md``."""
    lines = [f"# League table: networks under one recipe on {league.dataset}", ""]
    lines += markdown_table(["", ""], list(about.facts.items()), labels=2)
    for warning in about.warnings:
        lines += ["", f"> {warning}"]
    lines += ["", *_table(league, rows), "", *_how_to_read(rows)]
    if pictured:
        lines += ["", f"![Accuracy against cost]({league.name}.svg)"]
    unfinished = [row for row in rows if row.missing]
    if unfinished:
        lines += ["", "## Not done yet", ""]
        lines += [f"- {markdown(row.entry.name)}: {markdown(_in_short(row))}" for row in unfinished]
    if league.left_out:
        lines += ["", "## Left out", ""]
        lines += [f"- {markdown(e.name)}: {markdown(why)}" for e, why in league.left_out.items()]
    if not_measured:
        lines += ["", "## Not measured", ""]
        lines += [f"- {markdown(e.name)}: {markdown(why)}" for e, why in not_measured.items()]
    lines += ["", "## Recipe", "", _recipe_in_words(league), ""]
    lines += markdown_table(["field", "here", "base.py"], about.recipe, labels=3)
    lines += ["", "## Runs", "", "```", command, "```", ""]
    lines += [f"- `{name}`" for name in about.runs]
    lines += ["", *(f"Trained on {line}." for line in about.trained_on)]
    return "\n".join([*lines, "", NOTICE, ""])


def _in_short(row: Row) -> str:
    """The missing jobs of a row: failures first, and only a few."""
    told = sorted(row.missing, key=lambda text: "failed" not in text)
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return "; ".join(told[:_TOLD]) + more


def _recipe_in_words(league: League) -> str:
    rate = league.recipe.train.encoder_rate
    text = "Every field that differs from `configs/base.py`, the same for all rows."
    if rate != 1:
        text += (
            f" Encoders that start from ImageNet weights learn at {rate} of the rate of the rest; "
            "where all weights are drawn, all learn at the same rate."
        )
    return text


def _table(league: League, rows: list[Row]) -> list[str]:
    tasks = league.recipe.tasks
    figures = [f for f, task in zip(results.FIGURES, ("seg", "cls"), strict=True) if task in tasks]
    columns = [(figure, kind) for figure in figures for kind in KINDS]
    heading = ["network", "first weights", "runs"]
    heading += [_TITLES[figure] + (", raw" if kind == "raw" else "") for figure, kind in columns]
    heading += ["DSC behind first (95 %)", "parameters", "GFLOP", "training images/s"]
    heading += ["prediction ms", "training memory GB"]
    lines = []
    for row in rows:
        cells = [row.entry.name, row.entry.origin, _runs(league, row)]
        if row.seeds:
            cells += [_spread(row.spread(*column)) for column in columns]
            cells.append(_behind(rows[0], row))
        else:
            cells += [_NOT_DONE] * (len(columns) + 1)
        lines.append(cells + _cost(row))
    return markdown_table(heading, lines, labels=2)


def _runs(league: League, row: Row) -> str:
    wanted = len(league.seeds) * len(league.folds)
    done = len(row.seeds) * len(league.folds)
    return str(done) if done == wanted else f"{done} of {wanted}"


def _spread(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return _NOT_APPLICABLE
    if math.isnan(spread.sd_seeds):
        return f"{spread.mean:.3f}"
    return f"{spread.mean:.3f} ± {spread.sd_seeds:.3f}"


def _behind(first: Row, row: Row) -> str:
    found = None if row is first else results.behind(first, row)
    if found is None:
        return _NOT_APPLICABLE
    difference, low, high = found
    return f"{difference:.3f} ({low:.3f} to {high:.3f})"


def _cost(row: Row) -> list[str]:
    if row.cost is None:
        return ["not measured", *[_NOT_APPLICABLE] * 4]
    cost = row.cost
    return [
        f"{cost.parameters:,}",
        f"{cost.gflop:.3g}",
        f"{cost.train_images_per_second:.3g}",
        f"{cost.predict_ms:.3g}",
        f"{cost.train_memory_bytes / 1e9:.3g}",
    ]


def _how_to_read(rows: list[Row]) -> list[str]:
    machines = list(dict.fromkeys(row.cost.machine for row in rows if row.cost))
    lines = [
        "A figure is the mean over the test images of a fold, then over folds, then mean ± "
        "standard deviation (n − 1) over seeds; only seeds whose folds are all done count. Figures "
        "are after refining, *raw* is before. *DSC behind first*: mean over the test images of the "
        "first row's Dice minus this row's, with a bootstrap interval within folds, so about other "
        "images, not other seeds.",
        "",
        "GFLOP: XLA's cost analysis of a forward pass of one image, a multiplication and an "
        "addition counted as two, the same on every machine. Prediction: one image by itself, one "
        "pass; averaging over flipped versions multiplies it. Training images/s: optimiser steps "
        "alone. Training memory: XLA's plan of one step at this batch, without the dataset.",
    ]
    if machines:
        lines += ["", f"Times and memory measured on {'; and on '.join(machines)}."]
    busy = [row.entry.name for row in rows if row.cost and row.cost.load > costs.BUSY]
    if busy:
        lines += [
            "",
            f"> **Measured on a busy machine:** times of {', '.join(busy)} are too long, since "
            "other work ran as well; the CSV file has the load. Remove `costs/` to measure again.",
        ]
    if len(machines) > 1:
        lines += ["", "> **Measured on more than one machine:** the CSV file names each row's."]
    return lines


def to_csv(league: League, rows: list[Row]) -> str:
    """The content of ``league_<dataset>.csv``: one line per row, left-out ones too."""
    lines = []
    for row in rows:
        line = _names(league, row.entry)
        line["state"] = _state(row)
        line |= {"seeds": len(row.seeds), "runs": len(row.seeds) * len(league.folds)}
        for figure in results.FIGURES:
            for kind in KINDS:
                spread = row.spread(figure, kind)
                if spread is not None:
                    name = f"{figure}_{kind}"
                    line |= {
                        f"{name}_mean": spread.mean,
                        f"{name}_sd_seeds": spread.sd_seeds,
                        f"{name}_sd_runs": spread.sd_runs,
                    }
        if row.seeds and row is not rows[0] and (found := results.behind(rows[0], row)):
            line |= zip(_BEHIND, found, strict=True)
        if row.cost:
            line |= {name: getattr(row.cost, name) for name in _COST}
        line["reason"] = "; ".join(row.missing)
        lines.append(line)
    for entry, why in league.left_out.items():
        lines.append(_names(league, entry) | {"state": "left out", "reason": why})
    return _csv(lines, _columns())


def _state(row: Row) -> str:
    if not row.missing:
        return "done"
    return "partly done" if row.seeds else _NOT_DONE


def _columns() -> list[str]:
    """Columns of the CSV file, the same whatever is done."""
    figures = [f"{figure}_{kind}" for figure in results.FIGURES for kind in KINDS]
    return [
        *("dataset", "network", "model", "first_weights", "state", "seeds", "runs"),
        *(f"{name}_{part}" for name in figures for part in ("mean", "sd_seeds", "sd_runs")),
        *_BEHIND,
        *_COST,
        "reason",
    ]


def _names(league: League, entry: Entry) -> dict[str, str]:
    return {
        "dataset": league.dataset,
        "network": entry.name,
        "model": entry.model,
        "first_weights": entry.origin,
    }


def runs_csv(rows: list[Row]) -> str:
    """The content of ``league_<dataset>_runs.csv``: one line per network, seed and fold."""
    frames = [row.runs.assign(network=row.entry.name) for row in rows if len(row.runs)]
    if not frames:
        return "network,seed,fold\n"
    runs = pd.concat(frames, ignore_index=True)
    names = ["network", "seed", "fold"]
    return _csv(runs[[*names, *(name for name in runs if name not in names)]])


def _csv(lines, columns: list[str] | None = None) -> str:
    buffer = io.StringIO()
    # Keeps whole numbers whole in columns with missing values.
    table = pd.DataFrame(lines, columns=columns).convert_dtypes()
    table.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()
