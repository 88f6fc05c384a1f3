"""One decoded picture, and the way from pixels of any type to 8-bit grey."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.images.preprocess import to_greyscale

# Against decompression bombs: a few bytes on disk that unpack to gigabytes.
MAX_PIXELS = 64_000_000
# Below this an ultrasound picture shows nothing.
MIN_SIDE = 16
# Ranges that devices store grey values in; the smallest that holds a picture is taken for its own.
_BIT_DEPTHS = (8, 10, 12, 14, 16)
_ROWS_AT_ONCE = 512


class ReadError(UserError):
    """A file that cannot be used.

    Attributes:
      file: the file's path as text.
      reason: what is wrong with it, a phrase that continues "the file …". It holds nothing from a
        DICOM header.
      number: of the frame from which on nothing was read, None if nothing at all was.
    """

    def __init__(self, path: Path, reason: str, number: int | None = None):
        """Joins the parts to one message."""
        self.file, self.reason, self.number = as_text(path), reason, number
        super().__init__(f"{self.file}: {reason}")


def as_text(path: str | os.PathLike[str]) -> str:
    """A path as valid Unicode, with ``/`` between its parts; Linux allows any bytes in it."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "replace")


class UnusableError(ValueError):
    """Pixels that are no picture; the message is the reason, as in `ReadError`."""


@dataclasses.dataclass(frozen=True)
class Spacing:
    """Size of a pixel.

    Attributes:
      row_mm: distance of neighbouring rows (downwards) in mm.
      col_mm: distance of neighbouring columns in mm.
      regions: boxes (top, left, bottom, right) in pixels, half open, inside which this holds;
        empty: the whole picture.
    """

    row_mm: float
    col_mm: float
    regions: tuple[tuple[int, int, int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One picture at its own size.

    Attributes:
      grey: ``(height, width)`` uint8.
      number: its place in a file of several, from 1; None for the only one.
      count: how many the file holds.
      spacing: size of a pixel, or None where it is not known.
      notes: everything that was changed or is missing, in words.
    """

    grey: np.ndarray
    number: int | None = None
    count: int = 1
    spacing: Spacing | None = None
    notes: tuple[str, ...] = ()


def from_array(pixels: np.ndarray) -> Frame:
    """A frame from pixels in memory.

    Args:
      pixels: ``(height, width)``, ``(height, width, 1)``, or ``(height, width, 3 or 4)`` RGB or
        RGBA; bool, integers or floats, mapped to 0..255 as `to_8_bit` says.

    Raises:
      UnusableError: for another shape, a picture too small or too large, or values that are no
        grey values.
    """
    grey, notes = to_grey(np.asarray(pixels))
    return Frame(grey, notes=notes)


def check_size(height: int, width: int) -> None:
    """Refuses sizes that are no picture.

    Raises:
      UnusableError: with the reason.
    """
    if height * width > MAX_PIXELS:
        raise UnusableError(
            f"is {height}×{width} pixels (height×width), more than the {MAX_PIXELS // 10**6} "
            "million that are allowed as a guard against decompression bombs; scale it down"
        )
    if min(height, width) < MIN_SIDE:
        raise UnusableError(
            f"is {height}×{width} pixels (height×width), too small: at least {MIN_SIDE}×{MIN_SIDE}"
        )


def to_grey(pixels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """8-bit grey by ITU-R 601 luma, as for training; alpha is ignored, as for training.

    Args:
      pixels: see `from_array`.

    Returns:
      ``(height, width)`` uint8, and notes of what was changed.

    Raises:
      UnusableError: see `from_array`.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4)):
        raise UnusableError(
            f"is no grey or colour picture: its pixels have the shape {pixels.shape}"
        )
    check_size(*pixels.shape[:2])
    notes = []
    if pixels.ndim == 3 and pixels.shape[-1] == 4:
        if np.ptp(pixels[..., 3]):
            notes.append("transparency ignored")
        pixels = pixels[..., :3]
    pixels, note = to_8_bit(pixels)
    notes += [note] if note else []
    grey = pixels[..., 0] if pixels.ndim == 3 else pixels
    if pixels.ndim == 3 and any((grey != pixels[..., c]).any() for c in range(1, pixels.shape[-1])):
        notes.append("colour turned to grey")
        # A part at a time: the luma is computed in 32 bits.
        parts = range(0, len(pixels), _ROWS_AT_ONCE)
        grey = np.concatenate([to_greyscale(pixels[row : row + _ROWS_AT_ONCE]) for row in parts])
    else:
        grey = grey.copy()  # luma leaves channels that are equal as they are
    if grey.min() == grey.max():
        notes.append("all pixels have one value")
    return grey, tuple(notes)


def to_8_bit(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Maps grey values or channels to 0..255, the same way for all pixels, without clipping.

    * bool: 0 and 255; uint8: as they are;
    * other integers from 0: from the smallest of 8, 10, 12, 14 and 16 bits that holds them, so
      that 12-bit values in a 16-bit file are not black, and 8-bit ones keep their values;
    * floats from 0 to 1: times 255; from 0 to 255: rounded;
    * anything else: smallest to 0, largest to 255.

    Args:
      values: of any shape.

    Returns:
      uint8 of that shape, and a note, or "" if the values are what they were.

    Raises:
      UnusableError: if some are not finite, or of a type that is no grey value.
    """
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255), ""
    if values.dtype == np.uint8:
        return values, ""
    if values.dtype.kind not in "iuf":
        raise UnusableError(f"holds pixels of the type {values.dtype}, which are no grey values")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnusableError("holds pixels that are not finite numbers")
    if values.dtype.kind in "iu" and low >= 0 and high < 2 ** _BIT_DEPTHS[-1]:
        bits = next(bits for bits in _BIT_DEPTHS if high < 2**bits)
        low, high = 0.0, float(2**bits - 1)
        note = "" if bits == 8 else f"{bits}-bit values scaled to 8 bits"
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        high, low = (1.0 if high <= 1 else 255.0), 0.0
        note = f"floating-point values 0 to {high:.0f} scaled to 8 bits"
    else:
        note = "smallest to largest value scaled to 8 bits"
    scale = 255 / (high - low) if high > low else 0.0
    scaled = (values.astype(np.float64) - low) * scale
    return np.rint(scaled).astype(np.uint8), note
