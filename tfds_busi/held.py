"""What a folder of pictures holds, by the names of its files."""

from __future__ import annotations

import pathlib

from mtbus_jax.images import dicom, dicom_kind, pairing
from tfds_busi import nrrd, search


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """What a folder holds, see `search.visible`, in the order of names."""
    return sorted(search.visible(folder))


def named(root: pathlib.Path, names: tuple[str, ...], *, folder: bool = False):
    """What a folder holds under the first of some names, whatever their case; None without."""
    there = {path.name.lower(): path for path in visible(root) if path.is_dir() == folder}
    return next((there[name] for name in names if name in there), None)


def pictures(
    folder: pathlib.Path, *, deep: bool = False, drawn: bool = False
) -> list[pathlib.Path]:
    """Pictures in a folder, without DICOM files that hold none.

    Args:
      folder: the folder.
      deep: whether also those below it.
      drawn: whether also segmentations, of Slicer and in DICOM.
    """
    suffixes = (*pairing.SUFFIXES, *([nrrd.SUFFIX] if drawn else []))
    found = []
    for path in visible(folder):
        if path.is_dir():
            found += pictures(path, deep=True, drawn=drawn) if deep else []
        elif path.suffix.lower() in suffixes and _may_be(path, drawn):
            found.append(path)
    return found


def _may_be(path: pathlib.Path, drawn: bool) -> bool:
    """Whether a file with the suffix of a picture is one, or a segmentation where these count."""
    if path.suffix.lower() not in dicom.SUFFIXES or not dicom_kind.is_without_picture(path):
        return True
    return drawn and dicom_kind.is_segmentation(path)


def uid(root: pathlib.Path, path: pathlib.Path) -> str:
    """An image's path below the folder, without its ending."""
    relative = path.relative_to(root) if path.is_relative_to(root) else pathlib.Path(path.name)
    return relative.with_suffix("").as_posix()


def owner(path: pathlib.Path) -> str | None:
    """Stem of the picture that a file is a mask of by its name; None if it says nothing of one."""
    return nrrd.picture_of(path) if path.suffix.lower() == nrrd.SUFFIX else pairing.picture_of(path)
