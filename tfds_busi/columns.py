"""What tables say about pictures: columns under several names, folds, several tables joined."""

from __future__ import annotations

import datetime
import pathlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mtbus_jax.errors import UserError
from mtbus_jax.files import parse_table
from mtbus_jax.types import MOST_FOLDS, NO_FOLD, VALIDATION_FOLD
from tfds_busi import search

# Names of columns, in lower case, the first that is there counts.
_COLUMNS = {
    "image": (
        *("image", "file", "filename", "image_filename", "id", "name"),
        *("file_name", "image_name", "image_id", "img", "picture", "path"),
    ),
    "mask": ("mask", "masks", "mask_filename", "mask_name"),
    "label": ("label", "class", "pathology", "classification", "diagnosis"),
    "uid": ("uid",),
    "group": (
        *("group", "patient", "patient_id", "patientid", "case", "case_id", "caseid"),
        *("subject", "subject_id"),
    ),
    "fold": ("fold", "test_fold", "kfold", "split"),
}
_EXCEL = ".xlsx"
SUFFIXES = (".csv", ".txt", ".tsv", _EXCEL)
# Of BUS-BRA, other folds of the same images than those of 5-fold-cv.csv.
PASSED_OVER = ("10-fold-cv.csv",)
# Rows of a fold column that say in words what is tested.
_FOLD_WORDS = {"test": 0, "testing": 0, "train": NO_FOLD, "training": NO_FOLD, "": NO_FOLD}
_FOLD_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION_FOLD)


def read_table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, in lower case, and its rows with their line numbers.

    Args:
      path: of CSV, or of Excel's ``.xlsx``, whose first sheet is read.

    Raises:
      UserError: if it cannot be read, or a column occurs twice.
    """
    if path.suffix.lower() == _EXCEL:
        return _read_excel(path)
    try:
        columns, rows = parse_table(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    names = [name.lower() for name in columns if name]
    _refuse_doubled(path, names)
    return names, [
        (row.line, {name.lower(): cell for name, cell in row.cells.items()}) for row in rows
    ]


def _read_excel(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [[_text(cell) for cell in row] for row in book.worksheets[0].values]
        book.close()
    except Exception as error:  # a foreign or cut file raises nearly anything
        raise UserError(
            f"{path} is not an Excel table that can be read ({type(error).__name__}). Save it as "
            "CSV."
        ) from None
    if not lines:
        return [], []
    header = [name.lower() for name in lines[0]]
    _refuse_doubled(path, [name for name in header if name])
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
        if any(named.values()):
            rows.append((number, named))
    return [name for name in header if name], rows


def _text(cell: Any) -> str:
    """A cell as CSV would have it: 7.0 is 7, a day is 2024-05-01."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(sep=" ").removesuffix(" 00:00:00")
    return str(cell).strip()


def _refuse_doubled(path: pathlib.Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} occurs twice.")


def others(known: dict[str, str], cells: dict[str, str]) -> dict[str, str]:
    """What a row says in columns that are not understood, by column.

    Args:
      known: from `which`.
      cells: of the row, by column.
    """
    return {name: cell for name, cell in cells.items() if cell and name not in known.values()}


def which(names: Iterable[str]) -> dict[str, str]:
    """Which column says what: ``image``, ``mask``, ``label``, ``uid``, ``group``, ``fold``."""
    names = list(names)
    found = {}
    for what, known in _COLUMNS.items():
        for name in known:
            if name in names:
                found[what] = name
                break
    return found


def fold(text: str, where: str) -> int:
    """The number in a cell of a fold column; those of `types` for ``train``, ``val`` or none."""
    if text.casefold() in _FOLD_WORDS:
        return _FOLD_WORDS[text.casefold()]
    try:
        number = float(text.replace(",", "."))  # a spreadsheet may have made 2 into 2,0
    except ValueError:
        number = -1.0
    if not (0 <= number < MOST_FOLDS and number == int(number)):  # NaN is neither
        raise UserError(
            f"{where}: the fold is {text!r}; give a whole number from 0 to {MOST_FOLDS - 1}, or "
            "train, val and test."
        )
    return int(number)


def joined_tables(
    root: pathlib.Path, stems: set[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What the tables of a folder say about its images, by the images' stems, and their names.

    Columns that are not understood are under ``about``.

    Raises:
      UserError: if two of them contradict each other, or an image is named twice or not at all.
    """
    joined: dict[str, dict[str, Any]] = {}
    used = []
    for path in sorted(search.visible(root)):
        if path.suffix.lower() not in SUFFIXES or path.name in PASSED_OVER:
            continue
        names, rows = read_table(path)
        known = which(names)
        if "image" not in known or not known.keys() & {"label", "group", "fold"}:
            continue
        used.append(path.name)
        seen = set()
        for line, cells in rows:
            stem = pathlib.PurePosixPath(cells.get(known["image"], "").replace("\\", "/")).name
            stem = stem if stem in stems else pathlib.PurePosixPath(stem).stem
            if stem not in stems:
                raise UserError(f"{path}, line {line}: there is no image {stem!r}.")
            if stem in seen:
                raise UserError(f"{path}, line {line}: the image {stem!r} is listed twice.")
            seen.add(stem)
            row = joined.setdefault(stem, {"about": {}})
            row["about"] |= others(known, cells)
            for what in ("label", "group", "fold", "uid"):
                value = cells.get(known.get(what, ""), "")
                if value and row.setdefault(what, value).casefold() != value.casefold():
                    raise UserError(
                        f"{path}, line {line}: the {what} of {stem!r} is {value!r}, another table "
                        f"in {root} says {row[what]!r}."
                    )
    return joined, used
