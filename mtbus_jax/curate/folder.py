"""An archive on disk: its images, with their masks, classes and patients.

Layouts that are recognised automatically, anywhere below the given folder:

* BUSI: ``benign (20).png`` with masks ``benign (20)_mask.png``, ``benign (20)_mask_1.png`` …;
* BUS-UCLM: ``images/ALWI_000.png`` with ``masks/ALWI_000.png`` and ``INFO.csv`` beside both, the
  first four letters being the patient;
* anything else: every picture is an image except the masks, which `images.pairing` recognises by
  their names, and a parent folder named after a class gives the label.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import re
from pathlib import Path

import numpy as np

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.files import parse_table
from mtbus_jax.images import dicom_kind, pairing
from mtbus_jax.images.preprocess import lesion_of, to_greyscale
from mtbus_jax.types import CLASS_NAMES

SUFFIXES = pairing.SUFFIXES
_BUSI = re.compile(r"(benign|malignant|normal) \((\d+)\)")
_PATIENT = re.compile(r"([A-Z]{4})_\d+")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of the archive, not yet read.

    Attributes:
      uid: unique name, such as ``benign_20``, ``ALWI_000`` or ``folder/name``.
      path: the image file.
      label: class name, or ``""`` if unknown.
      patient: patient, or ``""`` if unknown.
      masks: mask files, possibly none.
    """

    uid: str
    path: Path
    label: str = ""
    patient: str = ""
    masks: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file that could not be used, or only in part, and the reason."""

    path: Path
    reason: str

    @property
    def file(self) -> str:
        """The path as text that can be written anywhere."""
        return images.as_text(self.path)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Attributes:
      entries: the images, in natural order of (class, uid).
      problems: tables that could not be read, folders that could not be opened.
    """

    entries: list[Entry]
    problems: list[Problem]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
      grey: ``(height, width)`` uint8.
      colour: ``(height, width, 3)`` uint8, or None where the file is grey.
      digest: hash of size and grey values; equal digests are identical pictures.
      count: how many pictures the file holds; this is the first.
    """

    grey: np.ndarray
    colour: np.ndarray | None
    digest: str
    count: int = 1


def _read_info(path: Path) -> dict[str, str]:
    """File stem → class name, from BUS-UCLM's ``INFO.csv``.

    Raises:
      UserError: if it is not a table with the columns ``Image`` and ``Label``.
    """
    try:
        columns, rows = parse_table(path.read_bytes(), images.as_text(path))
    except OSError as error:
        raise UserError(f"{images.as_text(path)} cannot be read ({error.strerror}).") from None
    if not {"Image", "Label"} <= set(columns):
        raise UserError(f"{images.as_text(path)} has no columns Image and Label.")
    labels = {}
    for row in rows:
        name, label = row.cells["Image"], row.cells["Label"].lower()
        if name and label in CLASS_NAMES:
            labels[Path(name).stem] = label
    return labels


def find_entries(root: Path) -> list[Entry]:
    """The images below a folder, see `list_folder`."""
    return list_folder(root).entries


def list_folder(root: Path) -> Listing:
    """The images below a folder; decodes nothing.

    Raises:
      UserError: if the folder is missing or holds no image.
    """
    if not root.is_dir():
        raise UserError(
            f"--input={root} is not a folder. Give the folder that holds the images, such as "
            f"Dataset_BUSI_with_GT."
        )
    unlisted: list[Path] = []
    found = sorted(images.files_below(root, unlisted))
    problems = [Problem(path, "is a folder that cannot be opened") for path in unlisted]
    pictures = [
        path for path in found if images.is_picture(path) or dicom_kind.is_segmentation(path)
    ]
    masks: dict[Path, list[Path]] = {}
    owner_of = pairing.owners(pictures, root)
    for path, owner in owner_of.items():
        masks.setdefault(owner, []).append(path)
    if len(owner_of) == len(pictures):
        raise UserError(
            f"{root} holds no image. Files ending in {', '.join(SUFFIXES)} and DICOM files under "
            "any name are looked for, in sub-folders too."
        )
    info: dict[Path, dict[str, str]] = {}
    for path in found:
        if path.name == "INFO.csv":
            try:
                info[path.parent] = _read_info(path)
            except UserError as error:
                problems.append(Problem(path, f"no classes are taken from it: {error}"))
    entries = [
        _entry(root, path, tuple(sorted(masks.get(path, ()))), info)
        for path in pictures
        if path not in owner_of and not dicom_kind.is_segmentation(path)
    ]
    entries = sorted(_unique(root, entries), key=lambda e: (e.label, images.natural_key(e.uid)))
    return Listing(entries, problems)


def _entry(
    root: Path, path: Path, masks: tuple[Path, ...], info: dict[Path, dict[str, str]]
) -> Entry:
    busi = _BUSI.fullmatch(path.stem)
    if busi:
        return Entry(f"{busi[1]}_{busi[2]}", path, busi[1], "", masks)
    relative = pairing.stem(path.relative_to(root))
    if path.parent.name.lower() in ("images", "image"):
        patient = _PATIENT.fullmatch(path.stem)
        labels = info.get(path.parent.parent)
        if labels is not None:
            label = labels.get(path.stem, "")
            return Entry(
                images.as_text(path.stem), path, label, patient[1] if patient else "", masks
            )
    parents = [part.lower() for part in relative.parts[:-1]]
    label = next((part for part in reversed(parents) if part in CLASS_NAMES), "")
    return Entry(images.as_text(relative), path, label, "", masks)


def _unique(root: Path, entries: list[Entry]) -> list[Entry]:
    """Replaces a uid that several entries share by each entry's path, with its suffix."""
    counts = collections.Counter(entry.uid for entry in entries)
    taken: set[str] = set()
    unique = []
    for entry in entries:
        uid = entry.uid
        if counts[uid] > 1:
            uid = images.as_text(entry.path.relative_to(root))
        # Two names that are not UTF-8 may become the same text.
        candidate, number = uid, 1
        while candidate in taken:
            number += 1
            candidate = f"{uid}~{number}"
        taken.add(candidate)
        unique.append(dataclasses.replace(entry, uid=candidate))
    return unique


