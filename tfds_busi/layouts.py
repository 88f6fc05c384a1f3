"""Folders of your own pictures: which layout a folder has, and what it lists.

No picture is decoded here. `read` looks at names, tables and what DICOM files say of their
patients, and raises `UserError` where something is missing or does not fit together.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import unicodedata
from typing import Any, NamedTuple

from mtbus_jax.errors import UserError
from mtbus_jax.images import pairing
from mtbus_jax.types import NO_FOLD
from tfds_busi import columns, doubts, held, labelme, listing, nrrd, patients

MANIFEST = "manifest.csv"
MANIFESTS = (MANIFEST, "manifest.xlsx")
# Names of folders, in lower case.
_IMAGE_FOLDERS = (*pairing.IMAGE_FOLDERS, "jpegimages")
_MASK_FOLDERS = (*pairing.MASK_FOLDERS, "labels", "segmentationclass", "annotations")
# Parts of a dataset, not classes of it.
_PART_FOLDERS = ("train", "training", "test", "testing", "val", "valid", "validation")
# Of BrEaST: what else is drawn on a picture, no lesion.
_OTHER_NAME = re.compile(r"(.+?)[_-]other(?:[_-]?\d+)?", re.I)
_DEEPEST = 3


def read(root: pathlib.Path, *, normal: str = "") -> listing.Listing:
    """Lists a folder of pictures, whatever of the known layouts it has.

    Args:
      root: the folder, or one that holds nothing but it.
      normal: the class that means "no lesion"; "" for ``normal`` if there is such a class.

    Raises:
      UserError: if the layout is none that is known, with the nearest one and what is missing; or
        if names, tables and files do not fit together.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder. Give the folder that holds the pictures.")
    for _ in range(_DEEPEST):
        for understand in (
            _manifest,
            _nnunet,
            _labelme,
            _image_folder,
            _class_folders,
            _one_folder,
        ):
            found = understand(root)
            if found is not None:
                done = listing.finished(root, normal, found.layout, found.entries)
                return _with_notes(done, found)
        inner = [path for path in held.visible(root) if path.is_dir()]
        if len(inner) != 1 or held.pictures(root) or pairing.folded(inner[0].name) in _MASK_FOLDERS:
            break
        root = inner[0]
    raise UserError(_not_understood(root))


def _with_notes(done: listing.Listing, found: _Understood) -> listing.Listing:
    """Adds patients, unless a table gives a group for each picture, and what is to be said."""
    entries, layout, notes = done.entries, done.layout, []
    if not all(entry.group for entry in entries):
        names, count, notes = patients.of(entries)
        entries = [
            dataclasses.replace(entry, patient=name)
            for entry, name in zip(entries, names, strict=True)
        ]
        layout += f"; {count} patients by their DICOM files" if count else ""
    doubtful = doubts.of(done.root, entries, found.tables, by_folder=found.by_folder)
    notes = [*doubtful, *notes, *found.notes]
    return dataclasses.replace(done, entries=entries, layout=layout, notes=notes)


class _Understood(NamedTuple):
    """What a layout gives: the sentence, entries in any order, names of the tables used, notes."""

    layout: str
    entries: list[listing.Entry]
    tables: list[str]
    by_folder: bool = False
    notes: tuple[str, ...] = ()


def _manifest(root: pathlib.Path) -> _Understood | None:
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
            _entry(row, image, masks, uid=held.uid(root, image), where=f"{path}, line {line}")
        )
    listing.refuse_missing(f"{path} names files that are not there", missing)
    notes = tuple(columns.unused(path.name, names, known))
    said = f"a {path.name} with {len(entries)} images"
    return _Understood(said, entries, [path.name], notes=notes)


def _file(root: pathlib.Path, cell: str) -> pathlib.Path:
    """The file that a cell names, however the letters of its name are put together."""
    path = root / cell.replace("\\", "/")
    if path.is_file():
        return path
    for form in ("NFC", "NFD"):
        other = pathlib.Path(unicodedata.normalize(form, str(path)))
        if other.is_file():
            return other
    return path


