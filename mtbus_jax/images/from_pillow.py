"""Pillow's pictures as arrays: its modes as grey, RGB or RGBA, and the orientation tag."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image

from mtbus_jax.images.silence import quiet

# Only these decoders may open a file, whatever it holds.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
_ORIENTATION = 0x0112  # EXIF and TIFF tag
TURNED = "turned upright as its orientation tag says, mask and overlay too"
CUT_TO_8_BITS = "16-bit channels cut to 8 bits"


def opened(file: BinaryIO) -> Image.Image:
    """Opens a picture; decodes nothing.

    Args:
      file: open file. Given a name instead, Pillow may map the file into memory, and then it
        scrambles uncompressed TIFF pictures that their orientation tag turns (seen in 12.3).
    """
    with quiet():
        return Image.open(file, formats=_FORMATS)


def count(image: Image.Image) -> int:
    """How many pictures the file holds."""
    with quiet():
        return getattr(image, "n_frames", 1)


def pixels(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Grey, RGB or RGBA pixels of any depth, and notes; the picture must not be loaded yet."""
    notes = []
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in _raw_mode(each) for each in image.tile):
        notes.append(CUT_TO_8_BITS)
    mode = image.mode
    if mode in ("1", "L", "RGB", "RGBA", "F") or mode.startswith("I"):
        return np.asarray(image), notes
    if mode in ("P", "PA", "LA"):
        notes += [] if mode == "LA" else ["palette replaced by its colours"]
        return np.asarray(image.convert("RGBA")), notes
    return np.asarray(image.convert("RGB")), [*notes, f"{mode} turned to RGB"]


def _raw_mode(tile: tuple) -> str:
    """How the file stores its pixels, such as ``RGB;16B``."""
    arguments = tile[-1]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def orientation(image: Image.Image) -> int:
    """The value of the orientation tag; 1 if there is none that can be read."""
    try:
        with quiet():
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises nearly anything; the pixels are fine
        return 1


def turned(values: np.ndarray, orientation_tag: int) -> np.ndarray:
    """Turns a picture upright, as its orientation tag (TIFF 6.0, page 36) says.

    Pillow's own function is not used: it rewrites the EXIF data and fails on odd values in it.

    Args:
      values: ``(height, width, ...)``.
      orientation_tag: 1 to 8; other values turn nothing.
    """
    # 5 to 8 store columns as rows; after that, the order of rows or columns may be reversed.
    if orientation_tag in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation_tag in (3, 4, 7, 8):
        values = values[::-1]
    if orientation_tag in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
