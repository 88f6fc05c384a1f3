"""What a person should know about how a folder was understood, and what of it is not used."""

from __future__ import annotations

import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from mtbus_jax.errors import UserError
from mtbus_jax.images import pairing
from mtbus_jax.types import NO_FOLD, VALIDATION_FOLD
from tfds_busi import arranged, columns, held, labelme, listing

# A text file may be anything.
_TABLES = tuple(suffix for suffix in columns.SUFFIXES if suffix != ".txt")
# Tables of other programs, which are not read.
_OTHER_TABLES = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
_COCO = re.compile(r".*(instances|annotations|coco)", re.I)
# Files in which programs write outlines; COCO, VOC, ITK-SNAP and MATLAB are among them.
_OUTLINES = (".json", ".xml", ".nii", ".nii.gz", ".mha", ".mhd", ".mat")
# This many folders whose names differ only in their numbers are probably not classes.
_FEW = 4
# What people write into a cell whose value they do not know.
_UNKNOWN = re.compile(
    r"[?.–—-]+|n\.?/?a\.?|nan|null|none|unknown|missing|unbekannt|k\.?\s?a\.?", re.I
)


def of(done: listing.Listing, found: listing.Understood) -> list[str]:
    """Sentences about a folder, the most serious first; empty if there is nothing to say.

    Args:
      done: the folder, with patients.
      found: its layout.
    """
    root, entries = done.root, done.entries
    notes = [*_patients(root, entries)] if found.classes_are == listing.FOLDERS else []
    notes += [*_divided(entries), *_unknown(done, found)]
    notes += [*_without_fold(entries), *_without_group(entries)]
    return [*notes, *_tables(root, found), *_tables_within(root, entries, found),
            *_outlines(root, entries), *_pictures(root, entries)]  # fmt: skip


def above(folder: pathlib.Path, inner: pathlib.Path) -> list[str]:
    """Sentences about tables that lie above the folder with the pictures.

    Args:
      folder: the folder that was given.
      inner: the folder with the pictures.
    """
    between = [each for each in (inner, *inner.parents) if each.is_relative_to(folder)]
    return [
        f"{path.name} is not used: it lies above the pictures. If it is about them, put it into "
        f"{inner.name}."
        for place in between
        if place != inner
        for path in held.visible(place)
        if _is_table(path)
    ]


def _patients(root: pathlib.Path, entries: Sequence[listing.Entry]) -> Iterator[str]:
    names = sorted({entry.label for entry in entries})
    mend = "If these are patients, name them in the column group of a manifest.csv"
    if len(names) >= _FEW and len({re.sub(r"\d+", "", name) for name in names}) == 1:
        yield (
            f"the {len(names)} folders {names[0]} to {names[-1]} are taken for classes. {mend}, "
            "and the classes in its column label."
        )
    elif _folders_are_patients(entries):
        yield (
            f"each of the {len(names)} folders holds the pictures of one patient, by their DICOM "
            "files, but they are taken for classes. Name the classes in the column label of a "
            "manifest.csv."
        )
    deeper = [
        entry
        for entry in entries
        if len(entry.image.relative_to(root).parts) > 2 and not (entry.patient or entry.group)
    ]
    if deeper:
        yield (
            f"{len(deeper)} pictures lie in folders within their class, such as "
            f"{deeper[0].image.relative_to(root)}, and a folder's pictures are not kept together. "
            f"{mend}: else the same patient may be in training and test images."
        )


def _folders_are_patients(entries: Sequence[listing.Entry]) -> bool:
    of_folder: dict[str, set[str]] = {}
    for entry in entries:
        of_folder.setdefault(entry.label, set()).add(entry.patient)
    patients = [name for each in of_folder.values() for name in each if len(each) == 1]
    one_each = len(patients) == len(of_folder) and all(patients)
    return one_each and len(set(patients)) == len(patients) and len(entries) > len(patients)


def _divided(entries: Sequence[listing.Entry]) -> Iterator[str]:
    """Sentences about patients whose pictures are in several folds, or in several groups."""
    folds: dict[str, set[int]] = {}
    groups: dict[str, set[str]] = {}
    for entry in entries:
        folds.setdefault(entry.group or entry.patient, set()).add(entry.test_fold)
        groups.setdefault(entry.patient, set()).add(entry.group)
    divided = [name for name, found in folds.items() if name and len(found) > 1 and max(found) >= 0]
    if divided:
        yield (
            f"the column fold divides the pictures of {len(divided)} patients or groups, such as "
            f"{divided[0]}: they are trained on and tested. The split grouped keeps them together."
        )
    several = [
        name for name, found in groups.items() if name and "" not in found and len(found) > 1
    ]
    if several:
        yield (
            f"the column group divides the pictures of {len(several)} patients by their DICOM "
            f"files, such as the {several[0]}; the column counts. Leave it out if it does not name "
            "patients."
        )


