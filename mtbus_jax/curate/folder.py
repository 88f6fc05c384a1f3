"""An archive on disk: which files are images, which are their masks, what class and which patient.

Layouts that are known by themselves, anywhere below the given folder:

* BUSI: ``benign (20).png`` with masks ``benign (20)_mask.png``, ``benign (20)_mask_1.png`` …;
* BUS-UCLM: ``images/ALWI_000.png`` with ``masks/ALWI_000.png`` and ``INFO.csv`` beside both, the
  first four letters being the patient;
* anything else: every picture is an image, ``x_mask*.png`` beside ``x.*`` is its mask, a file in
  ``masks/`` belongs to the file of the same name in ``images/``, and a parent folder called after
  a class is the label.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mtbus_jax.errors import UserError
from mtbus_jax.images.preprocess import merge_masks, to_greyscale
from mtbus_jax.types import CLASS_NAMES

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_BUSI = re.compile(r"(benign|malignant|normal) \((\d+)\)")
_MASK = re.compile(r"(.+)_mask(_\d+)?")
_PATIENT = re.compile(r"([A-Z]{4})_\d+")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of the archive, not yet read.

    Attributes:
      uid: unique name, such as ``benign_20``, ``ALWI_000`` or ``folder/name``.
      path: the image file.
      label: class name, or ``""`` where the archive does not tell.
      patient: patient, or ``""``.
      masks: mask files, possibly none.
    """

    uid: str
    path: Path
    label: str = ""
    patient: str = ""
    masks: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file that could not be used, and why."""

    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
      grey: ``(height, width)`` uint8.
      colour: ``(height, width, 3)`` uint8, or None where the file is grey.
      digest: hash of size and grey values; equal digests are identical pictures.
    """

    grey: np.ndarray
    colour: np.ndarray | None
    digest: str


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorting key by which ``a_2`` comes before ``a_10``."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _read_info(path: Path) -> dict[str, str]:
    """File stem → class name, from BUS-UCLM's ``INFO.csv`` (byte-order mark, ``;``)."""
    labels = {}
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        for row in csv.DictReader(file, delimiter=";"):
            name, label = row.get("Image") or "", (row.get("Label") or "").strip().lower()
            if name and label in CLASS_NAMES:
                labels[Path(name.strip()).stem] = label
    return labels


def _mask_owner(path: Path, images: dict[tuple[Path, str], Path]) -> Path | None:
    """The image that a mask file belongs to, or None for a file that is no mask."""
    match = _MASK.fullmatch(path.stem)
    if match and (path.parent, match[1]) in images:
        return images[path.parent, match[1]]
    if path.parent.name.lower() == "masks":
        for name in ("images", "Images", "image"):
            owner = images.get((path.parent.parent / name, path.stem))
            if owner:
                return owner
    return None


def find_entries(root: Path) -> list[Entry]:
    """The images below a folder, in natural order of (class, uid).

    Raises:
      UserError: if the folder is missing or holds no image.
    """
    if not root.is_dir():
        raise UserError(
            f"--input={root} is no folder. Give the folder that holds the images, such as "
            f"Dataset_BUSI_with_GT."
        )
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    by_stem = {(path.parent, path.stem): path for path in files}
    masks: dict[Path, list[Path]] = {}
    images = []
    for path in files:
        owner = _mask_owner(path, by_stem)
        if owner is None:
            images.append(path)
        else:
            masks.setdefault(owner, []).append(path)
    if not images:
        raise UserError(
            f"{root} holds no image. Files ending in {', '.join(SUFFIXES)} are looked for, in "
            f"sub-folders too."
        )
    info = {path.parent: _read_info(path) for path in root.rglob("INFO.csv")}
    entries = [_entry(root, path, tuple(sorted(masks.get(path, ()))), info) for path in images]
    return sorted(_unique(root, entries), key=lambda e: (e.label, natural_key(e.uid)))


def _entry(
    root: Path, path: Path, masks: tuple[Path, ...], info: dict[Path, dict[str, str]]
) -> Entry:
    busi = _BUSI.fullmatch(path.stem)
    if busi:
        return Entry(f"{busi[1]}_{busi[2]}", path, busi[1], "", masks)
    relative = path.relative_to(root).with_suffix("")
    if path.parent.name.lower() in ("images", "image"):
        patient = _PATIENT.fullmatch(path.stem)
        labels = info.get(path.parent.parent)
        if labels is not None:
            label = labels.get(path.stem, "")
            return Entry(path.stem, path, label, patient[1] if patient else "", masks)
    parents = [part.lower() for part in relative.parts[:-1]]
    label = next((part for part in reversed(parents) if part in CLASS_NAMES), "")
    return Entry(relative.as_posix(), path, label, "", masks)


def _unique(root: Path, entries: list[Entry]) -> list[Entry]:
    """Gives entries that share a uid their path, with its suffix, instead."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.uid] = counts.get(entry.uid, 0) + 1
    return [
        entry
        if counts[entry.uid] == 1
        else dataclasses.replace(entry, uid=entry.path.relative_to(root).as_posix())
        for entry in entries
    ]


def _decode(path: Path) -> np.ndarray:
    """Pixels as uint8, grey or RGB; wider grey values are scaled to 0..255."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I") or image.mode == "F":
                values = np.asarray(image, np.float64)
                span = np.ptp(values)
                return np.rint((values - values.min()) * (255 / span if span else 0)).astype(
                    np.uint8
                )
            if image.mode in ("L", "1"):
                return np.asarray(image.convert("L"))
            return np.asarray(image.convert("RGB"))


def read_picture(entry: Entry) -> Picture:
    """Decodes one image.

    Raises:
      ValueError: with the reason, if the file cannot be decoded or is too small to compare.
    """
    try:
        pixels = _decode(entry.path)
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as e:
        raise ValueError(f"cannot be read as an image ({e})") from e
    if min(pixels.shape[:2]) < 16:
        height, width = pixels.shape[:2]
        raise ValueError(f"is {height}×{width} pixels, too small to compare (at least 16×16)")
    grey = to_greyscale(pixels)
    colour = pixels if pixels.ndim == 3 and (pixels != pixels[..., :1]).any() else None
    digest = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()
    return Picture(grey, colour, digest)


def read_mask(entry: Entry, shape: tuple[int, int]) -> np.ndarray | None:
    """The union of an image's masks, ``(height, width)`` bool, or None without any.

    Raises:
      ValueError: with the reason, if a mask cannot be decoded or has another size than the image.
    """
    if not entry.masks:
        return None
    planes = []
    for path in entry.masks:
        try:
            planes.append(_decode(path))
        except (OSError, ValueError, SyntaxError, EOFError, Warning) as error:
            raise ValueError(f"mask {path.name} cannot be read ({error})") from error
        if planes[-1].shape[:2] != shape:
            size = "×".join(map(str, planes[-1].shape[:2]))
            raise ValueError(f"mask {path.name} is {size}, its image {shape[0]}×{shape[1]}")
    return merge_masks(planes)


def check_writable(out: Path) -> None:
    """Refuses early an output folder that cannot be one.

    Raises:
      UserError: if it is a file or its parent cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be made ({error}).") from error
    if not os.access(out, os.W_OK):
        raise UserError(f"--out={out} cannot be written to.")
