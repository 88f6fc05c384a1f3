"""From stored DICOM values to what a viewer shows: lookup tables, window, polarity (PS3.3 C.11)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtbus_jax.images.depth import Extents, Scale, UnusableError, of_bits, to_8_bit

COMMA = "decimal comma read as a point"


class _Shown(NamedTuple):
    """How the values of a frame are shown, from its functional groups or the header itself.

    Attributes:
      modality: the data set with the rescaling or the modality table.
      voi: the data set with the window or the VOI table.
    """

    modality: Any
    voi: Any


def shown(header: Any, index: int) -> _Shown:
    """Finds what applies to a frame: its own functional group, the shared one, or the header.

    Args:
      header: a pydicom data set.
      index: of the frame, from 0.
    """
    groups = []
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    if index < len(per_frame):
        groups.append(per_frame[index])
    groups += list(header.get("SharedFunctionalGroupsSequence") or ())[:1]

    def first(keyword: str) -> Any:
        return next((group.get(keyword)[0] for group in groups if group.get(keyword)), header)

    return _Shown(first("PixelValueTransformationSequence"), first("FrameVOILUTSequence"))


def has_no_scale(header: Any) -> bool:
    """Whether the header does not give the range of the values, so that all frames must be read.

    That is so if the header says that all of 16 or more bits are used, which many devices also say
    of 12-bit values.
    """
    return header.PhotometricInterpretation != "PALETTE COLOR" and _declared_bits(header) is None


def values_of(pixels: np.ndarray, header: Any, index: int) -> tuple[np.ndarray, list[str]]:
    """Grey values after the modality table or rescaling, colours as they are, and notes.

    Args:
      pixels: ``(height, width)`` or ``(height, width, 3)`` as decoded.
      header: a pydicom data set.
      index: of the frame, from 0.

    Returns:
      Values of that shape, int64 or float64 if they were changed.

    Raises:
      UnusableError: for a table or rescaling that cannot be applied.
    """
    if pixels.ndim == 3:
        return pixels, []
    item = shown(header, index).modality
    if header.get("BitsStored") == 1:
        pixels = pixels.astype(bool)
    elif (_declared_bits(header) or 8) < 8:
        pixels = pixels.astype(np.int64)
    if item.get("ModalityLUTSequence"):
        values = _looked_up(pixels, *_table(item.ModalityLUTSequence[0]))
        return values, ["modality table or rescaling applied"]
    slope, intercept, commas = _rescaling(item)
    if (slope, intercept) == (1, 0):
        return pixels, []
    values = pixels.astype(np.float64) * slope + intercept
    if slope.is_integer() and intercept.is_integer():
        values = values.astype(np.int64)
    return values, ["modality table or rescaling applied", *commas]


def to_grey_or_colour(
    pixels: np.ndarray, header: Any, index: int, extents: Extents
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Converts stored values to grey values or RGB.

    Grey values go through the modality table or rescaling, then through the VOI table or the first
    window. Without these two, they are scaled from the range of the bits that the header says are
    stored, or else from the range of all frames (`depth.scale_of`). MONOCHROME1 is inverted last.

    Args:
      pixels: ``(height, width)`` or ``(height, width, 3)``, as decoded.
      header: a pydicom data set.
      index: of the frame, from 0.
      extents: of all frames, if `has_no_scale`.

    Returns:
      ``(height, width)`` or ``(height, width, 3 or 4)`` uint8; and notes of what was done.

    Raises:
      UnusableError: for a table or window that cannot be applied.
    """
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return _palette(pixels, header), ("palette replaced by its colours",)
    if pixels.ndim == 3:
        bits = _declared_bits(header)
        fits = bits is not None and pixels.max() < 2**bits
        colours, note = to_8_bit(pixels, of_bits(bits) if fits else extents.scale(pixels.dtype))
        return colours, (note,) if note else ()
    values, notes = values_of(pixels, header, index)
    item = shown(header, index).voi
    if item.get("VOILUTSequence"):
        table, first = _table(item.VOILUTSequence[0])
        found = _looked_up(values, table, first).astype(np.float64)
        most = 2 ** int(item.VOILUTSequence[0].LUTDescriptor[2]) - 1
        grey = np.rint(found * (255 / most)).astype(np.uint8)
        notes.append("VOI table applied")
    else:
        grey, more = _windowed(values, item)
        notes += more
        if grey is None:
            scale = _scale(values, header, index) or extents.scale(values.dtype)
            grey, note = to_8_bit(values, scale)
            notes += [note] if note else []
    if photometric == "MONOCHROME1":
        grey = 255 - grey
        notes.append("MONOCHROME1 inverted")
    return grey, tuple(notes)


