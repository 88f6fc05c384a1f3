"""Scales values of any type and depth to 8 bits, the same way for all pictures of a file."""

from __future__ import annotations

import dataclasses

import numpy as np

# Bit depths in which devices store grey values. If a file does not tell its depth, the smallest
# that holds all its values is assumed.
_BIT_DEPTHS = (8, 10, 12, 14, 16)
# Up to this largest value, a picture counts as 0..1: resizing or filtering overshoots a little.
_OVERSHOOT = 2.0


class UnusableError(ValueError):
    """Pixels that are no picture; the message is the reason, as in `ReadError`."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which values become 0 and 255.

    Attributes:
      black: becomes 0.
      white: becomes 255.
      note: describes the scaling; "" if the values stay as they are.
    """

    black: float
    white: float
    note: str


def of_bits(bits: int) -> Scale:
    """The scale of unsigned values that are stored in this many bits."""
    note = "" if bits == 8 else f"{bits}-bit values scaled to 8 bits"
    return Scale(0.0, float(2**bits - 1), note)


def scale_of(kind: str, low: float, high: float) -> Scale:
    """The scale of values whose depth no header gives.

    * Integers from 0: the smallest of 8, 10, 12, 14 and 16 bits that holds them, so that 12-bit
      values in a 16-bit file are not black, and 8-bit ones keep their values;
    * floats from 0 to 1: times 255; up to 2, taken as 0 to 1 with overshoot: the largest becomes
      255; up to 255: rounded;
    * anything else: the smallest becomes 0, the largest 255.

    Args:
      kind: kind of the type, NumPy's ``i``, ``u`` or ``f``.
      low: the smallest value in the file.
      high: the largest one.
    """
    if kind in "iu" and low >= 0 and high < 2 ** _BIT_DEPTHS[-1]:
        return of_bits(next(bits for bits in _BIT_DEPTHS if high < 2**bits))
    if kind == "f" and low >= 0 and high <= 255:
        white = 255.0 if high > _OVERSHOOT else max(1.0, high)
        return Scale(0.0, white, f"floating-point values 0 to {white:.4g} scaled to 8 bits")
    return Scale(low, high, "smallest to largest value scaled to 8 bits")


class Extents:
    """Smallest and largest value, by type, over the pictures of a file; they give the scale."""

    def __init__(self):
        """Starts without a picture; `add` includes one."""
        self._found: dict[np.dtype, tuple[float, float]] = {}

    def add(self, values: np.ndarray) -> None:
        """Includes a picture; one with values that are not finite is skipped."""
        if values.dtype == np.uint8 or values.dtype.kind not in "iuf" or not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            return
        before = self._found.get(values.dtype, (low, high))
        self._found[values.dtype] = min(low, before[0]), max(high, before[1])

    def scale(self, dtype: np.dtype) -> Scale | None:
        """The common scale of the pictures of one type, None if there is none."""
        found = self._found.get(np.dtype(dtype))
        return None if found is None else scale_of(np.dtype(dtype).kind, *found)


def to_8_bit(values: np.ndarray, scale: Scale | None = None) -> tuple[np.ndarray, str]:
    """Maps grey values or channels to 0..255, the same way for all pixels.

    Args:
      values: of any shape; bool becomes 0 and 255, uint8 stays as it is.
      scale: for values of other types; None finds one by `scale_of`.

    Returns:
      uint8 of that shape, and a note, "" if the values are unchanged.

    Raises:
      UnusableError: if some are not finite, or of a type that is not a grey value.
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
    scale = scale or scale_of(values.dtype.kind, low, high)
    span = scale.white - scale.black
    factor = 255 / span if span > 0 else 0.0
    scaled = (values.astype(np.float64) - scale.black) * factor
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), scale.note
