"""Folders of your own pictures: which layout a folder has, and what it lists.

No picture is decoded here. `read` looks at names, tables and the patients that DICOM files name,
and raises `UserError` if something is missing or does not fit together.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import unicodedata

from mtbus_jax.errors import UserError
from mtbus_jax.images import pairing
from mtbus_jax.types import NO_FOLD
from tfds_busi import arranged, columns, doubts, held, labelme, listing, patients

MANIFEST = "manifest.csv"
MANIFESTS = (MANIFEST, "manifest.xlsx")
_DEEPEST = 3


def read(root: pathlib.Path, *, normal: str = "") -> listing.Listing:
    """Lists a folder of pictures in any of the known layouts.

    Args:
      root: the folder, or one that holds nothing but it.
      normal: the class that means "no lesion"; "" for ``normal`` if there is such a class.

    Raises:
      UserError: if the layout is unknown, with the nearest known one and what is missing; or if
        names, tables and files do not fit together.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder. Give the folder that holds the pictures.")
    given = root
    for _ in range(_DEEPEST):
        for understand in (
            _manifest,
            _nnunet,
            _labelme,
            arranged.image_folder,
            arranged.class_folders,
            arranged.one_folder,
        ):
            found = understand(root)
            if found is not None:
                done = listing.finished(root, normal, found.layout, found.entries)
                done = _with_patients(done)
                notes = [*doubts.of(done, found), *doubts.above(given, root), *found.notes]
                return dataclasses.replace(done, notes=[*done.notes, *notes])
        inner = [path for path in held.visible(root) if path.is_dir()]
        masks = inner and pairing.folded(inner[0].name) in arranged.MASK_FOLDERS
        if len(inner) != 1 or held.pictures(root) or masks:
            break
        root = inner[0]
    raise UserError(_not_understood(root))


def _with_patients(done: listing.Listing) -> listing.Listing:
    """Adds the patients that DICOM files name, and notes on them."""
    found = patients.of(done.entries)
    entries = [
        dataclasses.replace(entry, patient=name)
        for entry, name in zip(done.entries, found.names, strict=True)
    ]
    if all(entry.group for entry in entries):  # a table gives the groups
        return dataclasses.replace(done, entries=entries)
    layout = "; ".join([done.layout, *found.said])
    return dataclasses.replace(done, entries=entries, layout=layout, notes=found.notes)


def _manifest(root: pathlib.Path) -> listing.Understood | None:
    """``manifest.csv``: a row for each image."""
    path = held.named(root, MANIFESTS)
    if path is None:
        return None
    names, rows = columns.read_table(path)
    known = columns.with_images(names, rows, lambda cell: _file(root, cell).is_file())
    if "image" not in known:
        raise UserError(
            f"{path} has the columns {', '.join(names)}; one called image is needed, and mask, "
            "label, uid, group and fold may follow."
        )
    entries, missing = [], []
    for line, cells in rows:
        row = {what: cells.get(column, "") for what, column in known.items()}
        row["about"] = columns.others(known, cells)
        if not row["image"]:
            raise UserError(f"{path}, line {line}: the cell under {known['image']} is empty.")
        image = _file(root, row["image"])
        masks = None
        if row.get("mask"):
            masks = tuple(_file(root, name.strip()) for name in row["mask"].split("|"))
        missing += [f"{p} (line {line})" for p in (image, *(masks or ())) if not p.is_file()]
        entries.append(
            listing.entry(
                row, image, masks, uid=held.uid(root, image), where=f"{path}, line {line}"
            )
        )
    listing.refuse_missing(f"{path} names files that are not there", missing)
    notes = tuple(columns.unused(path.name, names, known))
    said = f"a {path.name} with {len(entries)} images"
    why = f"{path.name} says what is what"
    return listing.Understood(said, entries, [path.name], no_table=why, notes=notes)


def _file(root: pathlib.Path, cell: str) -> pathlib.Path:
    """The file that a cell names, with letters and accents combined or separate."""
    path = root / cell.replace("\\", "/")
    if path.is_file():
        return path
    for form in ("NFC", "NFD"):
        other = pathlib.Path(unicodedata.normalize(form, str(path)))
        if other.is_file():
            return other
    return path