def _unknown(done: listing.Listing, found: listing.Understood) -> Iterator[str]:
    names, normal = done.classes.names, done.classes.normal
    mend = "leave these cells empty"
    of_class = "name the classes in a manifest.csv and leave theirs empty"
    for what, values, meaning, how in (
        (
            "class",
            [
                entry.label
                for entry in done.entries
                if normal is None or entry.label != names[normal]
            ],
            "is a class like others",
            of_class if found.classes_are else mend,
        ),
        (
            "group",
            [entry.group for entry in done.entries],
            "is one group, whose pictures stay together",
            mend,
        ),
    ):
        counts = Counter(value for value in values if _UNKNOWN.fullmatch(value))
        for value, count in counts.items():
            yield (
                f"{value!r}, the {what} of {count} pictures, {meaning}. If it means that the "
                f"{what} is not known, {how}."
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


def _tables(root: pathlib.Path, found: listing.Understood) -> Iterator[str]:
    for path in held.visible(root):
        if path.suffix.lower() in _OTHER_TABLES:
            yield f"{path.name} is not read; save it as .xlsx or CSV if it is about these pictures."
        elif _is_table(path) and path.name not in found.tables:
            yield f"{path.name} is not used: {_why_not(path, found)}."


def _is_table(path: pathlib.Path) -> bool:
    return path.suffix.lower() in _TABLES and path.name not in columns.PASSED_OVER


def _tables_within(
    root: pathlib.Path, entries: Sequence[listing.Entry], found: listing.Understood
) -> Iterator[str]:
    """Sentences about tables that lie in a folder with pictures."""
    for folder in sorted({entry.image.parent for entry in entries} - {root}):
        for path in held.visible(folder):
            if _is_table(path) and folder.resolve().is_relative_to(root.resolve()):
                why = found.no_table or f"tables are read from {root.name} alone; put it there"
                yield f"{path.resolve().relative_to(root.resolve())} is not used: {why}."


def _why_not(path: pathlib.Path, found: listing.Understood) -> str:
    """The reason why a table is not used."""
    if found.no_table or path.name in found.left_out:
        return found.no_table or found.left_out[path.name]
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
    if found.classes_are and not known.keys() & {"group", "fold"}:
        return (
            f"the {found.classes_are} are the classes, and no column of its first row ({listed}) "
            "is called group or fold"
        )
    if not known.keys() & {"label", "group", "fold"}:
        return f"no column of its first row ({listed}) is called label, group or fold"
    return "no row of it names a picture here"


def _outlines(root: pathlib.Path, entries: Sequence[listing.Entry]) -> Iterator[str]:
    """Sentences about files that may be outlines in a format that is not read."""
    # A LabelMe file needs no note if its picture has a mask or is known to have none.
    own = {held.outlines_of(e.image).resolve() for e in entries if e.masks is not None}
    left = [
        path.relative_to(root)
        for path in held.files(root, deep=True)
        if path.name.lower().endswith(_OUTLINES)
        and path.resolve() not in own
        and (path.suffix.lower() != labelme.SUFFIX or _may_be_outlines(path))
    ]
    if left:
        more = f" and {len(left) - 1} more like it are" if len(left) > 1 else " is"
        yield (
            f"{left[0]}{more} not read. If these are outlines: masks are read from pictures such "
            "as PNG, DICOM segmentations, 3D Slicer's .seg.nrrd, and LabelMe's .json beside the "
            "pictures."
        )


def _may_be_outlines(path: pathlib.Path) -> bool:
    """Whether a JSON file is COCO's by its name, or lies in a folder of masks."""
    in_masks = pairing.folded(path.parent.name) in arranged.MASK_FOLDERS
    return in_masks or bool(_COCO.match(path.name))


def _pictures(root: pathlib.Path, entries: Sequence[listing.Entry]) -> Iterator[str]:
    used = {path.resolve() for entry in entries for path in (entry.image, *(entry.masks or ()))}
    files = held.pictures(root, deep=True, drawn=True)
    left = sorted(path.relative_to(root) for path in files if path.resolve() not in used)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        are = "are" if len(left) > 1 else "is"
        yield f"{left[0]}{more} {are} not used."
