"""PNG, JPEG, TIFF and BMP files, through Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mtbus_jax.images.frame import MAX_PIXELS, Frame, ReadError, UnusableError, check_size, to_grey

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# No other decoder is let near a file, whatever it holds.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_ORIENTATION = 0x0112  # EXIF and TIFF tag


def read(path: Path) -> Iterator[Frame]:
    """Decodes a file; a TIFF file gives a frame per page, others their first picture.

    Args:
      path: of the file.

    Yields:
      Frames in order.

    Raises:
      ReadError: if the file or a page in it cannot be read.
    """
    number = None
    try:
        # From an open file: one that it knows by name Pillow may map into memory, and then it
        # scrambles uncompressed TIFF pictures that their orientation tag turns (seen in 12.3).
        with path.open("rb") as file, _opened(file) as image:
            count = _count(image)
            pages = count if image.format == "TIFF" else 1
            for page in range(pages):
                number = page + 1 if pages > 1 else None
                frame = _decode(image, page)
                notes = frame.notes
                if count > pages:
                    notes = (f"first of {count} pictures in the file", *notes)
                yield Frame(frame.grey, number, pages, notes=notes)
    except UnidentifiedImageError:
        raise ReadError(path, "is no PNG, JPEG, TIFF, BMP or DICOM picture") from None
    except Image.DecompressionBombError:
        raise ReadError(
            path,
            f"has more than the {MAX_PIXELS // 10**6} million pixels that are allowed as a guard "
            "against decompression bombs; scale it down",
        ) from None
    except UnusableError as error:
        raise ReadError(path, str(error), _later(number)) from None
    except Exception as error:  # a cut or damaged file raises nearly anything in Pillow
        text = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            path, f"cannot be decoded, it is cut or damaged ({text})", _later(number)
        ) from None


def _later(number: int | None) -> int | None:
    """The frame from which on nothing was read, None if nothing was read at all."""
    return number if number is not None and number > 1 else None


def _opened(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        # Sizes are checked in `_decode`; the rest is about metadata.
        warnings.simplefilter("ignore")
        return Image.open(file, formats=_FORMATS)


def _count(image: Image.Image) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(image, "n_frames", 1)


def _decode(image: Image.Image, page: int) -> Frame:
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if page:
            image.seek(page)
        width, height = image.size
        check_size(height, width)
        if image.mode.startswith("RGB") and any("16" in str(tile[-1]) for tile in image.tile):
            notes.append("16-bit channels cut to 8 bits")
        if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
            notes.append("turned upright as its orientation tag says, mask and overlay too")
        # Pillow turns TIFF files itself, as it loads them.
        upright = image if image.format == "TIFF" else ImageOps.exif_transpose(image)
        pixels, mode_notes = _pixels(upright)
    grey, grey_notes = to_grey(pixels)
    return Frame(grey, notes=(*notes, *mode_notes, *grey_notes))


def _pixels(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels of a Pillow image as grey, RGB or RGBA of any depth, and notes."""
    mode = image.mode
    if mode in ("1", "L", "RGB", "RGBA", "F") or mode.startswith("I"):
        return np.asarray(image), []
    if mode in ("P", "PA", "LA"):
        notes = [] if mode == "LA" else ["palette replaced by its colours"]
        return np.asarray(image.convert("RGBA")), notes
    return np.asarray(image.convert("RGB")), [f"{mode} turned to RGB"]
