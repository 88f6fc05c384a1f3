"""A comparison as Markdown, for the terminal, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtbus_jax import files
from mtbus_jax.data import places
from mtbus_jax.escaping import markdown, markdown_table
from mtbus_jax.evaluation.markdown import plus_minus
from mtbus_jax.metrics.meaning import KINDS, meaning
from mtbus_jax.metrics.statistics import CORRECT, DICE, Comparison
from mtbus_jax.pages import NOTICE
from mtbus_jax.report import markup
from mtbus_jax.report.compare import ComparedRuns
from mtbus_jax.report.markup import Markup, element, number, p_value
from mtbus_jax.report.page import header, page
from mtbus_jax.report.results import meanings, scale, scale_legend
from mtbus_jax.report.sections import section
from mtbus_jax.training import run_folder

# Where the data are; differences have no meaning.
_PLACES = {f"data.{place}" for place in places.PLACES}
_MEASURES = {DICE: "Dice (Wilcoxon signed-rank)", CORRECT: "class right (McNemar)"}
_HEADER = ["comparison", "images", "a", "b", "a − b", "95 % interval", "effect", "p", "p (Holm)"]
_NOTES = (
    "The tests compare the final answers of the runs, refined where a run has both tasks.",
    "a and b are taken over the common images: mean Dice, or the share with the right class.",
    "The interval is a bootstrap over images within folds.",
    "Effect: rank-biserial correlation for Dice, Cohen's g with a sign for classes; positive "
    "where a is better.",
    "p (Holm) is corrected for all tests of this table. The tests compare two trained networks on "
    "these images, not two methods: training again with another seed changes the means too.",
)


def write_comparison(comparison: ComparedRuns, path: Path) -> None:
    """Writes the comparison as one HTML file.

    Raises:
      UserError: if it cannot be written.
    """
    files.write_text(path, document(comparison))


def to_markdown(comparison: ComparedRuns) -> str:
    """The comparison as Markdown."""
    dataset = comparison.runs[0].summary["dataset"]
    lines = [f"# Comparison of {len(comparison.names)} runs on {markdown(dataset)}", ""]
    lines += [line for warning in comparison.warnings for line in (f"> {markdown(warning)}", "")]
    for kind in KINDS:
        rows = _figure_rows(comparison, kind)
        if rows:
            lines += [f"## Figures, {KINDS[kind]}", ""]
            lines += [*markdown_table(["figure", *comparison.names], rows), ""]
    if comparison.tests:
        lines += ["## Paired tests", ""]
        rows = [[_comparison_name(t), *_test_cells(t)] for t in comparison.tests]
        lines += [*markdown_table(_HEADER, rows), ""]
        lines += [*_NOTES, ""]
    return "\n".join([*lines, f"{NOTICE}.", ""])


def _figure_rows(comparison: ComparedRuns, kind: str) -> list[list[str]]:
    """Every figure of a kind of result: title, then mean ± standard deviation of each run."""
    found = [run.summary["results"].get(kind, {}).get("figures", {}) for run in comparison.runs]
    return [
        [meaning(name).title, *_counted([each.get(name) for each in found], comparison)]
        for name in _names(found)
    ]


def _comparison_name(test: Comparison) -> str:
    return f"{_MEASURES[test.measure]}: {test.a} (a), {test.b} (b)"


def _test_cells(test: Comparison) -> list[str]:
    return [
        str(test.images),
        number(test.mean_a),
        number(test.mean_b),
        _signed(test.difference),
        f"{_signed(test.low)} to {_signed(test.high)}",
        _signed(test.effect),
        p_value(test.p_value),
        p_value(test.p_holm),
    ]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def document(comparison: ComparedRuns) -> str:
    """The comparison as an HTML document."""
    runs, names = comparison.runs, comparison.names
    parts = [("runs", "Runs", [_run_table(comparison), _differing_fields(comparison)])]
    for kind, title in KINDS.items():
        table = _figure_table(comparison, kind)
        if table:
            parts.append((f"figures-{kind}", f"Figures, {title}", [table]))
    shown = [n for run in runs for kind in run.summary["results"].values() for n in kind["figures"]]
    parts[-1][2].append(meanings(shown))
    parts.append(("tests", "Paired tests", _tests(comparison)))
    if comparison.changed:
        parts.append(("changed", "Images that differ most", _changed(comparison)))
    callouts = [element("p", warning, class_="callout") for warning in comparison.warnings]
    return page(
        f"Comparison: {', '.join(names)}",
        header(
            f"Comparison of {len(names)} runs",
            [f"On {runs[0].summary['dataset']}: {', '.join(names)}"],
            [(name, title) for name, title, _ in parts],
        ),
        element("main", callouts, [section(*part) for part in parts], id="content"),
    )


def _run_table(comparison: ComparedRuns) -> Markup:
    rows = []
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        summary = run.summary
        departures = summary["departures_from_published_recipe"]
        rows.append(
            [
                name,
                summary["model"],
                " + ".join(summary["tasks"]),
                " × ".join(map(str, summary["image_size"])),
                f"{summary['split']}, {len(summary['folds'])} of {summary['folds_of_split']} folds",
                str(summary["test_images"]),
                "none published" if departures is None else f"departs in {len(departures)} fields",
            ]
        )
    head = ["run", "network", "tasks", "pixels", "split", "test images", "published recipe"]
    return markup.table("The runs", head, rows, class_="texts")


def _differing_fields(comparison: ComparedRuns) -> Markup:
    """The configuration fields in which the runs differ, without places of data."""
    flat = [run_folder.flatten(run.config) for run in comparison.runs]
    fields = sorted(set().union(*flat) - {"name", *_PLACES})
    rows = [
        [field, *(str(each.get(field, "absent")) for each in flat)]
        for field in fields
        if len({str(each.get(field, "absent")) for each in flat}) > 1
    ]
    if not rows:
        return element("p", "Their configurations do not differ.", class_="note")
    caption = "Fields of the configuration that differ"
    return markup.table(caption, ["field", *comparison.names], rows, class_="texts")


def _figure_table(comparison: ComparedRuns, kind: str) -> Markup | None:
    results = [run.summary["results"].get(kind, {}).get("figures", {}) for run in comparison.runs]
    rows = []
    for name in _names(results):
        figures = [each.get(name) for each in results]
        marks = [(_run_class(i), figure) for i, figure in enumerate(figures)]
        drawing = scale(marks) if meaning(name).share else None
        rows.append([meaning(name).title, *_counted(figures, comparison), drawing])
    if not rows:
        return None
    caption = "Mean over the test images of a fold, then mean ± standard deviation"
    table = markup.table(caption, ["figure", *comparison.names, "0 to 1"], rows)
    entries = [(_run_class(i), name) for i, name in enumerate(comparison.names) if results[i]]
    return markup.join(table, scale_legend(entries))


def _counted(figures: list[dict[str, Any] | None], comparison: ComparedRuns) -> list[str]:
    """Figures as text, with the number of images if they do not cover all tested ones.

    A network that finds nothing has a distance only for the images without a lesion.
    """
    cells = []
    for figure, run in zip(figures, comparison.runs, strict=True):
        count = 0 if figure is None else sum(figure["n"])
        whole = figure is None or count == run.summary["test_images"]
        cells.append(plus_minus(figure) + ("" if whole else f" ({count} images)"))
    return cells


def _names(results: list[dict[str, Any]]) -> list[str]:
    """All figures that any of several runs has, in the order of their first occurrence."""
    return list(dict.fromkeys(name for figures in results for name in figures))


def _run_class(number: int) -> str:
    return f"mark-run c{number % 6}"


def _tests(comparison: ComparedRuns) -> list[Markup]:
    if not comparison.tests:
        text = "The runs have no task in common, so there is nothing to test."
        return [element("p", text, class_="callout plain")]
    reach = max(max(abs(t.low), abs(t.high)) for t in comparison.tests) or 1.0
    rows = []
    for test in comparison.tests:
        cells = _test_cells(test)
        cells.insert(5, _interval(test, reach))
        name = [
            element("b", _MEASURES[test.measure]),
            element("span", f"a: {test.a}", class_="side"),
            element("span", f"b: {test.b}", class_="side"),
        ]
        rows.append([name, *cells])
    head = [*_HEADER[:6], f"−{reach:.2f} to {reach:.2f}", *_HEADER[6:]]
    notes = element("ul", [element("li", note) for note in _NOTES], class_="note")
    return [markup.table("Every pair of runs", head, rows, class_="tests"), notes]


def _interval(test: Comparison, reach: float) -> Markup:
    """The difference with its interval and a line at 0, hidden from screen readers."""
    half, middle = 60, 66

    def place(value: float) -> str:
        return f"{middle + half * value / reach:.1f}"

    return element(
        "svg",
        element("line", x1=6, x2=126, y1=10, y2=10, class_="grid"),
        element("line", x1=middle, x2=middle, y1=1, y2=19, class_="axis"),
        element("line", x1=place(test.low), x2=place(test.high), y1=10, y2=10, class_="c0"),
        element("circle", cx=place(test.difference), cy=10, r=4, class_="dot c0"),
        viewBox="0 0 132 20",
        aria_hidden="true",
        class_="range",
    )


def _changed(comparison: ComparedRuns) -> list[Markup]:
    parts = []
    for (a, b), rows in comparison.changed.items():
        lines = [
            [row.uid, row.label, number(row.a), number(row.b), _signed(row.change)]
            for row in rows.itertuples()
        ]
        caption = f"Dice of {a} (a) and {b} (b)"
        parts.append(markup.table(caption, ["image", "true class", "a", "b", "a − b"], lines))
    return [element("div", parts, class_="beside")]
