"""One decoded picture, and the way from pixels of any type to 8-bit colour and to grey."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.images.depth import Scale, UnusableError, to_8_bit
from mtbus_jax.images.preprocess import to_greyscale

# Against decompression bombs: a few bytes on disk that unpack to gigabytes.
MAX_PIXELS = 64_000_000
# A line so long is no picture, and makes tables for resizing as long; DICOM knows no longer one.
MAX_SIDE = 65_535
# Of a file that is read as a whole, and of what is unpacked from one: 16 bits in four channels.
MAX_BYTES = 8 * MAX_PIXELS
# Below this an ultrasound picture shows nothing.
MIN_SIDE = 16
_ROWS_AT_ONCE = 512


class ReadError(UserError):
    """A file that cannot be used.

    Attributes:
      file: the file's path as text.
      reason: what is wrong with it, a phrase that continues "the file …". It holds nothing from a
        DICOM header.
      number: of the frame from which on nothing was read, None if nothing at all was.
    """

    def __init__(self, path: Path | zipfile.Path, reason: str, number: int | None = None):
        """Joins the parts to one message."""
        self.file, self.reason, self.number = as_text(path), reason, number
        super().__init__(f"{self.file}: {reason}")


def as_text(path: str | os.PathLike[str] | zipfile.Path) -> str:
    """A path as valid Unicode, with ``/`` between its parts; Linux allows any bytes in it."""
    return os.fsencode(Path(str(path)).as_posix()).decode("utf-8", "replace")


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


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """One picture of a file as stored, in 8 bits: what `Frame` is made from.

    Attributes:
      pixels: ``(height, width)`` or ``(height, width, 3)`` uint8, without alpha.
      transparent: whether a pixel is not fully opaque.
      number: its place in a file of several, from 1; None for the only one.
      count: how many the file holds.
      spacing: size of a pixel, or None where it is not known.
      notes: everything that was changed or is missing, in words.
    """

    pixels: np.ndarray
    transparent: bool = False
    number: int | None = None
    count: int = 1
    spacing: Spacing | None = None
    notes: tuple[str, ...] = ()

    def to_frame(self) -> Frame:
        """The picture in grey."""
        grey, notes = to_grey(self.pixels)
        return Frame(grey, self.number, self.count, self.spacing, (*self.notes, *notes))


def from_array(pixels: np.ndarray) -> Frame:
    """A frame from pixels in memory.

    Args:
      pixels: ``(height, width)``, ``(height, width, 1)``, or ``(height, width, 3 or 4)`` RGB or
        RGBA; bool, integers or floats, mapped to 0..255 as `depth.scale_of` says.

    Raises:
      UnusableError: for another shape, a picture too small or too large, or values that are no
        grey values.
    """
    return decoded(np.asarray(pixels)).to_frame()


def check_size(height: int, width: int, *, smallest: int = MIN_SIDE) -> None:
    """Refuses sizes that are no picture.

    Args:
      height: in pixels.
      width: in pixels.
      smallest: least height and width.

    Raises:
      UnusableError: with the reason.
    """
    if height * width > MAX_PIXELS:
        raise UnusableError(
            f"is {height}×{width} pixels (height×width), more than the {MAX_PIXELS // 10**6} "
            "million that are allowed as a guard against decompression bombs; scale it down"
        )
    if max(height, width) > MAX_SIDE:
        raise UnusableError(
            f"is {height}×{width} pixels (height×width), too long: at most {MAX_SIDE} a side"
        )
    if min(height, width) < smallest:
        raise UnusableError(
            f"is {height}×{width} pixels (height×width), too small: at least {smallest}×{smallest}"
        )


def decoded(pixels: np.ndarray, scale: Scale | None = None, *, smallest: int = MIN_SIDE) -> Decoded:
    """Pixels of any type as 8-bit grey or RGB; alpha is taken away, as for training.

    Args:
      pixels: ``(height, width)``, or ``(height, width, channels)`` with 1 (grey), 2 (grey and
        alpha), 3 (RGB) or 4 (RGB and alpha) channels.
      scale: of the values, see `depth.to_8_bit`.
      smallest: least height and width.

    Returns:
      The only picture of a file; what it holds may share memory with ``pixels``.

    Raises:
      UnusableError: for another shape, a side that is too short or far too long, and values that
        are no numbers.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 2, 3, 4)):
        raise UnusableError(
            f"is no grey or colour picture: its pixels have the shape {pixels.shape}"
        )
    check_size(*pixels.shape[:2], smallest=smallest)
    notes, transparent = [], False
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        alpha, pixels = pixels[..., -1], pixels[..., :-1]
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
        transparent = bool((alpha != opaque).any())
        if np.ptp(alpha):
            notes.append("transparency ignored")
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    pixels, note = to_8_bit(pixels, scale)
    notes += [note] if note else []
    return Decoded(pixels, transparent, notes=tuple(notes))


def to_grey(pixels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """8-bit grey by ITU-R 601 luma, as for training.

    Args:
      pixels: ``(height, width)`` or ``(height, width, 3)`` uint8.

    Returns:
      ``(height, width)`` uint8 of its own memory, and notes of what was changed.
    """
    notes = []
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
