"""The figures of a run as tables: next to published ones, by fold, as confusion matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mtbus_jax.evaluation.markdown import PUBLISHED_DEVIATION, image_counts, plus_minus, with_n
from mtbus_jax.metrics.meaning import BOTH, CLASSIFICATION, KINDS, SEGMENTATION, meaning
from mtbus_jax.report import markup
from mtbus_jax.report.markup import Markup, element, number, percent

# Width of a drawing inside a table, in its own units.
_SCALE = 132


def figure_table(summary: dict[str, Any]) -> Markup:
    """Every figure, raw and refined, next to the published ones, on a common scale."""
    results = summary["results"]
    kinds = list(results)
    published = [k for k in kinds if any(f["published"] for f in results[k]["figures"].values())]
    header = ["figure", *(KINDS[kind] for kind in kinds)]
    for kind in published:
        header += [f"{KINDS[kind]}, ± with n", f"published {results[kind]['published_setting']}"]
    header += ["0 to 1", "images"]
    bodies = []
    names = list(results[kinds[0]]["figures"])
    for group in (SEGMENTATION, CLASSIFICATION, BOTH):
        rows = [
            _figure_row(name, {k: results[k]["figures"].get(name) for k in kinds}, published)
            for name in names
            if meaning(name).group == group
        ]
        if rows:
            head = element("th", group, scope="rowgroup", colspan=len(header))
            bodies.append(element("tbody", element("tr", head, class_="group"), rows))
    caption = "Mean over the test images of a fold, then mean ± standard deviation over folds"
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [element("th", cell, scope="col") for cell in header])),
        bodies,
        class_="figures",
    )
    note = element("p", PUBLISHED_DEVIATION) if published else None
    box = markup.scrollable("Figures", whole, class_="full")
    entries = [(f"mark-{kind}", KINDS[kind]) for kind in kinds]
    entries += [("mark-published", "published")] * bool(published)
    return markup.join(box, note, scale_legend(entries))


def _figure_row(name: str, figures: dict[str, Any], published: list[str]) -> Markup:
    of_figure = meaning(name)
    title = element("span", of_figure.title, title=of_figure.sentence)
    cells = [element("td", plus_minus(figure)) for figure in figures.values()]
    beside = {k: figures[k]["published"] if figures[k] else None for k in published}
    for kind, each in beside.items():
        ours = plus_minus(with_n(figures[kind]) if each else None)
        cells += [element("td", ours), element("td", plus_minus(each), class_="published")]
    marks = [(f"mark-{kind}", figure) for kind, figure in figures.items()]
    # Of several published settings, the last one belongs to the final result.
    marks += [("mark-published", each) for each in list(beside.values())[-1:]]
    cells.append(element("td", scale(marks) if of_figure.share else None, class_="scale"))
    counts = image_counts([figure["n"] for figure in figures.values() if figure])
    cells.append(element("td", counts))
    return element("tr", element("th", title, scope="row"), cells)


def scale(marks: list[tuple[str, dict[str, Any] | None]]) -> Markup:
    """Means and standard deviations on a line from 0 to 1, hidden from screen readers."""
    drawn = [element("line", x1=6, y1=10, x2=_SCALE - 6, y2=10, class_="grid")]
    for class_, figure in marks:
        if figure is None or figure["mean"] is None:
            continue
        x = 6 + figure["mean"] * (_SCALE - 12)
        if figure["sd"] is not None:
            reach = figure["sd"] * (_SCALE - 12)
            ends = max(x - reach, 0), min(x + reach, _SCALE)
            drawn.append(
                element(
                    "line", x1=f"{ends[0]:.1f}", x2=f"{ends[1]:.1f}", y1=10, y2=10, class_=class_
                )
            )
        drawn.append(_mark(class_, x))
    return element("svg", drawn, viewBox=f"0 0 {_SCALE} 20", aria_hidden="true", class_="range")


def _mark(class_: str, x: float) -> Markup:
    if class_ == "mark-published":  # another shape, so that colour is not the only sign
        points = f"{x:.1f},4 {x + 5:.1f},10 {x:.1f},16 {x - 5:.1f},10"
        return element("polygon", points=points, class_=class_)
    return element("circle", cx=f"{x:.1f}", cy=10, r=4, class_=class_)


def scale_legend(entries: list[tuple[str, str]]) -> Markup:
    """What the marks of `scale` mean; each entry is (class, text)."""
    items = []
    for class_, text in entries:
        picture = element(
            "svg", _mark(class_, 11), viewBox="0 0 22 20", class_="sample", aria_hidden="true"
        )
        items.append(element("li", picture, element("span", text)))
    return element("ul", items, class_="legend")


def fold_table(summary: dict[str, Any]) -> Markup:
    """Every figure of every fold, in a block that is closed at first."""
    rows = []
    for kind, result in summary["results"].items():
        for name, figure in result["figures"].items():
            title = f"{meaning(name).title}, {KINDS[kind]}"
            rows.append([title, *(number(value) for value in figure["folds"])])
    header = ["figure", *(f"fold {fold}" for fold in summary["folds"])]
    return markup.disclosure("Figures of each fold", markup.table("Figures by fold", header, rows))


def networks(summary: dict[str, Any]) -> list[Markup]:
    """Figures of each network of an ensemble alone; empty for other runs."""
    alone = summary.get("networks", [])
    if not alone:
        return []
    names = list(alone[0])[1:]
    rows = [[str(each["seed"]), *(number(each[name]) for name in names)] for each in alone]
    header = ["seed", *(meaning(name).title for name in names)]
    kind = KINDS[list(summary["results"])[-1]]
    text = f"An ensemble, the mean of {len(alone)} networks per fold. Above, each alone: {kind}."
    return [markup.table("Networks by themselves", header, rows), element("p", text, class_="note")]


def meanings(names: Iterable[str]) -> Markup:
    """What each figure means, in a block that is closed at first.

    Args:
      names: names of the figures.
    """
    items = [
        [element("dt", each.title), element("dd", each.sentence)] for each in map(meaning, names)
    ]
    return markup.disclosure("What the figures are", element("dl", items, class_="meanings"))


def confusion(summary: dict[str, Any]) -> list[Markup]:
    """One matrix per kind of result, folds pooled."""
    return [
        _matrix(KINDS[kind], counts, summary["class_names"])
        for kind, counts in summary["confusion_counts"].items()
    ]


def _matrix(kind: str, counts: list[list[int]], names: list[str]) -> Markup:
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = []
        for other, count in zip(names, row, strict=True):
            share = count / total if total else 0.0
            tone = "right" if name == other else "wrong"
            text = element("b", percent(share, 0) if total else "–")
            cells.append(
                element(
                    "td", text, element("span", str(count)), class_=f"{tone} s{round(10 * share)}"
                )
            )
        rows.append(
            element("tr", element("th", name, scope="row"), cells, element("td", str(total)))
        )
    said = element("span", "predicted ", class_="unseen")
    header = ["true", *(markup.join(said, name) for name in names), "images"]
    content = element(
        "table",
        element("caption", "Rows: true class. Columns: predicted class."),
        element("thead", element("tr", [element("th", cell, scope="col") for cell in header])),
        element("tbody", rows),
        class_="matrix",
    )
    title = f"Confusion, {kind}"
    return element(
        "figure",
        element("figcaption", title),
        markup.scrollable(title, content),
        element("p", "Per cent of the true class, and images; all folds together.", class_="note"),
        class_="chart",
    )
