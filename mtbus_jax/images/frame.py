"""One decoded picture, and the conversion of pixels of any type to 8-bit colour and to grey."""

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
# A longer line is hardly a picture's, and resizing needs tables as long. DICOM has this limit, too.
MAX_SIDE = 65_535
# For a file that is read as a whole, and for what a file unpacks to: 16 bits in four channels.
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
      number: number of the first frame that was not read; None if nothing was read at all.
    """

    def __init__(self, path: Path | zipfile.Path, reason: str, number: int | None = None):
        """Joins the parts into one message."""
        self.file, self.reason, self.number = as_text(path), reason, number
        super().__init__(f"{self.file}: {reason}")


def as_text(path: str | os.PathLike[str] | zipfile.Path) -> str:
    """A path as valid Unicode, with ``/`` between its parts; Linux allows any bytes in a path."""
    return os.fsencode(Path(str(path)).as_posix()).decode("utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class Spacing:
    """Size of a pixel.

    Attributes:
      row_mm: distance of neighbouring rows (downwards) in mm.
      col_mm: distance of neighbouring columns in mm.
      regions: boxes (top, left, bottom, right) in pixels, half open, inside which the spacing
        holds; empty if it holds for the whole picture.
    """

    row_mm: float
    col_mm: float
    regions: tuple[tuple[int, int, int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One picture at its own size.

    Attributes:
      grey: ``(height, width)`` uint8.
      number: its number in a file with several pictures, from 1; None for the only one.
      count: how many pictures the file holds.
      spacing: size of a pixel, or None if it is not known.
      notes: texts on everything that was changed or is missing.
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
      number: its number in a file with several pictures, from 1; None for the only one.
      count: how many pictures the file holds.
      spacing: size of a pixel, or None if it is not known.
      notes: texts on everything that was changed or is missing.
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
    """Refuses sizes that a picture may not have.

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
    """Pixels of any type as 8-bit grey or RGB; alpha is dropped, as for training.

    Args:
      pixels: ``(height, width)``, or ``(height, width, channels)`` with 1 (grey), 2 (grey and
        alpha), 3 (RGB) or 4 (RGB and alpha) channels.
      scale: of the values, see `depth.to_8_bit`.
      smallest: least height and width.

    Returns:
      A picture, as the only one of a file; its pixels may share memory with ``pixels``.

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
      ``(height, width)`` uint8, which shares no memory with ``pixels``; and notes on what was
      changed.
    """
    notes = []
    grey = pixels[..., 0] if pixels.ndim == 3 else pixels
    if pixels.ndim == 3 and any((grey != pixels[..., c]).any() for c in range(1, pixels.shape[-1])):
        notes.append("colour turned to grey")
        # One part at a time, to save memory: the luma is computed in 32 bits.
        parts = range(0, len(pixels), _ROWS_AT_ONCE)
        grey = np.concatenate([to_greyscale(pixels[row : row + _ROWS_AT_ONCE]) for row in parts])
    else:
        grey = grey.copy()  # luma does not change equal channels
    if grey.min() == grey.max():
        notes.append("all pixels have one value")
    return grey, tuple(notes)
