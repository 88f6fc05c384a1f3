"""Reads the raw BUSI and BUS-UCLM downloads, folder or zip, into one list of records.

Pictures are decoded only on request: `read_busi` and `read_bus_uclm` look at names only and raise
`UserError` if something is missing; `decode_image` and `decode_mask` open one record.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.files import parse_table
from mtbus_jax.images.preprocess import lesion_of, resize_nearest
from mtbus_jax.types import CLASS_NAMES
from tfds_busi import search
from tfds_busi.search import RawPath

BUSI_FOLDER = "Dataset_BUSI_with_GT"
# No leading zeros: "benign (01).png" would stand for the same image as "benign (1).png".
_BUSI_NAME = re.compile(r"(benign|malignant|normal) \(([1-9]\d*)\)(_mask(?:_\d+)?)?\.png")
_BUS_UCLM_PARTS = ("INFO.csv", "images", "masks")
# BUS-UCLM draws the lesion in the colour of its class.
_BUS_UCLM_COLOURS = {"benign": (0, 255, 0), "malignant": (255, 0, 0)}
# Only these have masks of another size, drawn on the image stretched to that of all others.
_STRETCHED = "HESN_"
_DRAWN_HEIGHT, _DRAWN_WIDTH = 606, 856
_NAMES_SHOWN = 5
# The only notes that the decoder makes on published pictures; others mean another picture.
_HARMLESS = {"transparency ignored", "palette replaced by its colours"}


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a raw download.

    Attributes:
      uid: ``benign_20`` (BUSI: class and number) or ``ALWI_000`` (BUS-UCLM: file name).
      label: class name.
      image: the image file.
      masks: the mask files, at least one.
      patient: patient code, or None where the dataset does not tell patients apart.
      may_stretch: the mask is drawn on the image stretched to another size.
    """

    uid: str
    label: str
    image: RawPath
    masks: tuple[RawPath, ...]
    patient: str | None = None
    may_stretch: bool = False


class DecodedMask(NamedTuple):
    """What the mask files of an image say.

    Attributes:
      lesion: ``(height, width)`` bool.
      between: names of the files that have values between black and white.
    """

    lesion: np.ndarray
    between: list[str]


def find_busi(root: pathlib.Path) -> RawPath | None:
    """The folder with ``benign/``, ``malignant/`` and ``normal/`` in or below ``root``, or None.

    Args:
      root: the folder itself, one that holds it, one that holds its zip, or the zip.
    """

    def holds_classes(folder: RawPath) -> bool:
        return sum((folder / c).is_dir() for c in CLASS_NAMES) >= 2

    # By content first: some programs unpack into a folder with the name of the one in the zip. Then
    # by name, so that `read_busi` can say what is missing in it.
    found = search.find(root, holds_classes, ("busi",))
    return found or search.find(root, lambda folder: folder.name == BUSI_FOLDER, ("busi",))


def find_bus_uclm(root: pathlib.Path) -> RawPath | None:
    """The folder with ``INFO.csv``, ``images/`` and ``masks/`` in or below ``root``, or None.

    Args:
      root: the folder itself, one that holds it, one that holds its zip, or the zip.
    """

    def looks_right(folder: RawPath) -> bool:
        return sum((folder / part).exists() for part in _BUS_UCLM_PARTS) >= 2

    return search.find(root, looks_right, ("uclm", "7fvgj4jsp7"))


def read_busi(root: RawPath) -> list[Record]:
    """Every image of BUSI with its mask files, ordered by (class name, number).

    Args:
      root: what `find_busi` found.

    Raises:
      UserError: if a class folder, an image or a mask is missing.
    """
    records = []
    for class_name in CLASS_NAMES:
        if not (root / class_name).is_dir():
            raise UserError(
                f"The BUSI folder {root} is incomplete: it has no folder '{class_name}'. "
                "Unpack Dataset_BUSI.zip again."
            )
        images: dict[int, RawPath] = {}
        masks: dict[int, list[RawPath]] = {}
        for path in search.visible(root / class_name):
            match = _BUSI_NAME.fullmatch(path.name)
            if match is None or match[1] != class_name:
                raise UserError(
                    f"{path} is not a file of BUSI; expected names like '{class_name} (1).png' and "
                    f"'{class_name} (1)_mask.png'. Take it out of the folder, or unpack the "
                    "download again."
                )
            number = int(match[2])
            if match[3]:
                masks.setdefault(number, []).append(path)
            else:
                images[number] = path
        for numbers, suffix in ((images.keys() - masks, "_mask"), (masks.keys() - images, "")):
            _refuse_missing(root, (f"{class_name} ({n}){suffix}.png" for n in sorted(numbers)))
        records += [
            Record(
                uid=f"{class_name}_{number}",
                label=class_name,
                image=images[number],
                masks=tuple(sorted(masks[number], key=lambda path: path.name)),
            )
            for number in sorted(images)
        ]
    return records