def _nnunet(root: pathlib.Path) -> _Understood | None:
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
                f"{path}: images of one channel are read, named like case_0000.png; this is "
                "another one."
            )
        if name not in masks:
            raise UserError(f"{path} has no mask {name}.* in {labels}.")
        entries.append(listing.Entry(name, path, (masks[name],), "", "", NO_FOLD))
    listing.refuse_empty(entries, images)
    return _Understood("nnU-Net's imagesTr and labelsTr, masks without classes", entries, [])


def _labelme(root: pathlib.Path) -> _Understood | None:
    """Pictures with files of LabelMe beside them: outlines, whose label is the picture's class."""
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
        entries.append(
            listing.Entry(
                uid=stem,
                image=path,
                masks=(drawn[stem],) if labels else (() if outlines else None),
                label=labels[0] if labels else "",
                group="",
                test_fold=NO_FOLD,
            )
        )
    return _Understood(
        f"pictures with {len(drawn)} files of LabelMe, whose labels are the classes", entries, []
    )


def _image_folder(root: pathlib.Path) -> _Understood | None:
    """``images/`` with or without ``masks/``, and tables beside them."""
    images, masks = (
        held.named(root, names, folder=True) for names in (_IMAGE_FOLDERS, _MASK_FOLDERS)
    )
    if images is None:
        return None
    if not held.pictures(images):  # a folder of class folders may be called so as well
        return None
    stems = {held.stem(path) for path in held.pictures(images)}
    table, tables, notes = columns.joined_tables(root, stems)
    found = _masks_by_stem(masks, stems) if masks is not None else {}
    entries, used = [], set()
    for path in held.pictures(images):
        stem = held.stem(path)
        own = [found[name] for name in _mask_stems(stem) if name in found]
        used.update(mask for each in own for mask in each)
        row = table.get(stem, {})
        drawn = tuple(mask for each in own for mask in each) or None
        where = f"{path.name} in {' and '.join(tables)}"
        entries.append(_entry(row, path, drawn, uid=stem, where=where))
    if masks is not None:
        stray = [path for each in found.values() for path in each if path not in used]
        listing.refuse_missing(f"{masks} holds masks without an image in {images}", map(str, stray))
    what = [images.name] + ([masks.name] if masks is not None else []) + tables
    if masks is None and not tables:
        raise UserError(
            f"{root} has pictures in {images.name} but neither masks nor a table of labels beside "
            f"it. Add a folder masks with files of the same names, or a {MANIFEST} with the "
            "columns image, mask and label."
        )
    said = f"pictures in {' with '.join(what)}"
    return _Understood(said, entries, tables, notes=tuple(notes))


def _class_folders(root: pathlib.Path) -> _Understood | None:
    """A folder for each class, masks beside their images as in BUSI, or without masks."""
    folders = [
        path for path in held.visible(root) if path.is_dir() and held.pictures(path, deep=True)
    ]
    if len(folders) < 2 or held.pictures(root):
        return None
    _refuse_no_classes(root, folders)
    entries, stray, with_masks = [], [], False
    for folder in folders:
        files = held.pictures(folder, deep=True, drawn=True)
        stems = {(path.parent, held.stem(path)) for path in files}
        masks: dict[tuple[pathlib.Path, str], list[pathlib.Path]] = {}
        images = []
        for path in files:
            owner = held.owner(path)
            if owner is None:
                # A note says of a segmentation that its name is no picture's here.
                images += [] if held.is_segmentation(path) else [path]
            elif (path.parent, owner) in stems:
                masks.setdefault((path.parent, owner), []).append(path)
            else:
                stray.append(str(path))
        with_masks |= bool(masks)
        entries += [
            listing.Entry(
                uid=held.uid(root, path),
                image=path,
                masks=tuple(masks.get((path.parent, held.stem(path)), ())) or None,
                label=folder.name,
                group="",
                test_fold=NO_FOLD,
            )
            for path in images
        ]
    listing.refuse_missing(f"{root} holds masks without an image of that name beside them", stray)
    how = "masks beside the images" if with_masks else "no masks, so for classification alone"
    named = ", ".join(folder.name for folder in folders)
    return _Understood(f"a folder for each class ({named}), {how}", entries, [], by_folder=True)


