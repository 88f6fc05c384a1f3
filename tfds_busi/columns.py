"""Reads tables about pictures: columns have several names, and several tables can be joined."""

from __future__ import annotations

import datetime
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from mtbus_jax.errors import UserError
from mtbus_jax.files import header, parse_table
from mtbus_jax.types import MOST_FOLDS, NO_FOLD, VALIDATION_FOLD
from tfds_busi import search

# Names of columns, in lower case; the first one that is there counts.
_COLUMNS = {
    "image": (
        *("image", "file", "filename", "image_filename", "id", "name"),
        *("file_name", "image_name", "image_id", "img", "picture", "path", "bild", "datei"),
        "dateiname",
    ),
    "mask": ("mask", "masks", "mask_filename", "mask_name", "maske"),
    "label": (
        *("label", "class", "pathology", "classification", "diagnosis"),
        *("diagnose", "befund", "klasse"),
    ),
    "uid": ("uid",),
    "group": (
        *("group", "patient", "patient_id", "patientid", "case", "case_id", "caseid"),
        *("subject", "subject_id", "patienten_id", "patientennummer"),
    ),
    "fold": ("fold", "test_fold", "kfold", "split"),
}
_EXCEL = ".xlsx"
_SHOWN = 5
SUFFIXES = (".csv", ".txt", ".tsv", _EXCEL)
# BUS-BRA's other folds of the same images, besides those of 5-fold-cv.csv.
PASSED_OVER = ("10-fold-cv.csv",)
# The fold of a row that says ``test`` instead of a number; numbers of folds are smaller.
TEST = MOST_FOLDS
# Words in a fold column that stand for a fold.
_FOLD_WORDS = {"test": TEST, "testing": TEST, "train": NO_FOLD, "training": NO_FOLD, "": NO_FOLD}
_FOLD_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION_FOLD)


