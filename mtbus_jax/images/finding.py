"""Which files below the given folders are pictures, and under which names their results go."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtbus_jax.errors import UserError
from mtbus_jax.images import dicom_kind, picture
from mtbus_jax.images.frame import as_text
from mtbus_jax.images.left_behind import is_left_behind
from mtbus_jax.images.pairing import SUFFIXES, owners, stem

# Names of a frame's results end in "#7"; the name of no other file's results may.
_LIKE_A_FRAME = re.compile(r"#\d+$")
_LIKE_A_RESULT = (".png", ".npy", ".dcm")
# Bytes of one part of a name: file systems allow 255, and suffixes are added.
_LONGEST_PART = 180


@dataclasses.dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
      path: of the file.
      file: that path as text: relative to the folder it was found in, or the name alone of a file
        that was given itself; the whole path if two files would have the same text.
      name: name for its results, relative, with ``/`` between folders and without suffix; unique
        even if case is ignored.
    """

    path: Path
    file: str
    name: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What `find` found.

    Attributes:
      sources: the files to read, in natural order (2 before 10).
      masks: files that `pairing.owners` takes for masks of other files, left out.
      others: files that are neither pictures by name nor DICOM by content, and DICOM files without
        a picture, such as reports and segmentations; left out.
      unlisted: folders that could not be opened.
    """

    sources: tuple[Source, ...]
    masks: tuple[Path, ...]
    others: tuple[Path, ...]
    unlisted: tuple[Path, ...]


def find(inputs: Sequence[str | os.PathLike[str]]) -> Found:
    """Lists files; decodes nothing.

    A file that is named is taken, whatever it is. From a folder and its sub-folders, files with the
    suffix of a picture are taken, and DICOM files under any name; `files_below` says which files
    are skipped.

    Args:
      inputs: files and folders.

    Raises:
      UserError: if one of them does not exist, or there is no picture.
    """
    picked: list[tuple[Path, Path]] = []  # file, and the part of its path that names it
    masks: list[Path] = []
    others: list[Path] = []
    unlisted: list[Path] = []
    for given in map(Path, inputs):
        if _is(given, "dir"):
            pictures = []
            for path in files_below(given, unlisted):
                (pictures if is_picture(path) else others).append(path)
            owned = owners(pictures, given)
            masks += [path for path in pictures if path in owned]
            picked += [(path, path.relative_to(given)) for path in pictures if path not in owned]
        elif _is(given, "file"):
            picked.append((given, Path(given.name)))
        else:
            # A shell expands a pattern only if it is a separate word.
            hint = f" For the files that match it, write --input {given}, with a space."
            pattern = any(sign in str(given) for sign in "*?[")
            raise UserError(
                f"--input={given}: there is no such file or folder.{hint if pattern else ''}"
            )
    picked = list({os.path.abspath(path): (path, part) for path, part in picked}.values())
    if not picked:
        raise UserError(
            f"--input={', '.join(map(str, inputs))} holds no picture. Files ending in "
            f"{', '.join(SUFFIXES)} and DICOM files under any name are looked for, in sub-folders "
            "too."
        )
    picked.sort(key=lambda item: natural_key(item[1].as_posix()))
    names = _unique_names([part for _, part in picked])
    count = collections.Counter(as_text(part) for _, part in picked)
    sources = tuple(
        Source(path, as_text(part if count[as_text(part)] == 1 else path), name)
        for (path, part), name in zip(picked, names, strict=True)
    )
    return Found(sources, tuple(masks), tuple(others), tuple(unlisted))


def _is(path: Path, what: str) -> bool:
    """Whether a path that was given is a folder (``dir``) or a ``file``.

    Raises:
      UserError: if the system cannot tell, as for a name that is too long.
    """
    try:
        return path.is_dir() if what == "dir" else path.is_file()
    except OSError as error:
        raise UserError(f"--input={path} cannot be looked at: {error.strerror}.") from None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, or a DICOM file that does not say otherwise."""
    suffix = path.suffix.lower()
    if suffix in picture.SUFFIXES:  # without opening it
        return True
    if dicom_kind.is_dicom_file(path):
        return not dicom_kind.is_without_picture(path)
    return suffix in SUFFIXES


def files_below(root: Path, unlisted: list[Path]) -> Iterator[Path]:
    """The files in and below a folder, also behind links; each folder is visited once.

    Files that `left_behind` names are skipped, and so is DICOMDIR, a table of contents in DICOM's
    own format.

    Args:
      root: the folder.
      unlisted: receives folders that cannot be opened.
    """

    def note(error: OSError) -> None:
        unlisted.append(Path(error.filename))

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=note, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        shown = [name for name in folders if not is_left_behind(name)]
        folders[:] = sorted(shown, key=lambda name: (os.path.islink(Path(folder, name)), name))
        for name in files:
            path = Path(folder, name)
            if is_left_behind(name) or name == "DICOMDIR":
                continue
            # No pipes or devices, also behind links; a dead link is reported later.
            if path.is_file() or (path.is_symlink() and not path.exists()):
                yield path


def natural_key(text: str) -> list[str | int]:
    """Sorting key by which ``a_2`` comes before ``a_10``."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _unique_names(parts: Sequence[Path]) -> list[str]:
    """Names for results: the path without suffix where no other file shares it, else with it."""
    plain = [_name(stem(part)) for part in parts]
    full = [_name(part) for part in parts]
    count: dict[str, int] = {}
    for name in plain:
        count[name.casefold()] = count.get(name.casefold(), 0) + 1
    taken: set[str] = set()
    names = []
    for short, long in zip(plain, full, strict=True):
        first = short if count[short.casefold()] == 1 else long
        candidate, number = first, 1
        while candidate.casefold() in taken or _LIKE_A_FRAME.search(candidate):
            number += 1
            candidate = f"{first}~{number}"
        taken.add(candidate.casefold())
        names.append(candidate)
    return names


def _name(part: Path) -> str:
    *folders, last = part.parts
    # A folder "a.png" must not stand where the mask of a file "a" goes.
    folders = [f"{each}_" if each.lower().endswith(_LIKE_A_RESULT) else each for each in folders]
    return "/".join(_shortened(as_text(each)) for each in (*folders, last))


def _shortened(part: str) -> str:
    return part.encode("utf-8")[:_LONGEST_PART].decode("utf-8", "ignore")
