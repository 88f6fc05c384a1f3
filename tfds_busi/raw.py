"""Reads the raw BUSI and BUS-UCLM downloads, folder or zip, into one list of records.

Nothing is decoded here but on request: `read_busi` and `read_bus_uclm` look at names only and
raise `UserError` where something is missing; `decode_image` and `decode_mask` open one record.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from mtbus_jax.errors import UserError
from mtbus_jax.images.preprocess import merge_masks, resize_nearest
from mtbus_jax.types import CLASS_NAMES

# A folder, a file, or either of them inside a zip archive: both types offer the few methods used
# here (name, iterdir, is_dir, joinpath, read_bytes).
RawPath = pathlib.Path | zipfile.Path

BUSI_FOLDER = "Dataset_BUSI_with_GT"
_BUSI_NAME = re.compile(r"(benign|malignant|normal) \((\d+)\)(_mask(?:_\d+)?)?\.png")
_BUS_UCLM_PARTS = ("INFO.csv", "images", "masks")
# BUS-UCLM draws the lesion in the colour of its class.
_BUS_UCLM_COLOURS = {"benign": (0, 255, 0), "malignant": (255, 0, 0)}
_SEARCH_DEPTH = 2
_NAMES_SHOWN = 5


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


def find_busi(root: pathlib.Path) -> RawPath | None:
    """The folder with ``benign/``, ``malignant/`` and ``normal/`` in or below ``root``, or None.

    Args:
      root: the folder itself, one that holds it, one that holds its zip, or the zip.
    """

    def looks_right(folder: RawPath) -> bool:
        return folder.name == BUSI_FOLDER or sum((folder / c).is_dir() for c in CLASS_NAMES) >= 2

    return _find(root, looks_right, ("busi",))


def find_bus_uclm(root: pathlib.Path) -> RawPath | None:
    """The folder with ``INFO.csv``, ``images/`` and ``masks/`` in or below ``root``, or None.

    Args:
      root: the folder itself, one that holds it, one that holds its zip, or the zip.
    """

    def looks_right(folder: RawPath) -> bool:
        return sum((folder / part).exists() for part in _BUS_UCLM_PARTS) >= 2

    return _find(root, looks_right, ("uclm", "7fvgj4jsp7"))


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
        for path in _visible(root / class_name):
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
    images = {path.name: path for path in _visible(root / "images")}
    masks = {path.name: path for path in _visible(root / "masks")}
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
            may_stretch=True,
        )
        for name, label in sorted(labels.items(), key=lambda item: (item[1], item[0]))
    ]


def decode_image(record: Record) -> np.ndarray:
    """The image as ``(height, width, 3)`` uint8: grey replicated, an alpha channel dropped.

    Raises:
      UserError: if the file is no readable 8-bit picture.
    """
    pixels = _decode(record.image)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=-1)
    return pixels[..., :3]


def decode_mask(record: Record, height: int, width: int) -> np.ndarray:
    """The union of the record's mask files as ``(height, width)`` bool.

    Args:
      record: the image's record.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Raises:
      UserError: if a file cannot be read, or has another size than the image where the dataset
        does not stretch its masks.
    """
    planes = []
    for path in record.masks:
        plane = merge_masks([_decode_mask_file(path)])
        if plane.shape != (height, width):
            if not record.may_stretch:
                raise UserError(
                    f"{path} has {plane.shape[0]}×{plane.shape[1]} pixels (height×width), its "
                    f"image {height}×{width}. Unpack the download again."
                )
            plane = resize_nearest(plane, height, width)
        planes.append(plane)
    return merge_masks(planes)


def mask_classes(record: Record) -> frozenset[str]:
    """The classes whose colour occurs in the masks of a BUS-UCLM record; empty for no lesion."""
    found = set()
    for path in record.masks:
        pixels = _decode_mask_file(path)
        for class_name, colour in _BUS_UCLM_COLOURS.items():
            if pixels.ndim == 3 and (pixels[..., :3] == colour).all(axis=-1).any():
                found.add(class_name)
    return frozenset(found)


def _decode_mask_file(path: RawPath) -> np.ndarray:
    pixels = _decode(path)
    if pixels.ndim == 3 and pixels.shape[-1] == 4 and (pixels[..., 3] != 255).any():
        raise UserError(
            f"The mask {path} has transparent pixels, so it does not say what is tumour. Save it "
            "opaque, black and white."
        )
    return pixels


def _decode(path: RawPath) -> np.ndarray:
    """Pixels of one file: ``(h, w)`` bool or uint8, or ``(h, w, 3 or 4)`` uint8."""
    try:
        # From the bytes: one way for folders and zips, and no file stays open.
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            if picture.mode in ("P", "LA"):
                picture = picture.convert("RGBA")
            mode, pixels = picture.mode, np.array(picture)
    except Exception as error:  # Pillow and zipfile raise a dozen unrelated types here
        raise UserError(
            f"Cannot read the picture {path} ({type(error).__name__}). Unpack the download again."
        ) from error
    if mode not in ("1", "L", "RGB", "RGBA"):
        raise UserError(f"{path} has pixel type {mode}; expected an 8-bit grey, RGB or RGBA PNG.")
    return pixels


def _read_info(path: RawPath) -> dict[str, str]:
    """File name → class name, from ``INFO.csv`` (byte-order mark, ``;``)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}).") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";")
    if rows.fieldnames is None or not {"Image", "Label"} <= set(rows.fieldnames):
        raise UserError(
            f"{path} has the columns {rows.fieldnames}; expected 'Image' and 'Label' among them, "
            "separated by ';'."
        )
    labels: dict[str, str] = {}
    for row in rows:
        name = (row["Image"] or "").strip()
        label = (row["Label"] or "").strip().lower()
        if label not in CLASS_NAMES:
            raise UserError(
                f"{path}, line {rows.line_num}: label '{row['Label']}' of '{name}' is none of "
                f"{', '.join(CLASS_NAMES)}."
            )
        if name in labels:
            raise UserError(f"{path}, line {rows.line_num}: '{name}' is listed twice.")
        labels[name] = label
    return labels