def read_picture(entry: Entry) -> Picture:
    """Decodes one image, the first if the file holds several.

    Raises:
      ValueError: with the reason, if the file cannot be decoded or is too small to compare.
    """
    try:
        found = next(images.decode(entry.path))
    except images.ReadError as error:
        raise ValueError(error.reason) from None
    pixels = found.pixels
    grey = to_greyscale(pixels)
    colour = pixels if pixels.ndim == 3 and (pixels != pixels[..., :1]).any() else None
    digest = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()
    return Picture(grey, colour, digest, found.count)


def read_mask(entry: Entry, shape: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """The union of an image's masks.

    Returns:
      ``(height, width)`` bool, or None without any mask; and notes on what is odd about the masks.

    Raises:
      ValueError: with the reason, if a mask cannot be decoded or differs in size from the image.
    """
    if not entry.masks:
        return None, []
    union, odd = np.zeros(shape, bool), []
    for path in entry.masks:
        name = images.as_text(path.name)
        try:
            pixels = images.decode_mask(path).pixels
        except images.ReadError as error:
            raise ValueError(f"mask {name} {error.reason}") from None
        if pixels.shape[:2] != shape:
            size = "×".join(map(str, pixels.shape[:2]))
            raise ValueError(f"mask {name} is {size}, its image {shape[0]}×{shape[1]}")
        plane, between = lesion_of(pixels)
        union |= plane
        odd += [f"mask {name} {images.BETWEEN}"] if between else []
    return union, odd


def check_writable(out: Path) -> None:
    """Refuses an output folder that cannot be used, before the slow work.

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
