"""Pictures from files as they come: PNG, JPEG, TIFF, BMP, DICOM, of any size and pixel type.

`find` lists them, `read` decodes one, frame by frame, and `from_array` takes pixels that are in
memory already. Each gives `Frame`: the 8-bit grey picture that the networks were trained on, the
spacing where the file tells it, and a note for everything that was changed on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mtbus_jax.images import dicom, picture
from mtbus_jax.images.finding import Found, Source, find
from mtbus_jax.images.frame import Frame, ReadError, Spacing, from_array

__all__ = ["Found", "Frame", "ReadError", "Source", "Spacing", "find", "from_array", "read"]


def read(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Decodes a file; what kind it is of, its content says and not its name.

    Frames come one at a time, so that a long sequence needs the memory of one picture.

    Args:
      path: of the file.

    Yields:
      The only frame, or those of a multi-frame DICOM or multi-page TIFF file in order.

    Raises:
      ReadError: if the file, or a frame in it, cannot be read; frames before it have been given.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(dicom.HEAD_BYTES)
    except OSError as error:
        raise ReadError(path, f"cannot be opened ({error.strerror})") from None
    if not head:
        raise ReadError(path, "is empty (0 bytes)")
    if dicom.looks_right(path, head):
        yield from dicom.read(path)
    else:
        yield from picture.read(path)
