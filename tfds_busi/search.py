"""Finds a dataset below a folder, however the download was unpacked, zips included."""

from __future__ import annotations

import contextlib
import io
import itertools
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mtbus_jax.errors import UserError
from mtbus_jax.images.left_behind import is_left_behind

# A folder, a file, or either of them inside a zip archive: both types offer the few methods used
# here (name, iterdir, is_dir, joinpath, read_bytes).
RawPath = pathlib.Path | zipfile.Path

_DEPTH = 4
_ZIP = ".zip"
_LARGEST_ZIP = 2 << 30  # bytes of a zip in a zip, which is unpacked in memory


def find(
    root: pathlib.Path, looks_right: Callable[[RawPath], bool], zip_words: tuple[str, ...]
) -> RawPath | None:
    """The first folder that looks right: folders before zips, shallow before deep.

    Every zip file in the folders is opened, those named like the dataset first, and so are zips in
    zips: browsers and repositories give the same download many names.

    Args:
      root: folder or zip file.
      looks_right: tells whether a folder is the one.
      zip_words: parts of the names, in lower case, of zips that must be readable.

    Raises:
      UserError: if a zip that was given, or is named like the dataset, cannot be read.
    """
    if root.is_file():
        return _in_zip(_open_zip(root), looks_right)
    if not root.is_dir():
        return None
    found = _in_folders(root, looks_right)
    if found is not None:
        return found

    def is_named_like_it(path: RawPath) -> bool:
        return any(word in path.name.lower() for word in zip_words)

    zips = [path for path in _below(root) if _is_zip(path)]
    for path in sorted(zips, key=lambda path: not is_named_like_it(path)):
        try:
            found = _in_zip(_open_zip(path), looks_right)
        except UserError:
            if is_named_like_it(path):
                raise
            continue  # not the dataset's
        if found is not None:
            return found
    return None


def visible(folder: RawPath) -> list[RawPath]:
    """What a folder holds, without pipes, devices and what desktops and drives leave behind."""
    try:
        return [
            path
            for path in folder.iterdir()
            if not is_left_behind(path.name)
            # A dead link stays, to be reported.
            and (path.is_file() or path.is_dir() or not path.exists())
        ]
    except OSError:
        return []  # a folder that we may not list holds nothing for us


def _in_folders(root: RawPath, looks_right: Callable[[RawPath], bool]) -> RawPath | None:
    for folder in itertools.chain([root], _below(root)):
        with contextlib.suppress(OSError):  # a folder that we may not enter
            if folder.is_dir() and looks_right(folder):
                return folder
    return None


def _in_zip(root: zipfile.Path, looks_right: Callable[[RawPath], bool]) -> RawPath | None:
    found = _in_folders(root, looks_right)
    if found is not None:
        return found
    for path in _below(root):
        if _is_zip(path):
            inner = _in_folders(_open_zip(path), looks_right)
            if inner is not None:
                return inner
    return None


def _below(root: RawPath) -> Iterator[RawPath]:
    """Everything below a folder, level by level, in the order of names."""
    level: list[RawPath] = [root]
    for _ in range(_DEPTH):
        children = [
            child
            for folder in level
            for child in sorted(visible(folder), key=lambda path: path.name)
        ]
        yield from children
        level = [child for child in children if child.is_dir()]


def _is_zip(path: RawPath) -> bool:
    return path.name.lower().endswith(_ZIP) and path.is_file()


def _unpacked(path: zipfile.Path) -> BinaryIO:
    """A zip in a zip, in memory.

    Raises:
      UserError: if it is larger than any dataset.
    """
    with path.open("rb") as entry:
        content = entry.read(_LARGEST_ZIP + 1)
    if len(content) > _LARGEST_ZIP:
        raise UserError(
            f"{path} has more than {_LARGEST_ZIP >> 20} MB. Unpack the outer zip first."
        )
    return io.BytesIO(content)


def _open_zip(path: RawPath) -> zipfile.Path:
    try:
        file = path if isinstance(path, pathlib.Path) else _unpacked(path)
        archive = zipfile.ZipFile(file)
        if not archive.filename:
            archive.filename = str(path)  # for messages
        return zipfile.Path(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} is not a readable zip file ({error}). Download it again."
        ) from error
