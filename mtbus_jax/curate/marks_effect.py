"""Tests whether a network does better on images with burned-in marks than on those without.

    python -m mtbus_jax.curate.marks_effect --marks=curation/marks.csv --run=runs/mt_unetpp

prints one table, class by class, from the tested images of a run folder. A caliper or a label next
to a lesion gives it away, so a gap here is a sign of a shortcut. It is no proof: marked and
unmarked images also differ in other ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from mtbus_jax.curate.marks import Marks
from mtbus_jax.errors import UserError, exit_on_user_error
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.files import without_sign


def read_marked(path: Path) -> dict[str, bool]:
    """Uid → whether the image carries any mark, from ``marks.csv``.

    Raises:
      UserError: if the file is missing or is another table.
    """
    try:
        table = pd.read_csv(path, dtype={"uid": str}, keep_default_na=False)
        found = zip(table.uid, table.calipers, table.text, table.colour, strict=True)
        return {without_sign(uid): Marks(*counts).any for uid, *counts in found}
    except (OSError, AttributeError, TypeError, ValueError) as error:  # pandas' own are ValueErrors
        raise UserError(
            f"--marks={path} cannot be read as marks.csv of mtbus_jax.curate ({error})."
        ) from None


def compare(cases: pd.DataFrame, marked: dict[str, bool]) -> pd.DataFrame:
    """Dice and accuracy with and without marks, per class.

    Args:
      cases: with ``uid``, ``label``, and ``dice`` or ``predicted`` or both.
      marked: by uid.

    Returns:
      One row per class and measure: ``class, measure, marked_n, marked, unmarked_n, unmarked, p``.
      p comes from a two-sided Mann–Whitney test for Dice and Fisher's exact test for accuracy, not
      corrected for multiple tests; NaN if either side has no image.

    Raises:
      UserError: if an image is not in the table of marks.
    """
    missing = [uid for uid in cases.uid if uid not in marked]
    if missing:
        raise UserError(
            f"{len(missing)} tested images are not in the table of marks, such as {missing[0]!r}: "
            "the two belong to different archives."
        )
    has_mark = np.array([marked[uid] for uid in cases.uid])
    rows = []
    for label in dict.fromkeys(cases.label):
        of_class = (cases.label == label).to_numpy()
        for measure in ("Dice", "accuracy"):
            column = {"Dice": "dice", "accuracy": "predicted"}[measure]
            if column not in cases:
                continue
            values = cases[column] if measure == "Dice" else (cases[column] == label).astype(float)
            sides = [values[of_class & side].to_numpy() for side in (has_mark, ~has_mark)]
            means = [side.mean() if len(side) else np.nan for side in sides]
            rows.append((label, measure, len(sides[0]), means[0], len(sides[1]), means[1],
                         _p_value(measure, *sides)))  # fmt: skip
    columns = ["class", "measure", "marked_n", "marked", "unmarked_n", "unmarked", "p"]
    return pd.DataFrame(rows, columns=columns)


def _p_value(measure: str, a: np.ndarray, b: np.ndarray) -> float:
    if not len(a) or not len(b):
        return np.nan
    if measure == "Dice":
        return float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)
    table = [[int(side.sum()), int(len(side) - side.sum())] for side in (a, b)]
    return float(stats.fisher_exact(table).pvalue)


def to_markdown(table: pd.DataFrame) -> str:
    """The table of `compare` as Markdown."""
    lines = [
        "| class | measure | with marks (n) | without (n) | p |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in table.itertuples(index=False):
        label, measure, n_marked, marked, n_unmarked, unmarked, p = row
        lines.append(
            f"| {label} | {measure} | {marked:.3f} ({n_marked}) | {unmarked:.3f} ({n_unmarked}) "
            f"| {p:.3f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the arguments say.

    Args:
      argv: arguments; default: those of the process.

    Raises:
      UserError: if a file is missing or the two do not belong together.
    """
    parser = argparse.ArgumentParser(
        "mtbus_jax.curate.marks_effect", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--marks", required=True, help="marks.csv as written by mtbus_jax.curate")
    parser.add_argument("--run", required=True, help="run folder with tested folds")
    args = parser.parse_args(argv)
    cases = read_cases(Path(args.run))
    print(to_markdown(compare(cases, read_marked(Path(args.marks)))))


if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.curate.marks_effect"):
        main()
