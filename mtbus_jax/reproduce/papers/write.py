"""A paper's table as Markdown and CSV, with our predictions also scored by its rules."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from mtbus_jax import models, types
from mtbus_jax.escaping import Markdown, markdown, markdown_table
from mtbus_jax.reproduce import output
from mtbus_jax.reproduce.facts import NOTICE
from mtbus_jax.reproduce.papers import rules
from mtbus_jax.reproduce.papers.runs import Run, Spread, configuration_of
from mtbus_jax.reproduce.papers.tables import METRICS, Paper, PaperRow, PaperTable, Published

_NOT_RUN, _NOTHING = "not run", "—"


def write(
    paper: Paper, table: PaperTable, runs: dict[str, Run], folder: Path, *, command: str
) -> list[Path]:
    """Writes ``<paper>_table_<N>.md`` and ``.csv``.

    Args:
      paper: the paper.
      table: which of its tables.
      runs: our runs, by row.
      folder: for the files, made if missing.
      command: as given, to put into the table.

    Returns:
      The paths, in that order.

    Raises:
      UserError: if the folder cannot be written.
    """
    name = f"{table.paper}_table_{table.number}"
    counts = _parameters(paper, table) if "parameters" in table.metrics else {}
    texts = {
        f"{name}.md": to_markdown(paper, table, runs, counts, command=command),
        f"{name}.csv": to_csv(table, runs, counts),
    }
    return output.write_texts(folder, texts)


def _parameters(paper: Paper, table: PaperTable) -> dict[str, int]:
    """Parameter counts of our networks, by row, with as many classes as the paper has."""
    found = {}
    for row in table.rows:
        if row.fields is not None:
            config = configuration_of(paper, row)
            options = {k: v for k, v in config.model.items() if k != "name" and v is not None}
            module = models.create(
                config.model.name,
                tasks=tuple(config.tasks),
                classes=len(types.Classes.of(config.data)),
                **options,
            )
            shapes = models.init_shapes(module, (*config.data.image_size, 1))
            found[row.name] = models.parameter_count(shapes["params"])
    return found


def to_markdown(
    paper: Paper,
    table: PaperTable,
    runs: dict[str, Run],
    counts: dict[str, int],
    *,
    command: str,
) -> str:
    """The content of ``<paper>_table_<N>.md``."""
    lines = [f"# Table {table.number}: {table.title}", ""]
    lines += [
        "Ours: mean over the test images of a fold, then mean ± standard deviation (n − 1) over "
        "folds; precision, recall and F1 are means over classes. *Theirs*: the same predictions "
        "scored by the paper's rules, with n. Published figures are in italics.",
    ]
    if table.note:
        lines += ["", table.note]
    heading = ["", "", *(METRICS[metric] for metric in table.metrics)]
    body = [line for row in table.rows for line in _lines(table, row, runs.get(row.name), counts)]
    lines += ["", *markdown_table(heading, body, labels=2)]
    for row in table.rows:
        run = runs.get(row.name)
        if run and run.departures:
            text = markdown("; ".join(run.departures))
            lines += ["", f"> **{row.label}: not the paper's recipe**, by: {text}."]
        if run and run.not_measured:
            lines += ["", f"> {row.label} by their rules is not measured: "]
            lines[-1] += markdown(run.not_measured)
    lines += ["", "## Why the published figures are not comparable", ""]
    lines += [f"- {note}" for note in paper.notes]
    lines += _measured(table, runs) if paper.soft_borders else []
    lines += _harmonic(table, runs)
    lines += ["", "## Runs", "", "```", command, "```", ""]
    lines += [
        f"- {row.label}: `{run.folder}`, folds {', '.join(map(str, run.folds))}, {run.images} "
        "test images"
        for row in table.rows
        if (run := runs.get(row.name))
    ]
    return "\n".join([*lines, "", f"Published figures: {paper.citation}", "", NOTICE, ""])


def _lines(
    table: PaperTable, row: PaperRow, run: Run | None, counts: dict[str, int]
) -> list[list[str]]:
    """The lines of a row: published, ours, and ours by their rules where that is measured."""
    published = table.published(row)
    lines = []
    if published:
        cells = [_theirs(metric, published.get(metric)) for metric in table.metrics]
        lines.append([row.label, "published", *(Markdown(f"*{c}*") if c else "" for c in cells)])
    if row.fields is None:
        return lines
    if counts:
        ours = [f"{counts[row.name]:,}" if m == "parameters" else _NOTHING for m in table.metrics]
    elif run is None:
        ours = [_NOT_RUN] * len(table.metrics)
    else:
        ours = [_ours(metric, run.ours.get(metric)) for metric in table.metrics]
    lines.append([row.label, "ours", *ours])
    if run and run.theirs:
        cells = [_by_their_rules(metric, run) for metric in table.metrics]
        lines.append([row.label, "ours by their rules", *cells])
    return lines


def _digits(metric: str) -> int:
    return 2 if metric in ("hausdorff95", "surface_distance") else 3


def _plus_minus(metric: str, mean: float, sd: float | None) -> str:
    digits = _digits(metric)
    if math.isnan(mean):
        return _NOTHING
    has_sd = sd is not None and not math.isnan(sd)
    return f"{mean:.{digits}f} ± {sd:.{digits}f}" if has_sd else f"{mean:.{digits}f}"


def _theirs(metric: str, figure: Published | None) -> str:
    if figure is None:
        return ""
    if metric == "parameters":
        return f"{figure.mean:,.0f}"
    return _plus_minus(metric, *figure)


def _ours(metric: str, spread: Spread | None) -> str:
    return _NOTHING if spread is None else _plus_minus(metric, spread.mean, spread.sd)


def _by_their_rules(metric: str, run: Run) -> str:
    spread = run.theirs.get(metric) or run.ours.get(metric)
    return _NOTHING if spread is None else _plus_minus(metric, spread.mean, spread.sd_n)


def _measured(table: PaperTable, runs: dict[str, Run]) -> list[str]:
    """Dice of our own predictions by each rule."""
    body = []
    shares = []
    for row in table.rows:
        run = runs.get(row.name)
        if run is None or not run.dice_by_rule:
            continue
        dice = run.dice_by_rule
        gain = 100 * (dice["theirs"].mean - dice["ours"].mean)
        body.append(
            [row.label, *(f"{dice[rule].mean:.3f}" for rule in rules.RULES), f"{gain:+.1f}"]
        )
        shares.append(
            f"{row.label}: {100 * run.border:.1f} % of the lesions' area is soft border, and "
            f"{run.further_masks} of {run.images} test images have more than one mask."
        )
    if not body:
        return ["", "No prediction of ours has been scored by their rules: give --runs."]
    heading = ["Dice of the same predictions", *rules.RULES.values(), "points too high"]
    return ["", *markdown_table(heading, body), "", *shares]


def _harmonic(table: PaperTable, runs: dict[str, Run]) -> list[str]:
    """F1 beside the harmonic mean of precision and recall, which bounds it."""
    if "f1" not in table.metrics:
        return []
    body = []
    for row in table.rows:
        published, run = table.published(row), runs.get(row.name)
        for name, found in (("published", published), ("ours", run.ours if run else {})):
            if {"precision", "recall", "f1"} <= found.keys():
                precision, recall, f1 = (found[m].mean for m in ("precision", "recall", "f1"))
                bound = 2 * precision * recall / (precision + recall)
                verdict = "impossible" if f1 > bound + 5e-5 else "possible"
                body.append([row.label, name, f"{f1:.4f}", f"{bound:.4f}", verdict])
    heading = ["", "", "F1", "at most, by precision and recall", ""]
    return ["", *markdown_table(heading, body, labels=2)]


def to_csv(table: PaperTable, runs: dict[str, Run], counts: dict[str, int]) -> str:
    """The content of ``<paper>_table_<N>.csv``: one line per figure; unknown is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["paper", "table", "row", "metric", "published_mean", "published_sd", "mean", "sd",
         "their_rules_mean", "their_rules_sd_n", "folds", "images"]
    )  # fmt: skip
    for row in table.rows:
        published, run = table.published(row), runs.get(row.name)
        for metric in table.metrics:
            ours = run.ours.get(metric) if run else None
            theirs = run.theirs.get(metric) if run else None
            figures = [
                *(published.get(metric) or (None, None)),
                *((ours.mean, ours.sd) if ours else (counts.get(row.name), None)),
                *((theirs.mean, theirs.sd_n) if theirs else (None, None)),
                *((len(run.folds), run.images) if run else (None, None)),
            ]
            cells = ["" if v is None or math.isnan(v) else v for v in figures]
            writer.writerow([table.paper, table.number, row.name, metric, *cells])
    return buffer.getvalue()