def _refuse_no_classes(root: pathlib.Path, folders: list[pathlib.Path]) -> None:
    """Refuses folders whose names say that they are something else than classes."""
    drawn = (*_IMAGE_FOLDERS, *_MASK_FOLDERS)
    below = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_dir())
    no_class = (*drawn, *_PART_FOLDERS)
    other = [folder for folder in folders if pairing.folded(folder.name) in no_class]
    other += [folder for folder in below if pairing.folded(folder.name) in drawn]
    if other:
        raise UserError(
            f"{root} holds folders of pictures, but {other[0].relative_to(root)} is not the name "
            f"of a class. Say what is what in a {MANIFEST} with the columns image, mask, label "
            "and, for a fixed test set, fold; or keep masks beside their pictures, named like "
            "picture_mask.png."
        )


def _one_folder(root: pathlib.Path) -> _Understood | None:
    """Pictures in one folder, masks beside them, a table of labels with them, as in BrEaST."""
    files = held.pictures(root, drawn=True)
    stems = {held.stem(path) for path in files}
    masks: dict[str, list[pathlib.Path]] = {}
    images, stray = [], []
    for path in files:
        owner = held.owner(path)
        other = _OTHER_NAME.fullmatch(held.stem(path))
        if owner in stems:
            masks.setdefault(owner, []).append(path)
        elif path.suffix.lower() == nrrd.SUFFIX:
            stray.append(str(path))
        elif (other is None or other[1] not in stems) and not held.is_segmentation(path):
            images.append(path)
    listing.refuse_missing(f"{root} holds masks without an image of that name beside them", stray)
    table, tables, notes = columns.joined_tables(root, {held.stem(path) for path in images})
    if not images or not (masks or tables):
        return None
    entries = [
        _entry(
            table.get(held.stem(path), {}),
            path,
            tuple(masks.get(held.stem(path), ())) or None,
            uid=held.stem(path),
            where=f"{path.name} in {root}",
        )
        for path in images
    ]
    beside = ["masks"] * bool(masks) + tables
    said = f"pictures in one folder with {' and '.join(beside)}"
    return _Understood(said, entries, tables, notes=tuple(notes))


def _entry(
    row: dict[str, Any],
    image: pathlib.Path,
    masks: tuple[pathlib.Path, ...] | None,
    *,
    uid: str,
    where: str,
) -> listing.Entry:
    """An image with what a table says of it; ``uid`` where the table gives none."""
    return listing.Entry(
        uid=row.get("uid") or uid,
        image=image,
        masks=masks,
        label=row.get("label", ""),
        group=row.get("group", ""),
        test_fold=columns.fold(row.get("fold", ""), where),
        about=row.get("about", {}),
    )


def _masks_by_stem(folder: pathlib.Path, stems: set[str]) -> dict[str, list[pathlib.Path]]:
    """Mask files by the name that an image of theirs may have; its very name comes first."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in held.pictures(folder, drawn=True):
        stem = held.stem(path)
        own = stem if stem in stems else held.owner(path) or stem
        found.setdefault(own, []).append(path)
    return found


def _mask_stems(stem: str) -> list[str]:
    """Names that the mask of an image may have, apart from endings such as ``_mask``."""
    plain = stem.removeprefix("bus_")  # BUS-BRA: bus_0001-l.png, mask_0001-l.png
    return list(dict.fromkeys([stem, f"mask_{stem}", f"mask_{plain}"]))


def _not_understood(root: pathlib.Path) -> str:
    names = [path.name + "/" * path.is_dir() for path in held.visible(root)][: listing.SHOWN]
    holds = f"It holds {', '.join(names)}" if names else "It is empty"
    if held.pictures(root):
        nearest = (
            f"Nearest is a folder with a {MANIFEST}: a table with the columns image, mask and "
            "label is missing."
        )
    elif held.named(root, _MASK_FOLDERS, folder=True):
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
