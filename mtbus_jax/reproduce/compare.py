"""Tests between the rows of a table, paired over the test images."""

from __future__ import annotations

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.metrics import statistics
from mtbus_jax.metrics.statistics import CORRECT, DICE, Comparison
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Section


def compare(sections: list[tuple[Section, list[RowResult]]]) -> list[tuple[str, Comparison]]:
    """Compares the last row of each section (a) with every other (b), by Dice, class, or both.

    Missing rows are left out, and so are measures that the section or a row does not have.

    Args:
      sections: the sections of one table, with the results of their rows.

    Returns:
      Comparisons with the titles of their sections; p-values are corrected for the whole table.

    Raises:
      UserError: if two rows were tested on different images.
    """
    titles: list[str] = []
    found: list[Comparison] = []
    for section, (*others, reference) in sections:
        if reference.missing:
            continue
        for other in others:
            if other.missing:
                continue
            _check_same_images(reference, other)
            names = reference.row.label, other.row.label
            strata = reference.cases.fold.to_numpy()
            for measure in _measures(section):
                a, b = _values(reference, measure), _values(other, measure)
                if a is not None and b is not None:
                    titles.append(section.title)
                    found.append(statistics.compare(measure, names, a, b, strata=strata))
    return list(zip(titles, statistics.corrected(found), strict=True))


def _measures(section: Section) -> list[str]:
    measures = []
    if any(metric.startswith("dsc_") for metric in section.metrics):
        measures.append(DICE)
    if section.confusion or "acc" in section.metrics:
        measures.append(CORRECT)
    return measures


def _values(result: RowResult, measure: str) -> np.ndarray | None:
    if measure == DICE:
        return result.dice
    if result.predicted is None:
        return None
    return result.predicted == result.cases.label.to_numpy(str)


def _check_same_images(one: RowResult, other: RowResult) -> None:
    columns = ["uid", "fold", "label"]
    if not one.cases[columns].equals(other.cases[columns]):
        raise UserError(
            f"the rows {one.row.label} and {other.row.label} were tested on different images or "
            "folds, so they cannot be compared. Remove the run folder that is wrong and start "
            "again."
        )
