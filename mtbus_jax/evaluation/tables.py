"""Reads the CSV tables of a run folder; refuses incomplete or broken ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mtbus_jax.errors import UserError

# Columns that hold text; all others hold numbers, or True and False.
_TEXTS = frozenset({"uid", "label", "prediction_set", "correction"})
_TEXTS_LIKE = "predicted"  # and names that end with it


def read(path: Path, required: Collection[str], *, mend: str) -> pd.DataFrame:
    """Reads a table with one row per image.

    A uid such as "NA" and a class called "0" stay text. Only empty cells are undefined.

    Args:
      path: the file.
      required: columns that it must have.
      mend: what to do if the file is broken; a sentence without its full stop.

    Raises:
      UserError: if the file is truncated, lacks a required column, has a cell of the wrong kind,
        or lists an image twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not text, or no header
        raise _broken(path, str(error) or type(error).__name__, mend) from None
    if not text.endswith("\n"):
        raise _broken(path, "its last line is cut", mend)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise _broken(path, f"row {number} has {len(row)} of {len(header)} cells", mend)
    missing = [column for column in required if column not in header]
    if missing or len(set(header)) != len(header):
        raise _broken(path, f"it has no column {missing[0]}" if missing else "a column twice", mend)
    texts = [name for name in header if name in _TEXTS or name.endswith(_TEXTS_LIKE)]
    table = pd.read_csv(
        io.StringIO(text), dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""]
    )
    for column in header:
        numbers = pd.api.types.is_numeric_dtype(table[column])
        if column not in texts and not numbers and len(table):
            raise _broken(path, f"its column {column} holds something other than numbers", mend)
    if table["uid"].isna().any() or table["uid"].duplicated().any():
        raise _broken(path, "an image has no uid, or is in it twice", mend)
    return table


def _broken(path: Path, problem: str, mend: str) -> UserError:
    return UserError(f"{path} is broken: {' '.join(problem.split())}. {mend}.")
