"""The listing of a folder of your own pictures: checked entries in order, and their classes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mtbus_jax.errors import UserError
from mtbus_jax.images import natural_key
from mtbus_jax.metrics.meaning import RESERVED
from mtbus_jax.types import CLASSES, Classes
from tfds_busi import columns

SHOWN = 5  # names listed in a message
# For a dataset whose images have no class, which then cannot be trained.
_NO_CLASSES = Classes(("lesion",), None)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
      uid: unique name.
      image: its file.
      masks: its mask files; empty for an image that shows no lesion; None if nothing is known.
      label: its class; "" if it is not known.
      group: what it must stay together with, such as a patient; "" if that is not known.
      test_fold: the fold that tests it, or one of the constants of `types` that mean none.
      about: further cells of its row in a table, by column in lower case.
      patient: the patient according to its DICOM file, see `patients`; "" if that is not known.
    """

    uid: str
    image: pathlib.Path
    masks: tuple[pathlib.Path, ...] | None
    label: str
    group: str
    test_fold: int
    about: dict[str, str] = dataclasses.field(default_factory=dict)
    patient: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
      root: the folder; the inner one with the pictures if it was nested.
      layout: how it was understood, in a sentence.
      entries: the images, by class and then by name, in natural order.
      classes: classes of the labels.
      notes: what a person should know about it, in sentences, see `doubts`.
    """

    root: pathlib.Path
    layout: str
    entries: list[Entry]
    classes: Classes
    notes: list[str] = dataclasses.field(default_factory=list)


# Where the classes of a layout come from, if no table gives them.
FOLDERS, OUTLINES = "folders", "labels of outlines"


class Understood(NamedTuple):
    """What a layout gives.

    Attributes:
      layout: how the folder was understood, in a sentence.
      entries: the images, in any order.
      tables: names of the tables that were used.
      classes_are: `FOLDERS`, `OUTLINES`, or "" if a table may give the class.
      left_out: why some tables are not used, by name.
      no_table: why no other table is used; "" if any could be.
      notes: what a person should know, in sentences.
    """

    layout: str
    entries: list[Entry]
    tables: list[str]
    classes_are: str = ""
    left_out: Mapping[str, str] = MappingProxyType({})
    no_table: str = ""
    notes: tuple[str, ...] = ()


def entry(
    row: dict[str, Any],
    image: pathlib.Path,
    masks: tuple[pathlib.Path, ...] | None,
    *,
    uid: str,
    where: str,
) -> Entry:
    """Makes an entry from an image and its row in a table.

    Args:
      row: the row, by the meaning of its columns; may be empty.
      image: the image file.
      masks: see `Entry`.
      uid: name of the image if the table gives none.
      where: place of the row, for messages.
    """
    return Entry(
        uid=row.get("uid") or uid,
        image=image,
        masks=masks,
        label=row.get("label", ""),
        group=row.get("group", ""),
        test_fold=columns.fold(row.get("fold", ""), where),
        about=row.get("about", {}),
    )


def finished(root: pathlib.Path, normal: str, layout: str, entries: list[Entry]) -> Listing:
    """Checks names, finds the classes, and puts everything in order.

    Args:
      root: the folder.
      normal: the class that means "no lesion"; "" for ``normal`` if there is such a class.
      layout: how the folder was understood, in a sentence.
      entries: the images in any order, with labels as they are spelled.

    Raises:
      UserError: if there is no entry, a name occurs twice or cannot be used, or ``normal`` is no
        class.
    """
    refuse_empty(entries, root)
    twice = [f for f, count in Counter(str(e.image) for e in entries).items() if count > 1]
    refuse_missing(f"{root}: these images occur twice", twice)
    refuse_doubled(root, ((entry.uid, entry.image) for entry in entries))
    bad = [repr(entry.uid) for entry in entries if not entry.uid.isprintable()]
    refuse_missing(f"{root}: these names hold characters that cannot be printed", bad)
    spelled: dict[str, str] = {}
    for entry in entries:
        if entry.label:
            spelled.setdefault(entry.label.casefold(), _class_name(entry.label))
    classes = _classes(set(spelled.values()), normal, root)
    any_mask = any(entry.masks for entry in entries)
    finished = []
    for entry in entries:
        label = spelled.get(entry.label.casefold(), "")
        masks = entry.masks
        if masks is None and any_mask and label and classes.normal == classes.names.index(label):
            masks = ()  # shows no lesion
        finished.append(dataclasses.replace(entry, label=label, masks=masks))
    numbers = from_zero([entry.test_fold for entry in finished])
    groups: dict[str, str] = {}  # P1 and p1 are one
    finished = [
        dataclasses.replace(
            entry,
            test_fold=number,
            group=groups.setdefault(entry.group.casefold(), entry.group),
        )
        for entry, number in zip(finished, numbers, strict=True)
    ]
    finished.sort(key=lambda entry: (entry.label, natural_key(entry.uid)))
    return Listing(root, layout, finished, classes)


def from_zero(test_fold: list[int]) -> list[int]:
    """Numbers of test folds from 0, also if they were counted from 1 or given as ``test``.

    Args:
      test_fold: the fold of each image, by `columns.fold`.

    Raises:
      UserError: if there are both numbers and the word ``test``.
    """
    tested = {number for number in test_fold if number >= 0}
    if columns.TEST in tested:
        if len(tested) > 1:
            raise UserError(
                "folds are given by numbers and by the word test. Leave the images of a fixed test "
                "set out, or number them as a fold of its own; numbered folds test each in turn."
            )
        return [0 if number == columns.TEST else number for number in test_fold]
    first = 1 if tested and min(tested) == 1 else 0
    return [number - first if number >= 0 else number for number in test_fold]


def _class_name(label: str) -> str:
    known = {name.casefold(): name for name in CLASSES.names}
    return known.get(label.casefold(), label)


def _classes(names: set[str], normal: str, root: pathlib.Path) -> Classes:
    """The classes, in the published order if all are published ones, else in alphabetical order."""
    for name in sorted(names):
        bad = not name.isprintable() or len(name) > 40 or "|" in name  # which joins names in tables
        if bad or name.casefold() in RESERVED:
            raise UserError(
                f"{root}: {name!r} cannot be the name of a class; use up to 40 printable "
                f"characters without |, and not {' or '.join(RESERVED)}."
            )
    if not names and not normal:
        return _NO_CLASSES
    in_order = tuple(n for n in CLASSES.names if n in names)
    if names - set(in_order):
        in_order = tuple(sorted(names))
    if normal and normal not in names:
        raise UserError(
            f"data.normal_class={normal!r} is not a class of {root}. Its classes are: "
            f"{', '.join(in_order)}."
        )
    normal = normal or CLASSES.names[CLASSES.normal]
    return Classes(in_order, in_order.index(normal) if normal in in_order else None)


def refuse_empty(entries: list[Entry], folder: pathlib.Path) -> None:
    """Refuses a folder without a picture.

    Raises:
      UserError: if there is no entry.
    """
    if not entries:
        raise UserError(f"{folder} lists no picture.")


def refuse_doubled(root: pathlib.Path, named: Iterable[tuple[str, pathlib.Path]]) -> None:
    """Refuses images that would have the same name.

    Args:
      root: the folder.
      named: name and file of each.

    Raises:
      UserError: if there are any.
    """
    files: dict[str, list[str]] = {}
    for uid, path in named:
        files.setdefault(uid, []).append(path.name)
    twice = [f"{uid} ({', '.join(names)})" for uid, names in files.items() if len(names) > 1]
    mend = "Take one of the files out, or give a mask the ending _mask"
    refuse_missing(f"{root}: these names occur twice", twice, mend=mend)


def refuse_missing(what: str, names: Iterable[str], mend: str = "") -> None:
    """Refuses names that have a problem.

    Args:
      what: the problem.
      names: the names concerned, of which a few are shown.
      mend: what to do about it.

    Raises:
      UserError: if there are any.
    """
    names = list(names)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        mend = f" {mend}." if mend else ""
        raise UserError(f"{what}: {', '.join(names[:SHOWN])}{more}.{mend}")
