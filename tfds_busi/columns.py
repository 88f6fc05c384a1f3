"""What tables say about pictures: columns under several names, folds, several tables joined."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable

from mtbus_jax.errors import UserError
from mtbus_jax.files import parse_table
from mtbus_jax.types import NO_FOLD
from tfds_busi import search

# Names of columns, in lower case, the first that is there counts.
_COLUMNS = {
    "image": ("image", "file", "filename", "image_filename", "id", "name"),
    "mask": ("mask", "masks", "mask_filename"),
    "label": ("label", "class", "pathology", "diagnosis", "classification"),
    "uid": ("uid",),
    "group": ("group", "patient", "patient_id", "case", "caseid", "subject"),
    "fold": ("fold", "test_fold", "kfold"),
}
# Rows of a fold column that say in words what is tested.
_FOLD_WORDS = {"test": 0, "train": NO_FOLD, "training": NO_FOLD, "": NO_FOLD}


def read_table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, in lower case, and its rows with their line numbers.

    Raises:
      UserError: if it cannot be read, or a column occurs twice.
    """
    try:
        columns, rows = parse_table(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    names = [name.lower() for name in columns if name]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: the column {twice[0]!r} occurs twice.")
    return names, [
        (row.line, {name.lower(): cell for name, cell in row.cells.items()}) for row in rows
    ]


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
    """The number in a cell of a fold column; `NO_FOLD` for ``train`` or an empty one."""
    if text.casefold() in _FOLD_WORDS:
        return _FOLD_WORDS[text.casefold()]
    try:
        number = float(text.replace(",", "."))  # a spreadsheet may have made 2 into 2,0
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise UserError(
            f"{where}: the fold is {text!r}; give a whole number from 0, or train and test."
        )
    return int(number)


def joined_tables(
    root: pathlib.Path, stems: set[str]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What the CSV files of a folder say about its images, by the images' stems, and their names.

    Raises:
      UserError: if two of them contradict each other, or an image is named twice or not at all.
    """
    joined: dict[str, dict[str, str]] = {}
    used = []
    for path in sorted(search.visible(root)):
        if path.suffix.lower() not in (".csv", ".txt", ".tsv"):
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
            row = joined.setdefault(stem, {})
            for what in ("label", "group", "fold", "uid"):
                value = cells.get(known.get(what, ""), "")
                if value and row.setdefault(what, value).casefold() != value.casefold():
                    raise UserError(
                        f"{path}, line {line}: the {what} of {stem!r} is {value!r}, another table "
                        f"in {root} says {row[what]!r}."
                    )
    return joined, used