def _windowed(values: np.ndarray, item: Any) -> tuple[np.ndarray | None, list[str]]:
    """Grey values through the first window, the one that a viewer starts with; None without one."""
    centers, first_comma = decimals(item, "WindowCenter")
    widths, second_comma = decimals(item, "WindowWidth")
    if not centers or not widths:
        return None, []
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    wide = widths[0] >= 1 if function == "LINEAR" else widths[0] > 0
    if not wide or not np.isfinite([centers[0], widths[0]]).all():
        return None, ["window of no width ignored"]  # as written by devices that have none
    commas = [COMMA] if first_comma or second_comma else []
    return window(values, centers[0], widths[0], function), ["window applied", *commas]


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
      UnusableError: for another function.
    """
    values = values.astype(np.float64)
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnusableError("has a VOI function that is not supported")
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


def decimals(item: Any, keyword: str) -> tuple[list[float], bool]:
    """Numbers of a decimal string, which some devices write with a comma; and whether one did.

    Args:
      item: a pydicom data set.
      keyword: of an element.

    Returns:
      The numbers, none if the element is missing; and whether there was a comma.

    Raises:
      UnusableError: for text that is not a number; the message does not quote it.
    """
    value = item.get(keyword)
    if value is None or value == "":
        return [], False
    # Strings are what pydicom leaves where it finds no number.
    parts = value.split("\\") if isinstance(value, str) else value
    parts = [str(each).strip() for each in (parts if hasattr(parts, "__iter__") else [parts])]
    try:
        return [float(each.replace(",", ".")) for each in parts], any("," in each for each in parts)
    except ValueError:
        raise UnusableError(f"has a {keyword} that is not a number") from None


def _declared_bits(header: Any) -> int | None:
    """How many bits of a value are used; None if the header gives no reliable number."""
    stored, allocated = header.get("BitsStored"), header.get("BitsAllocated")
    if not stored or not allocated or stored > 16 or (stored == allocated and stored > 8):
        return None
    return int(stored)


def _rescaling(item: Any) -> tuple[float, float, list[str]]:
    slopes, first_comma = decimals(item, "RescaleSlope")
    intercepts, second_comma = decimals(item, "RescaleIntercept")
    if not slopes or not intercepts:
        return 1.0, 0.0, []
    return slopes[0], intercepts[0], [COMMA] if first_comma or second_comma else []


def _scale(values: np.ndarray, header: Any, index: int) -> Scale | None:
    """The scale of values after the modality step, as the header tells it."""
    bits = _declared_bits(header)
    item = shown(header, index).modality
    if item.get("ModalityLUTSequence"):
        scale = of_bits(int(item.ModalityLUTSequence[0].LUTDescriptor[2]))
    elif bits is None:
        return None
    else:
        signed = header.get("PixelRepresentation") == 1
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        slope, intercept, _ = _rescaling(item)
        low, high = sorted(slope * end + intercept for end in ends)
        note = "" if (low, high) == (0, 255) else f"{bits}-bit values scaled to 8 bits"
        scale = Scale(low, high, note)
    # A header that gives too few bits is ignored.
    return scale if values.max() <= scale.white and values.min() >= scale.black else None


def _table(item: Any) -> tuple[np.ndarray, int]:
    """Entries of a lookup table, and the value that the first one belongs to."""
    count, first, bits = (int(each) for each in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        # An unusual type, which pydicom leaves as bytes: 16-bit words, or single bytes.
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
    if colours.dtype == np.uint8:
        if pixels.max() > 255:
            raise UnusableError("has a palette of more than 256 colours of 8 bits, not supported")
        return colours
    # Entries of 8 bits may lie in words of 16, the upper byte being 0 (PS3.3 C.7.6.3.1.6).
    if header.RedPaletteColorLookupTableDescriptor[2] == 8 and colours.max() <= 255:
        return colours.astype(np.uint8)
    # Entries of 16 bits stay comparable between pictures: no picture is scaled by itself.
    return (colours >> 8).astype(np.uint8)