def read_table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, in lower case, and its rows with their line numbers.

    Titles above the columns are skipped, see `files.header`.

    Args:
      path: a CSV file, or an Excel file ``.xlsx``, whose first sheet is read.

    Raises:
      UserError: if it cannot be read, or a column occurs twice.
    """
    if path.suffix.lower() == _EXCEL:
        return _read_excel(path)
    try:
        columns, rows = parse_table(path.read_bytes(), str(path), titles=True)
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
    start = header(lines)
    names = [name.lower() for name in lines[start]]
    _refuse_doubled(path, [name for name in names if name])
    rows = []
    for number, cells in enumerate(lines[start + 1 :], start=start + 2):
        named = {name: cell for name, cell in zip(names, cells, strict=False) if name}
        if any(named.values()):
            rows.append((number, named))
    return [name for name in names if name], rows


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
    """The cells of a row in columns that are not understood, by column.

    Args:
      known: the result of `which`.
      cells: the cells of the row, by column.
    """
    return {name: cell for name, cell in cells.items() if cell and name not in known.values()}


def which(names: Iterable[str]) -> dict[str, str]:
    """Which column says what: ``image``, ``mask``, ``label``, ``uid``, ``group``, ``fold``.

    Of several columns with the same meaning, the first in the order of `_COLUMNS` counts.
    """
    return {what: found[0] for what, found in candidates(names).items()}


def candidates(names: Iterable[str]) -> dict[str, list[str]]:
    """All columns that may have a meaning, by meaning, in the order of `_COLUMNS`.

    Spaces, hyphens and underscores are equivalent: "Patient ID" is ``patient_id``.
    """
    plain = {re.sub(r"[\s_-]+", "_", name): name for name in names}
    found = {
        what: [plain[name] for name in known if name in plain] for what, known in _COLUMNS.items()
    }
    return {what: columns for what, columns in found.items() if columns}


def with_images(
    names: Iterable[str],
    rows: list[tuple[int, dict[str, str]]],
    is_image: Callable[[str], bool],
) -> dict[str, str]:
    """Like `which`, but ``image`` is the column that names most pictures.

    Args:
      names: names of the columns.
      rows: rows of the table.
      is_image: whether a cell names a picture.
    """
    known = which(names)
    count = {
        column: sum(is_image(cells.get(column, "")) for _, cells in rows)
        for column in candidates(names).get("image", [])
    }
    if count:
        known["image"] = max(count, key=count.__getitem__)  # the first of equal ones
    return known


def fold(text: str, where: str) -> int:
    """The number in a cell of a fold column; constants stand for words and an empty cell."""
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


class Joined(NamedTuple):
    """What the tables of a folder say.

    Attributes:
      rows: what the tables say of each image, by image.
      tables: names of the tables that are about the images.
      notes: notes on columns that are not used.
      left_out: why tables that cannot be read or do not fit are not used, by name.
    """

    rows: dict[str, dict[str, Any]]
    tables: list[str]
    notes: list[str]
    left_out: dict[str, str]


def joined_tables(root: pathlib.Path, uids: Collection[str], *, labels: bool = True) -> Joined:
    """What the tables of a folder say about its images, by the images' uids.

    A table is about them if a column names at least one of them and another column is understood.
    A cell names an image by its path or the end of it, with or without the suffix. Columns that are
    not understood are under ``about``.

    Args:
      root: the folder.
      uids: uids of the images: their paths below a folder, without suffix.
      labels: whether tables give the classes. If not, they may give groups and folds, and one that
        cannot be read or does not fit the images is left out.

    Raises:
      UserError: where tables give the classes, if one cannot be read, two contradict each other, or
        an image is named twice or not at all.
    """
    what = ("label", "group", "fold") if labels else ("group", "fold")
    find = _finder(uids)
    found = Joined({}, [], [], {})
    for path in sorted(search.visible(root)):
        if path.suffix.lower() not in SUFFIXES or path.name in PASSED_OVER:
            continue
        try:
            _join(path, find, what, found)
        except UserError as error:
            if labels and not (path.suffix.lower() == ".txt" and not _can_be_read(path)):
                raise
            found.left_out[path.name] = str(error).removeprefix(str(path)).lstrip(",: ").rstrip(".")
    return found


def _can_be_read(path: pathlib.Path) -> bool:
    try:
        return bool(read_table(path))
    except UserError:
        return False


def _join(
    path: pathlib.Path, find: Callable[[str], list[str]], what: tuple[str, ...], found: Joined
) -> None:
    """Adds what one table says, or nothing if it is about something else.

    Raises:
      UserError: if it cannot be read or does not fit; then nothing is added.
    """
    names, rows = read_table(path)
    known = with_images(names, rows, lambda cell: bool(find(cell)))
    if "image" not in known or not known.keys() & set(what):
        return
    if not any(find(cells.get(known["image"], "")) for _, cells in rows):
        return  # about something else
    if "label" not in what:
        known.pop("label", None)
    by_uid: dict[str, dict[str, Any]] = {}
    for line, cells in rows:
        cell = cells.get(known["image"], "")
        named = find(cell)
        if not named:
            raise UserError(f"{path}, line {line}: there is no image {cell!r}.")
        if len(named) > 1:
            raise UserError(
                f"{path}, line {line}: {cell!r} may be {' or '.join(named[:2])}; write the folder "
                "too."
            )
        (uid,) = named
        if uid in by_uid:
            raise UserError(f"{path}, line {line}: the image {uid!r} is listed twice.")
        row = {name: cells.get(known.get(name, ""), "") for name in ("uid", *what)}
        fold(row["fold"], f"{path}, line {line}")
        by_uid[uid] = {**row, "about": others(known, cells)}
        for name, value in row.items():
            said = found.rows.get(uid, {}).get(name) or value
            if value and said.casefold() != value.casefold():
                raise UserError(
                    f"{path}, line {line}: the {name} of {uid!r} is {value!r}, another table in "
                    f"{path.parent} says {said!r}."
                )
    found.tables.append(path.name)
    found.notes.extend(unused(path.name, names, known))
    for uid, row in by_uid.items():
        joined = found.rows.setdefault(uid, {"about": {}})
        joined["about"] |= row.pop("about")
        for name, value in row.items():
            joined[name] = joined.get(name) or value


def _finder(uids: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that gives the uids of the images that a cell may name."""
    ends: dict[str, list[str]] = {}
    folders = set()
    for uid in uids:
        parts = folded(uid).split("/")
        folders.update(parts[:-1])
        for first in range(len(parts)):
            ends.setdefault("/".join(parts[first:]), []).append(uid)

    def find(cell: str) -> list[str]:
        path = pathlib.PurePosixPath(folded(cell.replace("\\", "/")))
        for first in range(len(path.parts)):
            if first and path.parts[first - 1] in folders:
                break  # it names a picture in that folder, which is not there
            end = pathlib.PurePosixPath(*path.parts[first:])
            for name in map(str, (end, end.with_suffix("") if end.name else end)):
                if found := ends.get(name):
                    return [uid for uid in found if folded(uid) == name] or found
        return []

    return find


def unused(table: str, names: list[str], known: dict[str, str]) -> list[str]:
    """A note on the columns of a table that are kept but not used; none if there are none."""
    rest = [name for name in names if name not in known.values()]
    if not rest:
        return []
    listed = ", ".join(rest[:_SHOWN]) + (f" and {len(rest) - _SHOWN} more" * (len(rest) > _SHOWN))
    return [f"of {table}, these columns are kept and not used: {listed}."]


def folded(name: str) -> str:
    """The name of a file for comparison: without case, and with letters and accents combined."""
    return unicodedata.normalize("NFC", name).casefold()
