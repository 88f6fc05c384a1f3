"""The one place where files become pictures."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mtbus_jax.images import dicom, picture
from mtbus_jax.images.frame import MIN_SIDE, Decoded, Frame, ReadError

# Said of a mask, see `preprocess.lesion_of`.
BETWEEN = "has values between black and white; what is above half of the largest counts as lesion"


def read(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Decodes a file, to grey; see `decode`.

    Args:
      path: of the file.

    Yields:
      The only frame, or those of a multi-frame DICOM or multi-page TIFF file in order.

    Raises:
      ReadError: if the file, or a frame in it, cannot be read; frames before it have been given.
    """
    for found in decode(path):
        yield found.to_frame()


def decode(
    path: str | os.PathLike[str] | zipfile.Path, *, smallest: int = MIN_SIDE
) -> Iterator[Decoded]:
    """Decodes a file; what kind it is of, its content says and not its name.

    Pictures come one at a time, so that a long sequence needs the memory of one.

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
        head = file.read(dicom.HEAD_BYTES)
        if not head:
            raise ReadError(path, "is empty (0 bytes)")
        if isinstance(path, Path) and dicom.looks_right(path, head):
            yield from dicom.decode(path, smallest=smallest)
        else:
            file.seek(0)
            yield from picture.decode(path, file, smallest=smallest)


def decode_mask(path: str | os.PathLike[str] | zipfile.Path) -> Decoded:
    """Decodes a mask file, of any size; `preprocess.lesion_of` says what is lesion in it.

    Args:
      path: see `decode`.

    Returns:
      Its first picture.

    Raises:
      ReadError: if it cannot be read, or has transparent pixels.
    """
    found = next(decode(path, smallest=1))
    if found.transparent:
        raise ReadError(
            path,
            "has transparent pixels, so it does not say what is tumour; save it opaque, black and "
            "white",
        )
    return found


def _opened(path: Path | zipfile.Path) -> BinaryIO:
    """A file, open; one in a zip archive is unpacked first, for it cannot be read in parts.

    Raises:
      ReadError: if it cannot be opened.
    """
    try:
        return path.open("rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes())
    except OSError as error:
        raise ReadError(path, f"cannot be opened ({error.strerror})") from None
    except Exception as error:  # a damaged archive raises a dozen unrelated types
        raise ReadError(path, f"cannot be opened ({type(error).__name__})") from None
