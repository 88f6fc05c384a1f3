"""The content of a table as grids of texts, before it becomes Markdown or LaTeX."""

from __future__ import annotations

import dataclasses
import math

from mtbus_jax import types
from mtbus_jax.evaluation import published
from mtbus_jax.metrics.meaning import meaning
from mtbus_jax.metrics.statistics import Comparison
from mtbus_jax.reproduce.facts import Facts
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Row, Section, Table

# Undefined for some images, so the number of images behind the mean is shown beside it.
_COUNTED = ("hausdorff", "recall", "precision")
_NOT_APPLICABLE = "—"


# Label of a line with published figures.
PUBLISHED = "published"
# Label of a line with our figures, their deviations with n like the published ones; see `summary`.
OURS_WITH_N = "± with n"


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything that is written about a table.

    Attributes:
      table: the table.
      sections: its sections, with the results of their rows.
      comparisons: tests of significance, with the titles of their sections.
      facts: about the runs.
    """

    table: Table
    sections: list[tuple[Section, list[RowResult]]]
    comparisons: list[tuple[str, Comparison]]
    facts: Facts

    @property
    def title(self) -> str:
        """Says what the table shows, and how it departs from the published recipe."""
        return self.facts.scaled(f"Table {self.table.number}: {self.table.title}")

    @property
    def missing(self) -> list[str]:
        """Names of the unfinished jobs that missing rows need."""
        results = [result for _, results in self.sections for result in results]
        return list(dict.fromkeys(name for result in results for name in result.missing))


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid of texts with a heading line; the first ``labels`` columns are names."""

    heading: list[str]
    lines: list[list[str]]
    labels: int = 1


def grids(content: Content) -> list[tuple[str, Grid]]:
    """The table's grids with their titles."""
    result = []
    for section, results in content.sections:
        if section.metrics:
            result.append((section.title, _figure_grid(section, results)))
        if section.confusion:
            result.append((section.title, _confusion_grid(results)))
    return result


def _figure_grid(section: Section, results: list[RowResult]) -> Grid:
    lines = []
    for result in results:
        cells = [_ours(result, metric) for metric in section.metrics]
        lines.append([result.row.label, *cells])
        reference = published_figures(result.row)
        cells = [_theirs(reference.get(metric)) for metric in section.metrics]
        if any(cells):
            if not result.missing:
                lines.append([OURS_WITH_N, *_ours_with_n(result, section.metrics, reference)])
            lines.append([PUBLISHED, *cells])
    return Grid(["", *(meaning(metric).title for metric in section.metrics)], lines)


def _ours(result: RowResult, metric: str) -> str:
    if result.missing:
        return "missing"
    figure = result.figures.get(metric)
    if figure is None:
        return _NOT_APPLICABLE
    text = _plus_minus(figure.mean, figure.sd)
    return f"{text} (n = {figure.images})" if metric in _COUNTED else text


def _ours_with_n(
    result: RowResult, metrics: tuple[str, ...], reference: dict[str, published.Figure]
) -> list[str]:
    """Our figures that have a published counterpart, with its definition of the deviation."""
    cells = []
    for metric in metrics:
        figure = result.figures.get(metric) if metric in reference else None
        cells.append("" if figure is None else _plus_minus(figure.mean, figure.sd_n))
    return cells


def _theirs(figure: published.Figure | None) -> str:
    return "" if figure is None else _plus_minus(figure.mean, figure.sd)


def published_figures(row: Row) -> dict[str, published.Figure]:
    """The published figures of the row, by metric."""
    run = row.runs[0]
    return published.figures(run.dataset, run.model, row.setting)


def _plus_minus(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} ± {sd:.3f}"


def _confusion_grid(results: list[RowResult]) -> Grid:
    lines = []
    for result in results:
        for code, name in enumerate(types.CLASS_NAMES):
            if result.missing:
                cells = ["missing"] * len(types.CLASS_NAMES) + [""]
            else:
                counts = result.confusion[code]
                cells = [_percent(count, counts.sum()) for count in counts] + [str(counts.sum())]
            lines.append([result.row.label, name, *cells])
    predicted = [f"as {name} (%)" for name in types.CLASS_NAMES]
    return Grid(["", "true class", *predicted, "images"], lines, labels=2)


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}" if total else _NOT_APPLICABLE