def _nnunet(root: pathlib.Path) -> listing.Understood | None:
    """nnU-Net's raw folder: ``imagesTr``, ``labelsTr``, ``dataset.json``."""
    images, labels = root / "imagesTr", root / "labelsTr"
    if not images.is_dir():
        return None
    if not (labels.is_dir() and (root / "dataset.json").is_file()):
        raise UserError(
            f"{root} looks like a raw folder of nnU-Net (imagesTr), but labelsTr or dataset.json "
            "is missing."
        )
    try:
        json.loads((root / "dataset.json").read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{root / 'dataset.json'} is not JSON ({error}).") from None
    masks = {held.stem(path): path for path in held.pictures(labels)}
    entries = []
    for path in held.pictures(images):
        name, _, channel = held.stem(path).rpartition("_")
        if channel != "0000":
            raise UserError(
                f"{path}: only images with one channel are read, named like case_0000.png; this "
                "name ends otherwise."
            )
        if name not in masks:
            raise UserError(f"{path} has no mask {name}.* in {labels}.")
        entries.append(listing.Entry(name, path, (masks[name],), "", "", NO_FOLD))
    listing.refuse_empty(entries, images)
    said = "nnU-Net's imagesTr and labelsTr, masks without classes"
    return listing.Understood(said, entries, [], no_table="nnU-Net's layout has none")


def _labelme(root: pathlib.Path) -> listing.Understood | None:
    """Pictures with LabelMe files beside them; the outlines' label is the picture's class."""
    files = {
        path.stem: path for path in held.visible(root) if path.suffix.lower() == labelme.SUFFIX
    }
    drawn = {stem: path for stem, path in files.items() if labelme.is_labelme(path)}
    pictures = held.pictures(root)
    stems = {held.stem(path) for path in pictures}
    if not drawn or not stems & drawn.keys():
        return None
    listing.refuse_missing(
        f"{root} holds files of LabelMe without a picture of that name",
        sorted(path.name for stem, path in drawn.items() if stem not in stems),
    )
    table, tables, notes, left_out = columns.joined_tables(root, stems, labels=False)
    entries = []
    for path in pictures:
        stem = held.stem(path)
        outlines = labelme.read(drawn[stem]) if stem in drawn else None
        labels = outlines.labels if outlines else []
        if len(labels) > 1:
            raise UserError(
                f"{drawn[stem]} has shapes labelled {' and '.join(labels)}; a picture has one "
                "class. Give all its lesions the same label."
            )
        masks = (drawn[stem],) if labels else None
        if outlines and not labels and not outlines.marks:
            masks = ()  # looked at, and nothing outlined
        row = table.get(stem, {}) | {"label": labels[0] if labels else ""}
        where = f"{path.name} in {' and '.join(tables)}"
        entries.append(listing.entry(row, path, masks, uid=stem, where=where))
    said = f"pictures with {len(drawn)} files of LabelMe, whose labels are the classes"
    return listing.Understood(
        " with ".join([said, *tables]),
        entries,
        tables,
        classes_are=listing.OUTLINES,
        left_out=left_out,
        notes=tuple(notes),
    )


def _not_understood(root: pathlib.Path) -> str:
    names = [path.name + "/" * path.is_dir() for path in held.visible(root)][: listing.SHOWN]
    holds = f"It holds {', '.join(names)}" if names else "It is empty"
    inner = [path.name for path in held.visible(root) if path.is_dir()]
    pictures = held.pictures(root)
    if pictures and inner:
        nearest = (
            f"Nearest are its folders {', '.join(inner[: listing.SHOWN])}, but {pictures[0].name} "
            f"lies beside them: take it out, or say what is what in a {MANIFEST} with the columns "
            "image, mask and label."
        )
    elif pictures:
        nearest = (
            f"Nearest is a folder with a {MANIFEST}: a table with the columns image, mask and "
            "label is missing."
        )
    elif held.named(root, arranged.MASK_FOLDERS, folder=True):
        nearest = "Nearest is a folder with images/ and masks/: the folder images is missing."
    else:
        nearest = (
            "Nearest is a folder for each class, two or more, with the pictures in them and masks "
            "named like picture_mask.png."
        )
    return (
        f"{root} has no layout that is understood. {holds}. {nearest} docs/own_data.md lists the "
        "layouts."
    )
