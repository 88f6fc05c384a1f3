"""Layouts that show in the names of files and folders, with tables beside them."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable

from mtbus_jax.errors import UserError
from mtbus_jax.images import pairing
from mtbus_jax.types import CLASSES
from tfds_busi import columns, held, labelme, listing, nrrd

# Names of folders, in lower case.
IMAGE_FOLDERS = (*pairing.IMAGE_FOLDERS, "jpegimages")
MASK_FOLDERS = (*pairing.MASK_FOLDERS, "labels", "segmentationclass", "annotations")
# Parts of a dataset, not classes of it.
_PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")
_PART_FOLDERS = (*_PARTS, *(f"{part}{end}" for part in _PARTS for end in ("_set", "-set", "set")))
# In BrEaST: other outlines on a picture, which are not lesions.
_OTHER_NAME = re.compile(r"(.+?)[_-]other(?:[_-]?\d+)?", re.I)
# The name of a mask, or of a picture of a tumour.
_TUMOUR_NAME = re.compile(r".+[ ._-]tumou?r(?:_?\d+)?", re.I)
# What may stand around the name that a picture and its mask share.
_PICTURE_AROUND = re.compile(r"(?:bus|image|img)_(?P<after>.+)|(?P<before>.+)_(?:image|img)", re.I)
_SAY_IT = (
    "Rename them like a picture with the ending _mask, or say what is what in a manifest.csv with "
    "the columns image, mask and label"
)


def image_folder(root: pathlib.Path) -> listing.Understood | None:
    """``images/`` with or without ``masks/``, and tables beside them."""
    images, masks = (
        held.named(root, names, folder=True) for names in (IMAGE_FOLDERS, MASK_FOLDERS)
    )
    if images is None:
        return None
    pictures = held.pictures(images)
    if not pictures:  # a folder of class folders may have such a name, too
        return None
    listing.refuse_doubled(root, ((held.stem(path), path) for path in pictures))
    stems = {held.stem(path) for path in pictures}
    table, tables, notes, _ = columns.joined_tables(root, stems)
    outlined = _outlined(pictures)
    key = _same_name(stems)
    keys = set(map(key, stems))
    found = _masks_by_picture(masks, keys, key) if masks is not None else {}
    entries, of_mask = [], {}
    for path in pictures:
        stem = held.stem(path)
        drawn = [mask for name in _mask_names(key(stem), keys) for mask in found.get(name, ())]
        for mask in drawn:
            if of_mask.setdefault(mask, path) != path:
                raise UserError(
                    f"{mask} may be a mask of {of_mask[mask].name} and of {path.name}. {_SAY_IT}."
                )
        where = f"{path.name} in {' and '.join(tables)}"
        row = table.get(stem, {})
        drawn = tuple(drawn) or outlined[path]
        entries.append(listing.entry(row, path, drawn, uid=stem, where=where))
    if masks is not None:
        stray = [path for each in found.values() for path in each if path not in of_mask]
        _refuse_stray(f"{masks} holds masks without an image in {images}", stray)
    beside = ["files of LabelMe"] * any(outlined.values())
    what = [images.name] + ([masks.name] if found else []) + beside + tables
    if len(what) == 1:
        raise UserError(
            f"{root} has pictures in {images.name} but neither masks that can be read nor a table "
            "of labels beside it. Add a folder masks with files of the same names, or a "
            "manifest.csv with the columns image, mask and label."
        )
    said = f"pictures in {' with '.join(what)}"
    return listing.Understood(said, entries, tables, notes=tuple(notes))


def class_folders(root: pathlib.Path) -> listing.Understood | None:
    """A folder for each class, masks beside their images as in BUSI, or without masks.

    LabelMe outlines beside an image are its mask. Tables may give groups and folds.
    """
    folders = _with_pictures(root)
    if len(folders) < 2 or held.pictures(root):
        return None
    _refuse_no_classes(root, folders)
    files = [(folder, path) for folder in folders for path in _drawn_too(folder)]
    key = _same_name((path.parent / held.stem(path)).as_posix() for _, path in files)

    def place(path: pathlib.Path, stem: str) -> str:
        return key((path.parent / stem).as_posix())

    places = {place(path, held.stem(path)) for _, path in files}
    masks: dict[str, list[pathlib.Path]] = {}
    images, stray = [], []
    for folder, path in files:
        owner = held.owner(path)
        if owner is None:
            # A segmentation without the name of a mask is not used; a note says so.
            images += [] if held.is_segmentation(path) else [(folder, path)]
        elif place(path, owner) in places:
            masks.setdefault(place(path, owner), []).append(path)
        else:
            stray.append((folder, path))
    if not any(_TUMOUR_NAME.fullmatch(held.stem(m)) for each in masks.values() for m in each):
        images += [each for each in stray if _TUMOUR_NAME.fullmatch(held.stem(each[1]))]
        stray = [each for each in stray if each not in images]
    _refuse_stray(
        f"{root} holds masks without an image of that name beside them", (p for _, p in stray)
    )
    uids = [held.uid(root, path) for _, path in images]
    table, tables, notes, left_out = columns.joined_tables(root, uids, labels=False)
    outlined = _outlined(path for _, path in images)
    entries = []
    for (folder, path), uid in zip(images, uids, strict=True):
        drawn = tuple(masks.get(place(path, held.stem(path)), ())) or outlined[path]
        row = table.get(uid, {}) | {"label": folder.name}
        where = f"{uid} in {' and '.join(tables)}"
        entries.append(listing.entry(row, path, drawn, uid=uid, where=where))
    with_masks = any(entry.masks for entry in entries)
    how = "masks beside the images" if with_masks else "no masks, so for classification alone"
    named = ", ".join(folder.name for folder in folders)
    said = " with ".join([f"a folder for each class ({named}), {how}", *tables])
    return listing.Understood(
        said,
        entries,
        tables,
        classes_are=listing.FOLDERS,
        left_out=left_out,
        notes=tuple(notes),
    )


def _with_pictures(root: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in held.visible(root) if path.is_dir() and held.has_picture(path)]


def _drawn_too(folder: pathlib.Path) -> list[pathlib.Path]:
    return held.pictures(folder, deep=True, drawn=True)


def _outlined(
    images: Iterable[pathlib.Path],
) -> dict[pathlib.Path, tuple[pathlib.Path, ...] | None]:
    """The LabelMe file beside each image; empty if it has no shape.

    None if there is no such file, or if it has lines and points only.

    If no file has a shape, the files are not about outlines, and all are None.
    """
    files = {image: held.outlines_of(image) for image in images}
    labels = {image: labelme.labels(path) for image, path in files.items()}
    found = {
        image: None if labels[image] is None else ((path,) if labels[image] else ())
        for image, path in files.items()
    }
    return found if any(found.values()) else dict.fromkeys(found)


def _refuse_no_classes(root: pathlib.Path, folders: list[pathlib.Path]) -> None:
    """Refuses folders whose names show that they are not classes."""
    drawn = (*IMAGE_FOLDERS, *MASK_FOLDERS)
    below = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_dir())
    no_class = (*drawn, *_PART_FOLDERS)
    other = [folder for folder in folders if pairing.folded(folder.name) in no_class]
    other += [folder for folder in below if pairing.folded(folder.name) in drawn]
    say_it = (
        "Say what is what in a manifest.csv with the columns image, mask, label and, for a fixed "
        "test set, fold"
    )
    if other:
        raise UserError(
            f"{root} holds folders of pictures, but {other[0].relative_to(root)} is not the name "
            f"of a class. {say_it}; or keep masks beside their pictures, named like "
            "picture_mask.png."
        )
    for folder in folders:
        inner = [path.name for path in _with_pictures(folder)]
        classes = [name for name in inner if pairing.folded(name) in CLASSES.names]
        if len(classes) > 1 and pairing.folded(folder.name) not in CLASSES.names:
            raise UserError(
                f"{root} holds folders of pictures, but {folder.name} holds the classes "
                f"{', '.join(classes)} and is hardly one itself. {say_it}; or put all pictures of "
                "a class into one folder."
            )


def one_folder(root: pathlib.Path) -> listing.Understood | None:
    """Pictures in one folder, with masks and a table of labels beside them, as in BrEaST."""
    files = held.pictures(root, drawn=True)
    key = _same_name(held.stem(path) for path in files)
    keys = {key(held.stem(path)) for path in files}
    masks: dict[str, list[pathlib.Path]] = {}
    images, stray = [], []
    for path in files:
        owner = held.owner(path)
        other = _OTHER_NAME.fullmatch(held.stem(path))
        if owner is not None and key(owner) in keys:
            masks.setdefault(key(owner), []).append(path)
        elif path.suffix.lower() == nrrd.SUFFIX:
            stray.append(path)
        elif (other is None or key(other[1]) not in keys) and not held.is_segmentation(path):
            images.append(path)
    _refuse_stray(f"{root} holds masks without an image of that name beside them", stray)
    table, tables, notes, _ = columns.joined_tables(root, {held.stem(path) for path in images})
    if not images or not (masks or tables):
        return None
    entries = [
        listing.entry(
            table.get(held.stem(path), {}),
            path,
            tuple(masks.get(key(held.stem(path)), ())) or None,
            uid=held.stem(path),
            where=f"{path.name} in {root}",
        )
        for path in images
    ]
    beside = ["masks"] * bool(masks) + tables
    said = f"pictures in one folder with {' and '.join(beside)}"
    return listing.Understood(said, entries, tables, notes=tuple(notes))


def _refuse_stray(what: str, masks: Iterable[pathlib.Path]) -> None:
    listing.refuse_missing(what, map(str, masks), mend=_SAY_IT)


def _same_name(stems: Iterable[str]) -> Callable[[str], str]:
    """How to compare names: their case does not matter, unless some differ only in case."""
    stems = set(stems)
    alike = len(set(map(columns.folded, stems))) < len(stems)
    return str if alike else columns.folded


def _masks_by_picture(
    folder: pathlib.Path, keys: set[str], key: Callable[[str], str]
) -> dict[str, list[pathlib.Path]]:
    """Mask files by the name of the image they may belong to; one of the same name, if any."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in held.pictures(folder, drawn=True):
        stem = held.stem(path)
        own = stem if key(stem) in keys else held.owner(path) or stem
        found.setdefault(key(own), []).append(path)
    return found


def _mask_names(name: str, pictures: set[str]) -> list[str]:
    """Names that the mask of an image may have, apart from endings such as ``_mask``.

    Args:
      name: name of the image.
      pictures: names of all pictures; a mask with the name of one belongs to that one.
    """
    names = [name, f"mask_{name}"]
    if around := _PICTURE_AROUND.fullmatch(name):
        plain = around["after"] or around["before"]  # BUS-BRA: bus_0001-l.png, mask_0001-l.png
        names += [] if plain in pictures else [plain, f"mask_{plain}"]
    return names
