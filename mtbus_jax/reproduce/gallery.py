"""The figure of example cases: selects test images and shows each configuration's predictions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtbus_jax import data, files, refine, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.reproduce import figure
from mtbus_jax.reproduce.facts import Facts
from mtbus_jax.reproduce.plan import Study
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Row
from mtbus_jax.training import run_folder


def write_figure(
    study: Study,
    results: list[RowResult],
    number: int,
    *,
    facts: Facts,
    uids: tuple[str, ...] = (),
) -> list[Path]:
    """Writes ``figure_<N>.png``, one column per result, and ``figure_<N>.md``, its legend.

    Args:
      study: the study that the results come from.
      results: results of rows with masks, none missing; the last is the reference.
      number: number of the figure.
      facts: facts about the runs.
      uids: test images to show; if empty, the one of each class with the reference's median Dice.

    Returns:
      The paths, in that order.

    Raises:
      UserError: if an image is not among the test images, or predictions are missing.
    """
    reference = results[-1]
    shown = list(uids) if uids else median_cases(reference)
    known = set(reference.cases.uid)
    for uid in shown:
        if uid not in known:
            raise UserError(
                f"--cases: {uid!r} is not a test image of the folds trained here; one is "
                f"{reference.cases.uid.iloc[0]!r}."
            )
    cases = data.load_configured(study.config(reference.row.seg))
    position = {str(uid): i for i, uid in enumerate(cases.uid)}
    rows = []
    for uid in shown:
        i = position[uid]
        rows.append(
            figure.FigureCase(
                uid=uid,
                label=types.CLASS_NAMES[cases.label[i]],
                image=cases.image[i, ..., 0],
                truth=cases.mask[i, ..., 0] > 0,
                predictions=[_mask(study, result, uid) for result in results],
                captions=[_caption(result, uid) for result in results],
            )
        )
    picture = figure.draw(rows, [result.row.label for result in results])
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    paths = [study.workdir / f"figure_{number}.{suffix}" for suffix in ("png", "md")]
    files.write_bytes(paths[0], buffer.getvalue())
    files.write_text(paths[1], _legend(number, paths[0].name, shown, bool(uids), facts))
    return paths


def _legend(number: int, picture: str, shown: list[str], chosen: bool, facts: Facts) -> str:
    how = "chosen by name" if chosen else "the one of each class with the last column's median Dice"
    title = facts.scaled(f"Figure {number}: segmentations of test images")
    lines = [f"# {title}", "", f"![{title}]({picture})", ""]
    lines += [f"Test images {', '.join(shown)}, {how}."]
    for warning in facts.warnings:
        lines += ["", f"> {warning}"]
    return "\n".join([*lines, "", *facts.origin])


def median_cases(reference: RowResult) -> list[str]:
    """The test image of each class with the median Dice; of two the lower, of equals by uid."""
    ranked = reference.cases.assign(shown_dice=reference.dice).sort_values(["shown_dice", "uid"])
    of_class = [ranked[ranked.label == name] for name in types.CLASS_NAMES]
    return [rows.uid.iloc[(len(rows) - 1) // 2] for rows in of_class if len(rows)]


def _case(result: RowResult, uid: str) -> pd.Series:
    return result.cases[result.cases.uid == uid].iloc[0]


def _mask(study: Study, result: RowResult, uid: str) -> np.ndarray:
    """``(height, width)`` bool, refined if the row is."""
    row: Row = result.row
    case = _case(result, uid)
    stored = stored_predictions.read(run_folder.fold_dir(study.directory(row.seg), int(case.fold)))
    mask = stored.mask[stored.uid == uid]
    if row.refined:
        code = types.CLASS_NAMES.index(case.predicted)
        mask, _ = refine.refine(mask, np.eye(len(types.CLASS_NAMES))[[code]])
    return np.asarray(mask)[0]


def _caption(result: RowResult, uid: str) -> str:
    here = (result.cases.uid == uid).to_numpy()
    dice = f"Dice {result.dice[here][0]:.2f}"
    return dice if result.predicted is None else f"{result.predicted[here][0]}, {dice}"
