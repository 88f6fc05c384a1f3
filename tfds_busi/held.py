"""What a folder of pictures holds, by the names of its files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from mtbus_jax import images
from mtbus_jax.images import dicom_kind, pairing
from tfds_busi import labelme, nrrd, search


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """What a folder holds, see `search.visible`, in the order of names."""
    return sorted(search.visible(folder))


def named(root: pathlib.Path, names: tuple[str, ...], *, folder: bool = False):
    """What a folder holds under the first of some names, in upper or lower case, or None."""
    there = {pairing.folded(path.name): path for path in visible(root) if path.is_dir() == folder}
    return next((there[name] for name in names if name in there), None)


def pictures(
    folder: pathlib.Path, *, deep: bool = False, drawn: bool = False
) -> list[pathlib.Path]:
    """Pictures in a folder: recognised by suffix or, for DICOM files, by content.

    DICOM files that hold no picture, such as reports, do not count.

    Args:
      folder: the folder.
      deep: see `files`.
      drawn: whether to include segmentations, those of Slicer and those in DICOM.
    """
    return [
        path
        for path in files(folder, deep=deep)
        if (drawn if is_segmentation(path) else images.is_picture(path))
    ]


def has_picture(folder: pathlib.Path) -> bool:
    """Whether there is a picture in or below a folder; looks no further than the first."""
    below = files(folder, deep=True)
    return any(not is_segmentation(path) and images.is_picture(path) for path in below)


def files(folder: pathlib.Path, *, deep: bool) -> Iterator[pathlib.Path]:
    """The files in a folder, in the order of names.

    Args:
      folder: the folder.
      deep: whether to include files below it; each folder once, whatever links there are.
    """
    seen = {folder.resolve()}

    def look(place: pathlib.Path) -> Iterator[pathlib.Path]:
        for path in visible(place):
            if not path.is_dir():
                yield path
            elif deep and path.resolve() not in seen:
                seen.add(path.resolve())
                yield from look(path)

    yield from look(folder)


def is_segmentation(path: pathlib.Path) -> bool:
    """Whether a file is a segmentation, of Slicer or in DICOM."""
    return path.suffix.lower() == nrrd.SUFFIX or dicom_kind.is_segmentation(path)


def stem(path: pathlib.Path) -> str:
    """A picture's name without its suffix; ``1.2.840`` has none."""
    return pairing.stem(path).name


def outlines_of(image: pathlib.Path) -> pathlib.Path:
    """Path of an image's LabelMe file, whether or not there is one."""
    return image.with_name(stem(image) + labelme.SUFFIX)


def uid(root: pathlib.Path, path: pathlib.Path) -> str:
    """An image's path below the folder, without its ending."""
    relative = path.relative_to(root) if path.is_relative_to(root) else pathlib.Path(path.name)
    return pairing.stem(relative).as_posix()


def owner(path: pathlib.Path) -> str | None:
    """Stem of the picture that a mask's name refers to; None if it is not the name of a mask."""
    return nrrd.picture_of(path) if path.suffix.lower() == nrrd.SUFFIX else pairing.picture_of(path)