def read_bus_uclm(root: RawPath) -> list[Record]:
    """Every image of BUS-UCLM with its mask, ordered by (class name, file name).

    The label is the one of ``INFO.csv``; the patient is the file name's part before ``_``.

    Args:
      root: what `find_bus_uclm` found.

    Raises:
      UserError: if a file is missing, or ``INFO.csv`` cannot be understood.
    """
    for part in _BUS_UCLM_PARTS:
        if not (root / part).exists():
            raise UserError(
                f"The BUS-UCLM folder {root} is incomplete: it has no '{part}'. "
                "Unpack the download again."
            )
    labels = _read_info(root / "INFO.csv")
    images = {path.name: path for path in search.visible(root / "images")}
    masks = {path.name: path for path in search.visible(root / "masks")}
    _refuse_missing(root, (f"images/{name}" for name in sorted(labels.keys() - images)))
    _refuse_missing(root, (f"masks/{name}" for name in sorted(labels.keys() - masks)))
    _refuse_missing(
        root, (f"the row of {name} in INFO.csv" for name in sorted(images.keys() - labels))
    )
    return [
        Record(
            uid=name.removesuffix(".png"),
            label=label,
            image=images[name],
            masks=(masks[name],),
            patient=name.split("_")[0],
            may_stretch=name.startswith(_STRETCHED),
        )
        for name, label in sorted(labels.items(), key=lambda item: (item[1], item[0]))
    ]


def decode_image(record: Record) -> np.ndarray:
    """The image as ``(height, width, 3)`` uint8: grey replicated, an alpha channel dropped.

    Raises:
      UserError: if the file is no readable 8-bit picture.
    """
    pixels = _decode(record.image).pixels
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels


def decode_mask(record: Record, height: int, width: int) -> DecodedMask:
    """The union of the record's mask files.

    Args:
      record: the image's record.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Raises:
      UserError: if a file cannot be read, or if its size differs from the image's and is not one to
        which the dataset stretches masks of that image.
    """
    union, odd = np.zeros((height, width), bool), []
    for path in record.masks:
        plane, between = lesion_of(_decode(path, is_mask=True).pixels)
        if plane.shape != (height, width):
            if not (record.may_stretch and _has_the_shape_of_drawing(*plane.shape)):
                raise UserError(
                    f"{path} has {plane.shape[0]}×{plane.shape[1]} pixels (height×width), its "
                    f"image {height}×{width}. Unpack the download again."
                )
            plane = resize_nearest(plane, height, width)
        union |= plane
        odd += [path.name] if between else []
    return DecodedMask(union, odd)


def _has_the_shape_of_drawing(height: int, width: int) -> bool:
    """Whether a mask has the shape of the stretched ones, at any resolution, within one pixel."""
    return abs(height * _DRAWN_WIDTH - width * _DRAWN_HEIGHT) <= _DRAWN_WIDTH and height > 1


def mask_classes(record: Record) -> frozenset[str]:
    """The classes whose colour occurs in the masks of a BUS-UCLM record; empty for no lesion."""
    found = set()
    for path in record.masks:
        pixels = _decode(path, is_mask=True).pixels
        for class_name, colour in _BUS_UCLM_COLOURS.items():
            if pixels.ndim == 3 and (pixels == colour).all(axis=-1).any():
                found.add(class_name)
    return frozenset(found)


def _decode(path: RawPath, *, is_mask: bool = False) -> images.Decoded:
    """One file, which has to be stored in 8 bits and upright."""
    try:
        found = images.decode_mask(path) if is_mask else next(images.decode(path))
    except images.ReadError as error:
        raise UserError(
            f"Cannot read the picture {path}: it {error.reason}. Unpack the download again."
        ) from None
    changed = [note for note in found.notes if note not in _HARMLESS]
    if changed or found.count > 1:
        what = changed[0] if changed else f"{found.count} pictures in the file"
        raise UserError(
            f"{path} is not stored as published ({what}); expected an 8-bit grey, RGB or RGBA PNG. "
            "Unpack the download again."
        )
    return found


def _read_info(path: RawPath) -> dict[str, str]:
    """File name → class name, from ``INFO.csv``."""
    columns, rows = parse_table(path.read_bytes(), str(path))
    if not {"Image", "Label"} <= set(columns):
        raise UserError(
            f"{path} has the columns {', '.join(columns) or 'none'}; expected 'Image' and 'Label' "
            "among them. Unpack the download again."
        )
    labels: dict[str, str] = {}
    for line, cells, _ in rows:
        name, label = cells["Image"], cells["Label"].lower()
        if label not in CLASS_NAMES:
            raise UserError(
                f"{path}, line {line}: label '{cells['Label']}' of '{name}' is none of "
                f"{', '.join(CLASS_NAMES)}."
            )
        if name in labels:
            raise UserError(f"{path}, line {line}: '{name}' is listed twice.")
        labels[name] = label
    return labels


def _refuse_missing(root: RawPath, names: Iterable[str]) -> None:
    missing = list(names)
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise UserError(
            f"The folder {root} is incomplete: missing {shown}{more}. Unpack the download again."
        )
