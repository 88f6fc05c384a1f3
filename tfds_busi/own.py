"""Turns a listed folder of your own pictures into the records of a dataset."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mtbus_jax import grouping, images
from mtbus_jax.errors import UserError
from mtbus_jax.images import dicom_kind, dicom_mask, preprocess
from mtbus_jax.images.from_pillow import TURNED
from mtbus_jax.images.picture import FIRST_OF
from mtbus_jax.images.preprocess import lesion_of
from tfds_busi import columns, held, labelme, layouts, nrrd
from tfds_busi.listing import Entry, Listing

# Packages of the extra "curate" that finding near-duplicates needs.
_NEEDED = ("cv2", "faiss")
# With more pictures, comparing all of them takes too long for a build.
_MOST_COMPARED = 5000
_SHOWN = 8
# Ends of notes on a picture.
TURNED_IS = "is turned by its orientation tag, which its mask may lack"
LIKE_A_MASK = "is black and white alone, or holds a few small numbers, as masks do"
# In `metadata`: the folder, and its `state`.
FOLDER, STATE = "folder", "state"
# In `metadata`: why near-duplicates were not looked for, "" if they were or groups were given; and
# the number of pictures.
NOT_COMPARED, IMAGES = "not_compared", "images"
# Largest grey value that JPEG may make of black; least share of black and bright pixels in a mask.
_EDGE, _OF_A_MASK = 8, 0.97
# Numbers up to this one are classes of masks, not grey values.
_MOST_NUMBERS = 15
# For two pictures that differ only in size; rounding to whole pixels changes the ratio by less.
_RATIO_TOLERANCE = 0.02


def state(folder: pathlib.Path) -> str:
    """A digest of names, sizes and times of the files that may belong to a folder.

    These are the files in and below it, also behind links, and those that a manifest names
    elsewhere, without the files that desktops leave behind.
    """
    digest = hashlib.sha256()
    for path in _files(folder):
        status = path.stat()
        digest.update(os.fsencode(os.path.relpath(path, folder)))
        digest.update(f"\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    found = set(filter(_is_file, held.files(folder, deep=True)))
    for path in [path for path in found if path.name.lower() in layouts.MANIFESTS]:
        with contextlib.suppress(UserError):  # reported when the folder is read
            for _, cells in columns.read_table(path)[1]:
                names = "|".join(cells.values()).replace("\\", "/").split("|")
                elsewhere = (path.parent / name.strip() for name in names if name.strip())
                found |= {each for each in elsewhere if _is_file(each)}
    return sorted(found)


def _is_file(path: pathlib.Path) -> bool:
    """Whether there is such a file; a cell's text may be anything, and too long for a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def metadata(listing: Listing, folder: pathlib.Path | None) -> dict[str, Any]:
    """What is kept beside the records: classes, how the folder was understood and compared.

    Args:
      listing: of the folder.
      folder: as it was given; None for a public dataset.
    """
    return {
        **({} if folder is None else {FOLDER: str(folder.resolve()), STATE: state(folder)}),
        "class_names": list(listing.classes.names),
        "normal": listing.classes.normal,
        "layout": listing.layout,
        NOT_COMPARED: "" if _all_grouped(listing) else why_not_compared(len(listing.entries)),
        IMAGES: len(listing.entries),
    }


def examples(listing: Listing, *, stretch: bool = False) -> Iterator[dict[str, Any]]:
    """The records, with decoded pictures.

    Every file is opened before the first record is given, so that all problems of a folder are
    reported at once.

    Args:
      listing: listing of the folder.
      stretch: see `decode`.

    Yields:
      One record for each entry, in order.

    Raises:
      UserError: if files cannot be read, or masks do not fit their images; all of them are named.
    """
    problems: list[str] = []
    notes: list[str] = []
    for entry in listing.entries:
        try:
            notes += decode(entry, stretch=stretch).doubts
        except UserError as error:
            problems.append(" ".join(str(error).split()))
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(
            f"{len(problems)} of {len(listing.entries)} images cannot be used:\n  "
            + "\n  ".join(problems[:_SHOWN])
            + more
            + "\nCorrect these files or remove them."
        )
    if notes:
        shown = "; ".join(notes[:_SHOWN])
        more = f"; and {len(notes) - _SHOWN} more" if len(notes) > _SHOWN else ""
        warnings.warn(f"to look at: {shown}{more}", UserWarning, stacklevel=2)
    for entry, group in zip(listing.entries, groups(listing), strict=True):
        picture = decode(entry, stretch=stretch)
        yield {
            "uid": entry.uid,
            "image": np.repeat(picture.image[..., None], 3, axis=-1),
            "mask": picture.mask,
            "label": entry.label,
            "group": group,
            "test_fold": entry.test_fold,
            "has_mask": entry.masks is not None,
            "about": json.dumps(entry.about, ensure_ascii=False),
        }


def groups(listing: Listing) -> list[str]:
    """Names of the sets that stay together: given groups, patients, near-duplicates, or images.

    Unless each image has a given group, patients are taken from DICOM files, and near-duplicates
    are looked for; sets that share an image are then joined.
    """
    entries = listing.entries
    joined = [f"group {entry.group}" if entry.group else "" for entry in entries]
    if not _all_grouped(listing):
        found = near_duplicates(entries, listing.root) or {}
        joined = grouping.merge_groups(joined, [entry.patient for entry in entries])
        joined = grouping.merge_groups(joined, [found.get(entry.uid, "") for entry in entries])
    return [str(name) or entry.uid for name, entry in zip(joined, entries, strict=True)]


