"""The one place where files become pictures."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mtbus_jax.images import dicom, dicom_kind, dicom_mask, picture
from mtbus_jax.images.frame import MAX_BYTES, MIN_SIDE, Decoded, Frame, ReadError

HEAD_BYTES = dicom.HEAD_BYTES
# Note on a mask, see `preprocess.lesion_of`.
BETWEEN = "has values between black and white; what is above half of the largest counts as lesion"


def read(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Decodes a file to grey.

    Args:
      path: of the file.

    Yields:
      The only frame, or those of a multi-frame DICOM or multi-page TIFF file in order.

    Raises:
      ReadError: if the file, or a frame in it, cannot be read; frames before it have been given.
    """
    for found in decode(path):
        yield found.to_frame()


def read_content(content: bytes, name: str) -> Iterator[Frame]:
    """Decodes a file that is held in memory, as `read` does one on disk; writes nothing.

    Args:
      content: content of the file.
      name: name of the file, for messages and to tell its type if the content does not.

    Yields:
      The only frame, or those of a multi-frame DICOM or multi-page TIFF file in order.

    Raises:
      ReadError: if the file, or a frame in it, cannot be read; frames before it have been given.
    """
    for found in _decoded(Path(name), io.BytesIO(content), MIN_SIDE, content):
        yield found.to_frame()


def is_known(head: bytes, name: str) -> bool:
    """Whether a file is of a type that can be read, provided that it is complete.

    Args:
      head: its first `HEAD_BYTES`.
      name: its name.
    """
    return picture.looks_right(head) or dicom.looks_right(Path(name), head)


def decode(
    path: str | os.PathLike[str] | zipfile.Path, *, smallest: int = MIN_SIDE
) -> Iterator[Decoded]:
    """Decodes a file, whose type is told by its content; a suffix matters only for bare DICOM data.

    Pictures come one at a time, so a long sequence needs memory for one only.

    Args:
      path: of the file, which may lie in a zip archive (DICOM files may not).
      smallest: least height and width in pixels.

    Yields:
      The only picture, or those of a multi-frame DICOM or multi-page TIFF file in order.

    Raises:
      ReadError: if the file, or a picture in it, cannot be read; those before it have been given.
    """
    if not isinstance(path, zipfile.Path):
        path = Path(path)
    with _opened(path) as file:
        yield from _decoded(path, file, smallest, path if isinstance(path, Path) else None)


def _decoded(
    path: Path | zipfile.Path, file: BinaryIO, smallest: int, for_dicom: Path | bytes | None
) -> Iterator[Decoded]:
    """Decodes an open file; DICOM is read only if its path or content is given, too."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise ReadError(path, "is empty (0 bytes)")
    if for_dicom is not None and dicom.looks_right(path, head):
        yield from dicom.decode(path, for_dicom, smallest=smallest)
    else:
        file.seek(0)
        yield from picture.decode(path, file, smallest=smallest)


def decode_mask(path: str | os.PathLike[str] | zipfile.Path) -> Decoded:
    """Decodes a mask file, of any size; `preprocess.lesion_of` says what is lesion in it.

    Args:
      path: of the file, which may lie in an archive; a picture, or a DICOM segmentation.

    Returns:
      Its only picture.

    Raises:
      ReadError: if it cannot be read, holds several pictures, or has transparent pixels.
    """
    if not isinstance(path, zipfile.Path) and dicom_kind.is_segmentation(Path(path)):
        return dicom_mask.decode(Path(path))
    found = next(decode(path, smallest=1))
    if found.count > 1 or any(note.startswith(picture.FIRST_OF) for note in found.notes):
        raise ReadError(
            path,
            "holds several pictures, so it does not say what is tumour; save the mask as one "
            "picture, or as separate files",
        )
    if found.transparent:
        raise ReadError(
            path,
            "has transparent pixels, so it does not say what is tumour; save it opaque, black and "
            "white",
        )
    return found


def _opened(path: Path | zipfile.Path) -> BinaryIO:
    """Opens a file; one in a zip archive is unpacked first, because it cannot be read in parts.

    Raises:
      ReadError: if it cannot be opened, is a device or pipe, which might never end, or unpacks to
        more than `MAX_BYTES`.
    """
    try:
        if isinstance(path, Path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise ReadError(path, "cannot be opened (a folder, a device or a pipe)")
            return path.open("rb")
        with path.open("rb") as entry:
            content = entry.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReadError(path, f"cannot be opened ({error.strerror})") from None
    except ReadError:
        raise
    except Exception as error:  # a damaged archive raises a dozen unrelated types
        raise ReadError(path, f"cannot be opened ({type(error).__name__})") from None
    if len(content) > MAX_BYTES:
        raise ReadError(path, f"unpacks to more than {MAX_BYTES // 10**6} MB")
    return io.BytesIO(content)
