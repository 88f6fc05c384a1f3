"""Pictures from files as they come: PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM, of any pixel type.

Everything that reads pictures does it here: prediction, curation and the building of datasets.
`find` lists files; `decode` gives their pictures in 8-bit grey or RGB; `read` gives `Frame`, the
8-bit grey picture that the networks were trained on, and `from_array` does so for pixels in
memory. Each has the spacing where the file tells it, and a note for everything that was changed.
`docs/pictures.md` says what is read how.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mtbus_jax.images import dicom, picture
from mtbus_jax.images.finding import Found, Source, find
from mtbus_jax.images.frame import (
    MIN_SIDE,
    Decoded,
    Frame,
    ReadError,
    Spacing,
    as_text,
    from_array,
)

__all__ = [
    "Decoded",
    "Found",
    "Frame",
    "ReadError",
    "Source",
    "Spacing",
    "as_text",
    "decode",
    "find",
    "from_array",
    "read",
]


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
