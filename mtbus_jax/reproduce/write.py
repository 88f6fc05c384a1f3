"""A table as files: Markdown, CSV and LaTeX."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import pandas as pd

from mtbus_jax import types
from mtbus_jax.escaping import Markdown, markdown_table
from mtbus_jax.metrics.statistics import CORRECT, DICE
from mtbus_jax.reproduce import output
from mtbus_jax.reproduce.facts import Facts
from mtbus_jax.reproduce.latex import to_latex
from mtbus_jax.reproduce.layout import PUBLISHED, Content, Grid, grids, published_figures
from mtbus_jax.reproduce.results import RowResult, Statistic


def write_table(content: Content, folder: Path) -> list[Path]:
    """Writes ``table_<N>.md``, ``.csv``, ``.tex`` and ``table_<N>_significance.csv``.

    Returns:
      The paths, in that order.

    Raises:
      UserError: if the folder cannot be written.
    """
    name = f"table_{content.table.number}"
    texts = {
        f"{name}.md": to_markdown(content),
        f"{name}.csv": to_csv(content),
        f"{name}.tex": to_latex(content),
        f"{name}_significance.csv": significance_csv(content),
    }
    return output.write_texts(folder, texts)


def to_markdown(content: Content) -> str:
    """The content of ``table_<N>.md``."""
    facts = content.facts
    lines = [f"# {content.title}", ""]
    lines += [
        f"{facts.split.capitalize()} split, folds {', '.join(map(str, facts.folds))}. A figure is "
        "the mean over the test images of a fold, then mean ± standard deviation over folds; the "
        "published one stands below ours. Our deviation divides by n − 1; the line ± with n "
        "divides by n, as the published ones do if they came from the released script.",
    ]
    if content.table.note:
        lines += ["", content.table.note]
    warnings = list(facts.warnings)
    if content.missing:
        warnings.append(f"**Missing:** {'; '.join(content.missing)}.")
    for warning in warnings:
        lines += ["", f"> {warning}"]
    for title, grid in grids(content):
        if title:
            lines += ["", f"## {title}"]
        lines += ["", *_markdown_grid(grid)]
    lines += ["", "## Significance", "", *_significance(content)]
    lines += ["", "## Runs", "", *facts.origin]
    return "\n".join(lines)


def _markdown_grid(grid: Grid) -> list[str]:
    lines = [
        [Markdown(f"*{cell}*") if cell == PUBLISHED else cell for cell in row] for row in grid.lines
    ]
    return markdown_table(grid.heading, lines, labels=grid.labels)


_MEASURES = {DICE: "Dice", CORRECT: "correct class"}
_TESTED = ["measure", "images", "difference", "low", "high", "effect", "p_value", "p_holm"]


def _significance(content: Content) -> list[str]:
    if not content.comparisons:
        return ["No two rows to compare."]
    lines = []
    for section, c in content.comparisons:
        cells = [f"{section}: " * bool(section) + f"{c.a} − {c.b}"]
        cells += [_MEASURES[c.measure], str(c.images), f"{c.difference:+.3f}"]
        cells += [f"{c.low:+.3f} to {c.high:+.3f}", f"{c.effect:+.3f}"]
        lines.append([*cells, _p_value(c.p_value), _p_value(c.p_holm)])
    heading = ["", "of", "images", "difference", "95 % interval", "effect", "p", "p (Holm)"]
    return [
        "Paired over the test images. Dice: Wilcoxon signed-rank test, effect = matched-pairs "
        "rank-biserial correlation. Correct class: exact McNemar test, effect = Cohen's g with a "
        "sign. Interval of the mean difference: bootstrap within folds. p-values are corrected "
        f"for the {len(content.comparisons)} comparisons of this table by Holm's method. Images of "
        "a fold share one network, so none of this measures how much another training would "
        "differ.",
        "",
        *_markdown_grid(Grid(heading, lines)),
    ]


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def to_csv(content: Content) -> str:
    """The content of ``table_<N>.csv``: one line per figure; NaN is an empty cell."""
    rows = []
    for section, results in content.sections:
        for result in results:
            row, run = result.row, result.row.runs[0]
            names = {"table": content.table.number, "section": section.title, "row": row.label}
            names |= {"dataset": run.dataset, "model": run.model, "setting": row.setting}
            reference = published_figures(row)
            for metric in section.metrics:
                figure = result.figures.get(metric)
                if figure is None and not result.missing:
                    continue
                figure = figure or Statistic(math.nan, math.nan, 0, 0)
                theirs = reference.get(metric)
                rows.append(
                    {
                        **names,
                        "metric": metric,
                        **dataclasses.asdict(figure),
                        "published_mean": theirs.mean if theirs else math.nan,
                        "published_sd": theirs.sd if theirs else math.nan,
                    }
                )
            if section.confusion:
                rows += [names | cell for cell in _confusion_cells(result, content.facts)]
    return _csv(rows)


def _confusion_cells(result: RowResult, facts: Facts) -> list[dict]:
    """Percentages of the true class, all folds pooled, so without a standard deviation."""
    if result.missing:
        return []
    cells = []
    for true, counts in zip(types.CLASS_NAMES, result.confusion, strict=True):
        for predicted, count in zip(types.CLASS_NAMES, counts, strict=True):
            cells.append(
                {
                    "metric": f"percent_{true}_as_{predicted}",
                    "mean": 100 * count / counts.sum() if counts.sum() else math.nan,
                    "folds": len(facts.folds),
                    "images": int(counts.sum()),
                }
            )
    return cells


def significance_csv(content: Content) -> str:
    """The content of ``table_<N>_significance.csv``: one line per comparison."""
    rows = [
        {"section": section, "row": c.b, "reference": c.a}
        | {name: getattr(c, name) for name in _TESTED}
        for section, c in content.comparisons
    ]
    return _csv(rows, ["section", "row", "reference", *_TESTED])


def _csv(rows: list[dict], columns: list[str] | None = None) -> str:
    buffer = io.StringIO()
    pd.DataFrame(rows, columns=columns).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()