def _find(
    root: pathlib.Path, looks_right: Callable[[RawPath], bool], zip_words: tuple[str, ...]
) -> RawPath | None:
    """Breadth-first search: folders down to `_SEARCH_DEPTH`, then zips named like the dataset."""
    if root.is_file():
        return _search(_open_zip(root), looks_right)
    if not root.is_dir():
        return None
    found = _search(root, looks_right)
    if found is not None:
        return found
    for path in sorted(root.glob("*.zip")):
        if any(word in path.name.lower() for word in zip_words):
            found = _search(_open_zip(path), looks_right)
            if found is not None:
                return found
    return None


def _search(root: RawPath, looks_right: Callable[[RawPath], bool]) -> RawPath | None:
    level: list[RawPath] = [root]
    for _ in range(_SEARCH_DEPTH + 1):
        for folder in level:
            with contextlib.suppress(OSError):  # a folder that we may not enter
                if looks_right(folder):
                    return folder
        level = [
            child
            for folder in level
            for child in sorted(_visible(folder), key=lambda path: path.name)
            if child.is_dir()
        ]
    return None


def _open_zip(path: pathlib.Path) -> zipfile.Path:
    try:
        return zipfile.Path(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is no readable zip file ({error}). Download it again.") from error


def _visible(folder: RawPath) -> list[RawPath]:
    """What a folder holds, without the files that desktops leave behind."""
    try:
        return [
            path
            for path in folder.iterdir()
            if not path.name.startswith((".", "__MACOSX")) and path.name != "Thumbs.db"
        ]
    except OSError:
        return []  # a folder that we may not list holds nothing for us


def _refuse_missing(root: RawPath, names: Iterable[str]) -> None:
    missing = list(names)
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise UserError(
            f"The folder {root} is incomplete: missing {shown}{more}. Unpack the download again."
        )