def _all_grouped(listing: Listing) -> bool:
    return all(entry.group for entry in listing.entries)


def near_duplicates(entries: list[Entry], root: pathlib.Path) -> dict[str, str] | None:
    """Which pictures are near-duplicates of others, as `mtbus_jax.curate` finds them.

    Args:
      entries: the pictures.
      root: the folder that they lie in.

    Returns:
      The name of its set for each picture that is in one, by uid. None, with a warning, if the
      packages of curate are not installed or there are more than 5,000 pictures.
    """
    if len(entries) < 2:
        return {}
    if reason := why_not_compared(len(entries)):
        warn_not_compared(reason)
        return None
    from mtbus_jax.curate import pipeline

    print(f"looking for near-duplicates among {len(entries)} pictures", file=sys.stderr)
    return pipeline.group_names(root, [(entry.uid, entry.image) for entry in entries])


def warn_not_compared(reason: str) -> None:
    """Warns that near-duplicates are unknown, for a reason of `why_not_compared`."""
    warnings.warn(
        "near-duplicates were not looked for, so that the same lesion may be in training and "
        f"test images ({reason}). A column group in manifest.csv keeps them together.",
        UserWarning,
        stacklevel=2,
    )


def why_not_compared(count: int) -> str:
    """Why near-duplicates among this many pictures cannot be looked for; "" if they can."""
    if count < 2:
        return ""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return "pip install -e '.[curate]' in a checkout of mtbus_jax installs what that needs"
    return f"there are more than {_MOST_COMPARED} pictures" if count > _MOST_COMPARED else ""


class Decoded(NamedTuple):
    """One entry's pixels.

    Attributes:
      image: ``(height, width)`` uint8.
      mask: ``(height, width)`` bool; empty if it is not known.
      spacing_mm: height and width of a pixel; None if it is not known.
      notes: notes on picture and mask.
      doubts: the notes that a person should look at.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float] | None
    notes: list[str]
    doubts: list[str]


def decode(entry: Entry, *, stretch: bool = False) -> Decoded:
    """Reads an entry's files.

    Args:
      entry: the entry.
      stretch: whether a mask of another size, but with nearly the shape of its image, is stretched
        to the image's size by nearest neighbour, with a note.

    Raises:
      UserError: if one cannot be read, holds several pictures, or the mask is of another size.
    """
    frames = list(itertools.islice(images.read(entry.image), 2))
    if frames[0].count > 1:
        raise UserError(
            f"{entry.image} holds {frames[0].count} pictures; save each as a file of its own."
        )
    image, notes, spacing = frames[0].grey, [], frames[0].spacing
    if any(note.startswith(FIRST_OF) for note in frames[0].notes):
        raise UserError(f"{entry.image} holds several pictures; save each as a file of its own.")
    if _like_a_mask(image):
        notes.append(f"{entry.image.name} {LIKE_A_MASK}")
    if entry.masks and TURNED in frames[0].notes:
        notes.append(f"{entry.image.name} {TURNED_IS}")
    mask = np.zeros(image.shape, bool)
    for path in entry.masks or ():
        if path.suffix.lower() == labelme.SUFFIX:
            outlines, between = labelme.read(path), False
            drawn = outlines.mask
            if outlines.marks:
                notes.append(f"{path.name} has lines or points ({outlines.marks}), not used")
        elif path.suffix.lower() == nrrd.SUFFIX:
            drawn, between = nrrd.read(path, image.shape), False
        else:
            drawn, between = lesion_of(images.decode_mask(path).pixels)
            if held.is_segmentation(path) and not _was_drawn_in(path, entry.image):
                notes.append(f"{path.name} says that it was drawn in another picture")
        if stretch and drawn.shape != image.shape and _same_shape(drawn, image):
            notes.append(f"{pathlib.Path(path).name} ({_size(drawn)} pixels) is stretched")
            drawn = preprocess.resize_nearest(drawn.astype(np.uint8), *image.shape) > 0
        if drawn.shape != image.shape:
            raise UserError(
                f"{path} has {_size(drawn)} pixels (height × width), its image {_size(image)}."
            )
        mask |= drawn
        notes += [f"{pathlib.Path(path).name} {images.BETWEEN}"] * between
    size_mm = None if spacing is None else (spacing.row_mm, spacing.col_mm)
    return Decoded(image, mask, size_mm, [*frames[0].notes, *notes], notes)


def _like_a_mask(image: np.ndarray) -> bool:
    """Whether a picture looks like a mask.

    It does if it is black and one bright grey, except for JPEG's values at edges, or if it holds
    small numbers from 0, such as class numbers.
    """
    bright = int(image.max())
    if 0 < bright <= _MOST_NUMBERS:
        return bool((image == 0).any())
    dark_part, bright_part = (image <= _EDGE).mean(), (image >= bright - _EDGE).mean()
    sides = dark_part > 0 and bright_part > 0 and bright > 4 * _EDGE
    return bool(sides and dark_part + bright_part > _OF_A_MASK)


def _was_drawn_in(segmentation: pathlib.Path, image: pathlib.Path) -> bool:
    """Whether a DICOM segmentation refers to a picture; True if one of them does not tell."""
    drawn_in, picture = dicom_mask.pictures(segmentation), dicom_kind.instance(image)
    return not (drawn_in and picture) or picture in drawn_in


def _same_shape(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures have nearly the same ratio of height to width."""
    ratio = (one.shape[0] * other.shape[1]) / (one.shape[1] * other.shape[0])
    return abs(ratio - 1) <= _RATIO_TOLERANCE


def _size(array: np.ndarray) -> str:
    return " × ".join(map(str, array.shape))
