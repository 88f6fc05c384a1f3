"""Writes ``report.html`` into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtbus_jax import files, pages, types
from mtbus_jax.report import browser, charts, pictures, results, sections
from mtbus_jax.report.markup import Markup, element, join
from mtbus_jax.report.page import header, page
from mtbus_jax.report.run import Run, read

REPORT = "report.html"

# Text that occurs only in reports without pictures.
_NO_PICTURES = "pictures, which come from the dataset."
_SCRIPTS = ("masks.js", "cases.js", "list.js", "viewer.js", "browser.js")


def write_report(
    workdir: Path | str, cases: types.Cases | None, *, without_pictures: str = ""
) -> Path:
    """Writes the report of a run that has been tested.

    Args:
      workdir: the run folder.
      cases: the dataset it was tested on; None for a report without pictures.
      without_pictures: the reason why ``cases`` is None, for the reader of the report.

    Returns:
      The path of the file.

    Raises:
      UserError: if the folder is not a tested run, one of its files is broken, or ``cases`` is
        another dataset.
    """
    run = read(Path(workdir))
    collected = None if cases is None else pictures.collect(run, cases)
    path = run.workdir / REPORT
    files.write_text(path, _document(run, collected, without_pictures))
    return path


def has_pictures(workdir: Path) -> bool:
    """Whether a run folder has a report that shows pictures."""
    path = workdir / REPORT
    return path.exists() and _NO_PICTURES not in path.read_text(encoding="utf-8", errors="replace")


def _document(run: Run, collected: pictures.Pictures | None, reason: str) -> str:
    summary = run.summary
    height, width = summary["image_size"]
    facts = [
        f"{summary['model']} on {summary['dataset']}; tasks {' + '.join(summary['tasks'])}; ",
        f"{summary['split']} split, fold{'s' * (len(summary['folds']) > 1)} ",
        f"{', '.join(map(str, summary['folds']))} of {summary['folds_of_split']}; ",
        f"{summary['test_images']} test images at {height} × {width} pixels",
    ]
    parts = [
        ("results", "Results", _results(summary)),
        ("training", "Training", _training(run)),
        ("classes", "By class", _by_class(run)),
        ("corrections", "Corrections", _corrections(run)),
        ("trust", "Trust", sections.trust_section(run)),
        ("cases", "Cases", _cases(run, collected, reason)),
        ("setup", "Setup", sections.setup(run)),
    ]
    shown = [(name, title, content) for name, title, content in parts if content]
    return page(
        f"{summary['name']}: report",
        header(summary["name"], facts, [(name, title) for name, title, _ in shown]),
        element(
            "main",
            sections.warnings(summary),
            sections.tiles(run),
            [sections.section(*each) for each in shown],
            id="content",
        ),
        list(browser.blocks(run, collected)),
        styles=("browser.css",),
        scripts=_SCRIPTS,
    )


def _results(summary: dict[str, Any]) -> list[Markup]:
    names = [name for result in summary["results"].values() for name in result["figures"]]
    return [
        results.figure_table(summary),
        *results.networks(summary),
        results.fold_table(summary),
        results.meanings(names),
    ]


def _training(run: Run) -> list[Markup]:
    if not any(run.metrics.values()):
        mend = "It is written while a fold is trained."
        if "networks" in run.summary:
            mend = "Those of an ensemble's networks lie in network_*/fold_*."
        return [sections.missing("metrics.jsonl, the curves of training.", mend)]
    gone = [str(fold) for fold, rows in run.metrics.items() if not rows]
    drawn = [charts.grid(charts.training(run))]
    if gone:
        drawn.append(sections.missing(f"metrics.jsonl of fold {', '.join(gone)}.", ""))
    return drawn


def _by_class(run: Run) -> list[Markup]:
    drawn = results.confusion(run.summary)
    if run.has_masks:
        drawn.append(charts.dice_by_class(run.rows, run.classes))
    return [charts.grid(drawn)]


def _corrections(run: Run) -> Markup | None:
    return sections.corrections(run) if run.refines else None


def _cases(run: Run, collected: pictures.Pictures | None, reason: str) -> list[Markup]:
    content = []
    if collected is None:
        mend = f"{reason} " if reason else ""
        content.append(
            sections.missing(
                _NO_PICTURES,
                f"{mend}python -m mtbus_jax.report --run={run.workdir} adds them where the dataset "
                "is.",
            )
        )
    else:
        content += _about_pictures(run, collected)
    template = pages.text("mtbus_jax.report", "browser.html")
    slots = {
        "<!-- filters -->": join(browser.filters(run)),
        "<!-- order -->": browser.order(run),
        "<!-- panels -->": join(browser.panels(run, collected)) if collected else "",
    }
    for slot, markup in slots.items():
        template = template.replace(slot, markup)
    return [*content, Markup(template)]


def _about_pictures(run: Run, collected: pictures.Pictures) -> list[Markup]:
    notes = []
    if run.has_masks and collected.prediction is None:
        mend = "main.py --mode=evaluate on the run folder writes them."
        notes.append(sections.missing("predictions.npz, the predicted masks.", mend))
    if collected.scale() < 1:
        height, width = (round(side * collected.scale()) for side in collected.image.shape[1:])
        text = (
            f"There are many images: the page shows them at {height} × {width} pixels. Masks keep "
            "the size that was tested."
        )
        notes.append(element("p", text, class_="note"))
    return notes
