"""From stored DICOM values to what a viewer shows: lookup tables, window, polarity (PS3.3 C.11)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbus_jax.images.frame import UnusableError, to_8_bit


def to_grey_or_colour(pixels: np.ndarray, header: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stored values to grey values or RGB.

    Grey values pass the modality table or rescaling, then the VOI table, or the first window, or
    for want of both the range of 8, 10, 12, 14 or 16 bits that holds them; MONOCHROME1 is
    inverted in the end.

    Args:
      pixels: ``(height, width)`` or ``(height, width, 3)``, as decoded.
      header: a pydicom data set.

    Returns:
      ``(height, width)`` uint8, or ``(height, width, 3 or 4)``; and notes of what was done.

    Raises:
      UnusableError: for a table or window that cannot be applied.
    """
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return _palette(pixels, header), ("palette replaced by its colours",)
    if pixels.ndim == 3:
        return pixels, ()
    notes = []
    if header.get("BitsStored") == 1:
        pixels = pixels.astype(bool)
    values = _modality(pixels, header)
    if values is not pixels:
        notes.append("modality table or rescaling applied")
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        table, first = _table(item)
        shown = _looked_up(values, table, first).astype(np.float64)
        grey = np.rint(shown * (255 / (2 ** int(item.LUTDescriptor[2]) - 1))).astype(np.uint8)
        notes.append("VOI table applied")
    elif header.get("WindowWidth") is not None and header.get("WindowCenter") is not None:
        function = str(header.get("VOILUTFunction") or "LINEAR").upper()
        grey = window(values, _first(header.WindowCenter), _first(header.WindowWidth), function)
        notes.append("window applied")
    else:
        grey, note = to_8_bit(values)
        notes += [note] if note else []
    if photometric == "MONOCHROME1":
        grey = 255 - grey
        notes.append("MONOCHROME1 inverted")
    return grey, tuple(notes)


def window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The VOI window of PS3.3 C.11.2.1.2 and C.11.2.1.3, to 0..255.

    Args:
      values: of any shape.
      center: of the window.
      width: of the window, at least 1 for LINEAR and above 0 for the others.
      function: LINEAR, LINEAR_EXACT or SIGMOID.

    Returns:
      uint8 of that shape.

    Raises:
      UnusableError: for another function or width.
    """
    values = values.astype(np.float64)
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnusableError("has a VOI function that is not supported")
    if not (np.isfinite([center, width]).all() and width > 0) or (
        function == "LINEAR" and width < 1
    ):
        raise UnusableError("has a window of no width")
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -700, 700)
        share = 1 / (1 + np.exp(exponent))
    elif function == "LINEAR" and width == 1:
        share = (values > center - 0.5).astype(np.float64)
    else:
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        share = np.clip((values - center) / width + 0.5, 0, 1)
    return np.rint(share * 255).astype(np.uint8)


def _first(value: Any) -> float:
    """The first of several windows: the one a viewer starts with."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])


def _modality(pixels: np.ndarray, header: Any) -> np.ndarray:
    if header.get("ModalityLUTSequence"):
        return _looked_up(pixels, *_table(header.ModalityLUTSequence[0]))
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None or (slope == 1 and intercept == 0):
        return pixels
    values = pixels.astype(np.float64) * float(slope) + float(intercept)
    whole = np.rint(values)
    return whole.astype(np.int64) if (whole == values).all() else values


def _table(item: Any) -> tuple[np.ndarray, int]:
    """Entries of a lookup table, and the value that the first one belongs to."""
    count, first, bits = (int(each) for each in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        # An odd choice of type, which pydicom leaves as bytes: words, or bytes for small entries.
        wide = len(data) >= 2 * (count or 2**16)
        data = np.frombuffer(data, "<u2" if wide else np.uint8)
    table = np.asarray(data, np.int64)[: count or 2**16]
    if not len(table) or not 8 <= bits <= 16:
        raise UnusableError("has a lookup table that cannot be applied")
    return np.minimum(table, 2**bits - 1), first


def _looked_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    index = np.rint(np.asarray(values, np.float64)).astype(np.int64) - first
    return table[np.clip(index, 0, len(table) - 1)]


def _palette(pixels: np.ndarray, header: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(pixels, header)
    if colours.dtype == np.uint8 and pixels.max() > 255:
        raise UnusableError("has a palette of more than 256 colours of 8 bits, not supported")
    # Entries of 16 bits stay comparable between pictures: no picture is scaled by itself.
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)
