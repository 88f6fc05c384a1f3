"""What a person should know of how a folder of pictures was understood: what it does not use."""

from __future__ import annotations

import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from mtbus_jax.errors import UserError
from mtbus_jax.types import NO_FOLD, VALIDATION_FOLD
from tfds_busi import columns, held, listing, search

# A text file may be anything.
_TABLES = tuple(suffix for suffix in columns.SUFFIXES if suffix != ".txt")
# Tables of other programs, which are not read.
_OTHER_TABLES = (".xls", ".ods", ".numbers")
# Folders of that many names that differ in their numbers alone are hardly classes.
_FEW = 4
# What people write into a cell whose value they do not know.
_UNKNOWN = re.compile(
    r"[?.–—-]+|n\.?/?a\.?|nan|null|none|unknown|missing|unbekannt|k\.?\s?a\.?", re.I
)


def of(
    root: pathlib.Path, entries: Sequence[listing.Entry], tables: Sequence[str], *, by_folder: bool
) -> list[str]:
    """Sentences about a folder, the gravest first; empty if there is nothing to say.

    Args:
      root: the folder.
      entries: as understood.
      tables: names of the tables that were used.
      by_folder: whether a folder's name is the class of what it holds.
    """
    found = [*_patients(root, entries)] if by_folder else []
    found += [*_unknown(entries), *_without_fold(entries), *_without_group(entries)]
    return [*found, *_tables(root, tables), *_pictures(root, entries)]


def _patients(root: pathlib.Path, entries: Sequence[listing.Entry]) -> Iterator[str]:
    names = sorted({entry.label for entry in entries})
    mend = "If these are patients, name them in the column group of a manifest.csv"
    if len(names) >= _FEW and len({re.sub(r"\d+", "", name) for name in names}) == 1:
        yield (
            f"the {len(names)} folders {names[0]} to {names[-1]} are taken for classes. {mend}, "
            "and the classes in its column label."
        )
    deeper = [e for e in entries if len(e.image.relative_to(root).parts) > 2]
    if deeper:
        yield (
            f"{len(deeper)} pictures lie in folders within their class, such as "
            f"{deeper[0].image.relative_to(root)}, and a folder's pictures are not kept together. "
            f"{mend}: else the same patient may be in training and test images."
        )


def _unknown(entries: Sequence[listing.Entry]) -> Iterator[str]:
    for what, values, meaning in (
        ("class", [entry.label for entry in entries], "is a class like others"),
        ("group", [entry.group for entry in entries], "is one group, whose pictures stay together"),
    ):
        counts = Counter(value for value in values if _UNKNOWN.fullmatch(value))
        for value, count in counts.items():
            yield (
                f"{value!r}, the {what} of {count} pictures, {meaning}. If it means that the "
                f"{what} is not known, leave these cells empty."
            )


def _without_fold(entries: Sequence[listing.Entry]) -> Iterator[str]:
    folds = {entry.test_fold for entry in entries if entry.test_fold >= 0}
    missing = [entry for entry in entries if entry.test_fold == NO_FOLD]
    if missing and len(folds) > 1:
        yield (
            f"{len(missing)} pictures have no fold, such as {missing[0].uid}: every fold trains on "
            "them, and none tests them."
        )

    if not folds and any(entry.test_fold == VALIDATION_FOLD for entry in entries):
        yield (
            "pictures are marked for validation, but none for testing, so the marks are not used: "
            "test sets are drawn."
        )


def _without_group(entries: Sequence[listing.Entry]) -> Iterator[str]:
    missing = [entry for entry in entries if not (entry.group or entry.patient)]
    if 0 < len(missing) < len(entries):
        yield (
            f"{len(missing)} pictures have no group beside others with one, such as "
            f"{missing[0].uid}; each counts as a patient of its own unless it is a near-duplicate."
        )


def _tables(root: pathlib.Path, used: Sequence[str]) -> Iterator[str]:
    for path in sorted(search.visible(root)):
        suffix = path.suffix.lower()
        if suffix in _OTHER_TABLES:
            yield f"{path.name} is not read; save it as .xlsx or CSV if it is about these pictures."
        elif suffix in _TABLES and path.name not in (*used, *columns.PASSED_OVER):
            yield f"{path.name} is not used: {_why_not(path)}."


def _why_not(path: pathlib.Path) -> str:
    """Why a table is not used, in words."""
    try:
        names, _ = columns.read_table(path)
    except UserError as error:
        return str(error).rstrip(".")
    known = columns.which(names)
    if known.keys() >= {"uid", "fold"}:
        return "it seems to be a file of folds, which data.folds_file names"
    listed = ", ".join(names[: listing.SHOWN])
    if "image" not in known:
        return f"no column of its first row ({listed}) is called image, for the names of files"
    if not known.keys() & {"label", "group", "fold"}:
        return f"no column of its first row ({listed}) is called label, group or fold"
    return "no row of it names a picture here, or folders or a manifest.csv say what is what"


def _pictures(root: pathlib.Path, entries: Sequence[listing.Entry]) -> Iterator[str]:
    used = {path.resolve() for entry in entries for path in (entry.image, *(entry.masks or ()))}
    files = held.pictures(root, deep=True, drawn=True)
    left = sorted(path.relative_to(root) for path in files if path.resolve() not in used)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        are = "are" if len(left) > 1 else "is"
        yield f"{left[0]}{more} {are} not used."
