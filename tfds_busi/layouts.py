"""Folders of one's own pictures: which layout a folder has, and what it lists.

Nothing is decoded here. `read` looks at names and tables only and raises `UserError` where
something is missing or does not fit together.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterable

from mtbus_jax.errors import UserError
from mtbus_jax.images import pairing
from mtbus_jax.metrics.meaning import RESERVED
from mtbus_jax.types import CLASSES, NO_FOLD, Classes
from tfds_busi import columns

MANIFEST = "manifest.csv"
# Names of folders, in lower case.
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
_MASK_FOLDERS = ("masks", "mask", "labels", "segmentationclass", "annotations", "ground_truth")
_MASK_NAME = re.compile(r"(.+?)[_-](?:mask|seg|segmentation|tumou?r|gt)(?:[_-]?\d+)?", re.I)
# Of BrEaST: what else is drawn on a picture, no lesion.
_OTHER_NAME = re.compile(r"(.+?)[_-]other(?:[_-]?\d+)?", re.I)
_SHOWN = 5
_DEEPEST = 3
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
      test_fold: the fold that tests it, or `NO_FOLD`.
    """

    uid: str
    image: pathlib.Path
    masks: tuple[pathlib.Path, ...] | None
    label: str
    group: str
    test_fold: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
      root: the folder, that with the pictures if it was nested.
      layout: how it was understood, in a sentence.
      entries: the images, by class and then by name, numbers in their order.
      classes: of the labels.
    """

    root: pathlib.Path
    layout: str
    entries: list[Entry]
    classes: Classes


def read(root: pathlib.Path, *, normal: str = "") -> Listing:
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
        raise UserError(f"{root} is no folder. Give the folder that holds the pictures.")
    for _ in range(_DEEPEST):
        for understand in (_manifest, _nnunet, _image_folder, _class_folders, _one_folder):
            found = understand(root)
            if found is not None:
                return _finished(root, normal, *found)
        inner = [path for path in columns.visible(root) if path.is_dir()]
        if len(inner) != 1 or _pictures(root) or inner[0].name.lower() in _MASK_FOLDERS:
            break
        root = inner[0]
    raise UserError(_not_understood(root))


# What a layout gives: the sentence, and entries in any order.
_Understood = tuple[str, list[Entry]]


def _manifest(root: pathlib.Path) -> _Understood | None:
    """``manifest.csv``: a row for each image."""
    path = _named(root, (MANIFEST,))
    if path is None:
        return None
    names, rows = columns.read_table(path)
    known = columns.which(names)
    if "image" not in known:
        raise UserError(
            f"{path} has the columns {', '.join(names)}; one called image is needed, and mask, "
            "label, uid, group and fold may follow."
        )
    entries, missing = [], []
    for line, cells in rows:
        row = {what: cells.get(column, "") for what, column in known.items()}
        if not row["image"]:
            raise UserError(f"{path}, line {line}: the cell under {known['image']} is empty.")
        image = root / row["image"].replace("\\", "/")
        masks = None
        if row.get("mask"):
            masks = tuple(root / m.strip().replace("\\", "/") for m in row["mask"].split("|"))
        missing += [f"{p} (line {line})" for p in (image, *(masks or ())) if not p.is_file()]
        entries.append(
            Entry(
                uid=row.get("uid") or _uid(root, image),
                image=image,
                masks=masks,
                label=row.get("label", ""),
                group=row.get("group", ""),
                test_fold=columns.fold(row.get("fold", ""), f"{path}, line {line}"),
            )
        )
    _refuse_missing(f"{path} names files that are not there", missing)
    return f"a {MANIFEST} with {len(entries)} images", entries


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
        raise UserError(f"{root / 'dataset.json'} is no JSON ({error}).") from None
    masks = {path.stem: path for path in _pictures(labels)}
    entries = []
    for path in _pictures(images):
        name, _, channel = path.stem.rpartition("_")
        if channel != "0000":
            raise UserError(
                f"{path}: images of one channel are read, named like case_0000.png; this is "
                "another one."
            )
        if name not in masks:
            raise UserError(f"{path} has no mask {name}.* in {labels}.")
        entries.append(Entry(name, path, (masks[name],), "", "", NO_FOLD))
    _refuse_empty(entries, images)
    return "nnU-Net's imagesTr and labelsTr, masks without classes", entries


def _image_folder(root: pathlib.Path) -> _Understood | None:
    """``images/`` with or without ``masks/``, and tables beside them."""
    images, masks = (_named(root, names, folder=True) for names in (_IMAGE_FOLDERS, _MASK_FOLDERS))
    if images is None:
        return None
    if not _pictures(images):  # a folder of class folders may be called so as well
        return None
    table, tables = columns.joined_tables(root, {path.stem for path in _pictures(images)})
    found = _masks_by_stem(masks) if masks is not None else {}
    entries, used = [], set()
    for path in _pictures(images):
        own = [found[name] for name in _mask_stems(path.stem) if name in found]
        used.update(mask for each in own for mask in each)
        row = table.get(path.stem, {})
        entries.append(
            Entry(
                uid=row.get("uid") or path.stem,
                image=path,
                masks=tuple(mask for each in own for mask in each) or None,
                label=row.get("label", ""),
                group=row.get("group", ""),
                test_fold=columns.fold(
                    row.get("fold", ""), f"{path.name} in {' and '.join(tables)}"
                ),
            )
        )
    if masks is not None:
        stray = [path for each in found.values() for path in each if path not in used]
        _refuse_missing(f"{masks} holds masks without an image in {images}", map(str, stray))
    what = [images.name] + ([masks.name] if masks is not None else []) + tables
    if masks is None and not tables:
        raise UserError(
            f"{root} has pictures in {images.name} but neither masks nor a table of labels beside "
            f"it. Add a folder masks with files of the same names, or a {MANIFEST} with the "
            "columns image, mask and label."
        )
    return f"pictures in {' with '.join(what)}", entries


def _class_folders(root: pathlib.Path) -> _Understood | None:
    """A folder for each class, masks beside their images as in BUSI, or without masks."""
    folders = [
        path for path in columns.visible(root) if path.is_dir() and _pictures(path, deep=True)
    ]
    if len(folders) < 2 or _pictures(root):
        return None
    entries, stray, with_masks = [], [], False
    for folder in folders:
        files = _pictures(folder, deep=True)
        stems = {(path.parent, path.stem) for path in files}
        masks: dict[tuple[pathlib.Path, str], list[pathlib.Path]] = {}
        images = []
        for path in files:
            match = _MASK_NAME.fullmatch(path.stem)
            if match is None:
                images.append(path)
            elif (path.parent, match[1]) in stems:
                masks.setdefault((path.parent, match[1]), []).append(path)
            else:
                stray.append(str(path))
        with_masks |= bool(masks)
        entries += [
            Entry(
                uid=_uid(root, path),
                image=path,
                masks=tuple(masks.get((path.parent, path.stem), ())) or None,
                label=folder.name,
                group="",
                test_fold=NO_FOLD,
            )
            for path in images
        ]
    _refuse_missing(f"{root} holds masks without an image of that name beside them", stray)
    how = "masks beside the images" if with_masks else "no masks, so for classification alone"
    return f"a folder for each class ({', '.join(f.name for f in folders)}), {how}", entries


def _one_folder(root: pathlib.Path) -> _Understood | None:
    """Pictures in one folder, masks beside them, a table of labels with them, as in BrEaST."""
    files = _pictures(root)
    stems = {path.stem for path in files}
    masks: dict[str, list[pathlib.Path]] = {}
    images = []
    for path in files:
        match = _MASK_NAME.fullmatch(path.stem)
        other = _OTHER_NAME.fullmatch(path.stem)
        if match is not None and match[1] in stems:
            masks.setdefault(match[1], []).append(path)
        elif other is None or other[1] not in stems:
            images.append(path)
    table, tables = columns.joined_tables(root, {path.stem for path in images})
    if not images or not (masks or tables):
        return None
    entries = []
    for path in images:
        row = table.get(path.stem, {})
        entries.append(
            Entry(
                uid=row.get("uid") or path.stem,
                image=path,
                masks=tuple(masks.get(path.stem, ())) or None,
                label=row.get("label", ""),
                group=row.get("group", ""),
                test_fold=columns.fold(row.get("fold", ""), f"{path.name} in {root}"),
            )
        )
    beside = ["masks"] * bool(masks) + tables
    return f"pictures in one folder with {' and '.join(beside)}", entries


def _finished(root: pathlib.Path, normal: str, layout: str, entries: list[Entry]) -> Listing:
    """Checks names, finds the classes, and puts everything in order."""
    _refuse_empty(entries, root)
    for what, values in (
        ("images", [str(entry.image) for entry in entries]),
        ("names", [entry.uid for entry in entries]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        _refuse_missing(f"{root}: these {what} occur twice", twice)
    bad = [repr(entry.uid) for entry in entries if not entry.uid.isprintable()]
    _refuse_missing(f"{root}: these names hold characters that cannot be printed", bad)
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
    folds = sorted({entry.test_fold for entry in finished} - {NO_FOLD})
    if folds and folds[0] == 1:  # counted from 1, as people do
        finished = [
            entry
            if entry.test_fold == NO_FOLD
            else dataclasses.replace(entry, test_fold=entry.test_fold - 1)
            for entry in finished
        ]
    finished.sort(key=lambda entry: (entry.label, _natural(entry.uid)))
    return Listing(root, layout, finished, classes)


def _class_name(label: str) -> str:
    known = {name.casefold(): name for name in CLASSES.names}
    return known.get(label.casefold(), label)


def _classes(names: set[str], normal: str, root: pathlib.Path) -> Classes:
    """In the published order if all are published ones, else in alphabetical order."""
    for name in sorted(names):
        if not name.isprintable() or len(name) > 40 or name.casefold() in RESERVED:
            raise UserError(
                f"{root}: {name!r} cannot be the name of a class; use up to 40 printable "
                f"characters, and not {' or '.join(RESERVED)}."
            )
    if not names and not normal:
        return _NO_CLASSES
    in_order = tuple(n for n in CLASSES.names if n in names)
    if names - set(in_order):
        in_order = tuple(sorted(names))
    if normal and normal not in names:
        raise UserError(
            f"data.normal_class={normal!r} is no class of {root}; they are {', '.join(in_order)}."
        )
    normal = normal or CLASSES.names[CLASSES.normal]
    return Classes(in_order, in_order.index(normal) if normal in in_order else None)


def _masks_by_stem(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Mask files by the name that an image of theirs may have."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in _pictures(folder):
        match = _MASK_NAME.fullmatch(path.stem)
        found.setdefault(match[1] if match else path.stem, []).append(path)
    return found


def _mask_stems(stem: str) -> list[str]:
    """Names that the mask of an image may have, apart from endings such as ``_mask``."""
    plain = stem.removeprefix("bus_")  # BUS-BRA: bus_0001-l.png, mask_0001-l.png
    return list(dict.fromkeys([stem, f"mask_{stem}", f"mask_{plain}"]))


def _not_understood(root: pathlib.Path) -> str:
    held = [path.name + "/" * path.is_dir() for path in columns.visible(root)][:_SHOWN]
    holds = f"It holds {', '.join(held)}" if held else "It is empty"
    if _pictures(root):
        nearest = (
            f"Nearest is a folder with a {MANIFEST}: a table with the columns image, mask and "
            "label is missing."
        )
    elif _named(root, _MASK_FOLDERS, folder=True):
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


def _named(root: pathlib.Path, names: tuple[str, ...], *, folder: bool = False):
    """What a folder holds under the first of some names, whatever their case; None without."""
    there = {path.name.lower(): path for path in columns.visible(root) if path.is_dir() == folder}
    return next((there[name] for name in names if name in there), None)


def _pictures(folder: pathlib.Path, *, deep: bool = False) -> list[pathlib.Path]:
    found = []
    for path in columns.visible(folder):
        if path.is_dir():
            found += _pictures(path, deep=True) if deep else []
        elif path.suffix.lower() in pairing.SUFFIXES:
            found.append(path)
    return found


def _uid(root: pathlib.Path, path: pathlib.Path) -> str:
    """An image's path below the folder, without its ending."""
    relative = path.relative_to(root) if path.is_relative_to(root) else pathlib.Path(path.name)
    return relative.with_suffix("").as_posix()


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key by which ``a_2`` comes before ``a_10``."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _refuse_empty(entries: list[Entry], folder: pathlib.Path) -> None:
    if not entries:
        raise UserError(f"{folder} lists no picture.")


def _refuse_missing(what: str, names: Iterable[str]) -> None:
    names = list(names)
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UserError(f"{what}: {', '.join(names[:_SHOWN])}{more}.")
