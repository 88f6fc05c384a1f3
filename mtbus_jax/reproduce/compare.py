"""Tests between the rows of a table, paired over the test images."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.metrics import statistics
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Section


@dataclasses.dataclass(frozen=True)
class RowComparison:
    """The reference against another row.

    Attributes:
      section: title of the section.
      row: label of the row.
      reference: label of the section's last row.
      measure: ``dice`` or ``correct`` (whether the class was right).
      images: compared.
      difference: mean over the images, reference minus row.
      low: lower end of its 95 % interval, from a bootstrap within folds.
      high: upper end.
      effect: rank-biserial correlation for Dice, Cohen's g with a sign for correct classes;
        positive where the reference is better.
      p_value: of Wilcoxon's signed-rank or McNemar's exact test, two-sided.
      p_holm: corrected for all comparisons of the table.
    """

    section: str
    row: str
    reference: str
    measure: str
    images: int
    difference: float
    low: float
    high: float
    effect: float
    p_value: float
    p_holm: float


def compare(sections: list[tuple[Section, list[RowResult]]]) -> list[RowComparison]:
    """Every row against the last row of its section; Dice, classes, or both.

    Rows that are missing are left out, as is what a section does not show or a row does not have.

    Args:
      sections: of one table, with the results of their rows.

    Raises:
      UserError: if two rows were tested on different images.
    """
    found: list[RowComparison] = []
    for section, results in sections:
        *others, reference = results
        if reference.missing:
            continue
        for other in others:
            if other.missing:
                continue
            _check_same_images(reference, other)
            strata = reference.cases.fold.to_numpy()
            for measure in _measures(section):
                a, b = _values(reference, measure), _values(other, measure)
                if a is None or b is None:
                    continue
                if measure == "dice":
                    test = statistics.wilcoxon_signed_rank(a, b)
                else:
                    test = statistics.mcnemar(a, b)
                low, high = statistics.bootstrap_mean_difference(
                    a.astype(float), b.astype(float), strata=strata
                )
                found.append(
                    RowComparison(
                        section=section.title,
                        row=other.row.label,
                        reference=reference.row.label,
                        measure=measure,
                        images=test.n,
                        difference=float(np.mean(a.astype(float) - b)),
                        low=low,
                        high=high,
                        effect=test.effect,
                        p_value=test.p_value,
                        p_holm=np.nan,
                    )
                )
    corrected = statistics.holm(np.array([c.p_value for c in found]))
    return [
        dataclasses.replace(comparison, p_holm=float(p))
        for comparison, p in zip(found, corrected, strict=True)
    ]


def _measures(section: Section) -> list[str]:
    measures = []
    if any(metric.startswith("dsc_") for metric in section.metrics):
        measures.append("dice")
    if section.confusion or "acc" in section.metrics:
        measures.append("correct")
    return measures


def _values(result: RowResult, measure: str) -> np.ndarray | None:
    if measure == "dice":
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
