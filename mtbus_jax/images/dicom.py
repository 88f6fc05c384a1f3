"""DICOM files, through pydicom: single and multi-frame, compressed or not, grey or colour.

Only the header elements in `_ELEMENTS` are read, and only the spacing leaves this module. No
message quotes a header value, or pydicom's own text, which may contain one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mtbus_jax.images import apart, dicom_grey, dicom_kind, picture
from mtbus_jax.images.depth import Extents, UnusableError
from mtbus_jax.images.dicom_kind import HEAD_BYTES, has_magic
from mtbus_jax.images.frame import MAX_BYTES, Decoded, ReadError, Spacing, check_size, decoded
from mtbus_jax.images.silence import quiet

SUFFIXES = (".dcm", ".dicom", ".ima")
# The first element of the head of a file, (0002,0000), which tells how long the rest is.
_GROUP_LENGTH, _GROUP_LENGTH_TAG = struct.Struct("<4s2sHI"), b"\x02\0\0\0UL"
_META_BYTES = 1 << 16  # of the head; a few hundred are usual
_AT_ONCE = 1 << 20
_INSTALL = "pip install -e '.[dicom]' in a checkout of mtbus_jax"

_ELEMENTS = [
    "SOPClassUID",
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPresentation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "SequenceOfUltrasoundRegions"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{segmented}{colour}PaletteColorLookupTable{part}"
        for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        for colour in ("Red", "Green", "Blue")
    ),
]
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

# Values of the ultrasound region calibration module, PS3.3 C.8.5.5.1.
_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3
_SAME_SPACING = 1e-3  # relative
# Note on a spacing that holds at the detector, not in the patient.
AT_DETECTOR = "mm at the detector, not corrected for magnification"
_LEFT_OUT = "holds {} frames but announces {}, the others are left out"


def looks_right(path: Path, head: bytes) -> bool:
    """Whether to read a file as DICOM: by its first bytes, or by its name if they do not tell."""
    if has_magic(head):
        return True
    return path.suffix.lower() in SUFFIXES and not picture.looks_right(head)


def decode(path: Path, source: Path | bytes, *, smallest: int) -> Iterator[Decoded]:
    """Decodes a file.

    Args:
      path: of the file, for messages.
      source: that path again, or the content of the file.
      smallest: least height and width.

    Yields:
      Frames in order.

    Raises:
      ReadError: if pydicom or a decoder is missing, or the file or a frame in it cannot be read.
    """
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError:
        raise ReadError(path, f"is a DICOM file and needs pydicom: {_INSTALL}") from None
    number = None
    try:
        with quiet():
            check_unpacked(source)
            header = _header(source, smallest)
            count = max(int(header.get("NumberOfFrames") or 1), 1)
            spacing, spacing_notes = spacing_of(header)
            more_frames = _plain_frames_left_out(source, header, count)
            extents = _extents(source, header, count)
            frames = _decoded(source, header)
        for index in range(count):
            number = index + 1 if count > 1 else None
            with quiet():
                pixels = next(frames, None)
                if pixels is None:
                    raise UnusableError(f"holds {index} of the {count} frames that it announces")
                pixels, notes = dicom_grey.to_grey_or_colour(pixels, header, index, extents)
                found = decoded(pixels, smallest=smallest)
                if index == count - 1 and not more_frames:
                    more_frames = _compressed_frames_left_out(frames, count)
            # Without repeats: several elements may have decimal commas.
            notes = tuple(dict.fromkeys((*more_frames, *notes, *found.notes, *spacing_notes)))
            yield dataclasses.replace(
                found, number=number, count=count, spacing=spacing, notes=notes
            )
    except UnusableError as error:
        raise ReadError(path, str(error), _later(number)) from None
    except RuntimeError:  # what pydicom raises when no decoder succeeds
        reason = "cannot be decoded, it is damaged or of an unsupported kind, as 12-bit JPEG is"
        raise ReadError(path, reason, _later(number)) from None
    except Exception as error:  # pydicom raises nearly anything on a damaged file
        reason = f"cannot be decoded, it is cut or damaged ({type(error).__name__})"
        raise ReadError(path, reason, _later(number)) from None


def _later(number: int | None) -> int | None:
    return number if number is not None and number > 1 else None


def _opened(source: Path | bytes) -> Path | io.BytesIO:
    """What pydicom reads from, positioned at the start."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _extents(source: Path | bytes, header: Any, count: int) -> Extents:
    """Range of the values of all frames, if the header does not give it."""
    extents = Extents()
    if count > 1 and dicom_grey.has_no_scale(header):
        with contextlib.suppress(Exception):  # reported when the frame is decoded
            for index, pixels in enumerate(_decoded(source, header)):
                extents.add(dicom_grey.values_of(pixels, header, index)[0])
    return extents


def _plain_frames_left_out(source: Path | bytes, header: Any, count: int) -> tuple[str, ...]:
    """A note for each frame of an uncompressed file that holds more of them than it announces."""
    import pydicom

    factors = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    length = math.prod(int(header.get(each) or 0) for each in factors) // 8
    syntax = header.file_meta.get("TransferSyntaxUID")
    packed = syntax is not None and (syntax.is_compressed or syntax.is_deflated)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not length or packed or size < length * (count + 1):
        return ()
    data = pydicom.dcmread(
        _opened(source), force=True, specific_tags=["PixelData"], defer_size=length
    )
    # The data is not read: it may have any size.
    held = data.get_item("PixelData", keep_deferred=True).length // length
    return (_LEFT_OUT.format(held, count),) if held > count else ()


def check_unpacked(source: Path | bytes) -> None:
    """Refuses a deflated file that unpacks to more than `MAX_BYTES`; pydicom unpacks it whole."""
    import pydicom

    with contextlib.closing(_stream(source)) as file:
        file.seek(HEAD_BYTES)
        start = file.read(_GROUP_LENGTH.size)
        if len(start) < _GROUP_LENGTH.size or not start.startswith(_GROUP_LENGTH_TAG):
            file.seek(0)
            start, meta = b"", file.read(_META_BYTES)
        else:
            length = _GROUP_LENGTH.unpack(start)[-1]
            meta = file.read(min(length, _META_BYTES))
        if pydicom.uid.DeflatedExplicitVRLittleEndian.encode() not in meta:
            return
        if not start:
            raise UnusableError("is deflated and does not say how long its head is")
        unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while content := file.read(_AT_ONCE):
            while content:
                unpacked += len(unpacker.decompress(content, _AT_ONCE))
                content = unpacker.unconsumed_tail
                if unpacked > MAX_BYTES:
                    raise UnusableError(f"unpacks to more than {MAX_BYTES // 10**6} MB")


def _stream(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _compressed_frames_left_out(frames: Iterator[np.ndarray], count: int) -> tuple[str, ...]:
    """A note for the last frame of a compressed file, if pydicom finds another one after it."""
    try:
        more = next(frames, None) is not None
    except Exception:  # whatever lies there, it was not announced
        more = True
    return (_LEFT_OUT.format(f"more than {count}", count),) if more else ()


def _header(source: Path | bytes, smallest: int) -> Any:
    """The elements `_ELEMENTS` of a file; checks those that decoding needs."""
    import pydicom

    header = pydicom.dcmread(
        _opened(source), stop_before_pixels=True, force=True, specific_tags=_ELEMENTS
    )
    if "Rows" not in header or "Columns" not in header:
        raise UnusableError("is not a DICOM file that holds a picture")
    if header.get("SOPClassUID") in dicom_kind.SEGMENTATIONS:
        raise UnusableError("is a segmentation, no picture")
    check_size(int(header.Rows), int(header.Columns), smallest=smallest)
    known = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_COLOURS)
    if header.get("PhotometricInterpretation") not in known:
        raise UnusableError("has a photometric interpretation that is not supported")
    return header


def _decoded(source: Path | bytes, header: Any) -> Iterator[np.ndarray]:
    """Pixels of the frames, one at a time, as stored; YCbCr turned to RGB."""
    import pydicom
    from pydicom.pixels import get_decoder, iter_pixels

    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:  # a bare data set: the encoding that pydicom found
        implicit, little = header.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian
        if not implicit:
            syntax = pydicom.uid.ExplicitVRLittleEndian
        if not little:
            syntax = pydicom.uid.ExplicitVRBigEndian
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnusableError("is compressed in a way that is not supported, as films are") from None
    if not decoder.is_available:
        raise UnusableError(f"is compressed in a way that needs more packages: {_INSTALL}")
    if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        # The whole data set is one compressed stream, which cannot be read in parts.
        return iter_pixels(pydicom.dcmread(_opened(source)))
    if header.PhotometricInterpretation == "YBR_FULL_422" and not syntax.is_compressed:
        # Asked for all frames at once, pydicom 3.0.2 overestimates the length of all but the
        # first.
        return _one_by_one(source, syntax, int(header.get("NumberOfFrames") or 1))
    # GDCM, which pydicom would ask first, ends the process on damaged data.
    if "pillow" in decoder.available_plugins:
        plugin = {"decoding_plugin": "pillow"}
        return iter_pixels(_opened(source), transfer_syntax_uid=syntax, **plugin)
    if "gdcm" in decoder.available_plugins:
        return apart.frames(source, syntax)
    return iter_pixels(_opened(source), transfer_syntax_uid=syntax)


def _one_by_one(source: Path | bytes, syntax: Any, count: int) -> Iterator[np.ndarray]:
    from pydicom.pixels import pixel_array

    for index in range(count):
        yield pixel_array(_opened(source), index=index, transfer_syntax_uid=syntax)


def spacing_of(header: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    """Size of a pixel.

    An ultrasound picture is calibrated by region (PS3.3 C.8.5.5): its two-dimensional regions in
    centimetres are used if they agree. Without such regions, PixelSpacing is used, from the header
    or the shared functional groups; then ImagerPixelSpacing, which holds at the detector.

    Args:
      header: a pydicom data set.

    Returns:
      The spacing or None, and notes: why there is none, or where it holds.
    """
    regions = [found for item in header.get("SequenceOfUltrasoundRegions") or () if
               (found := _region(item))]  # fmt: skip
    if regions:
        height, width = int(header.Rows), int(header.Columns)
        # One pixel of tolerance: some devices count the last column from 1.
        if any(bottom > height + 1 or right > width + 1 for _, (_, _, bottom, right) in regions):
            return None, ("no mm: a calibrated region reaches beyond the picture, as if resized",)
        (row, col), _ = regions[0]
        if any(
            not math.isclose(row, other_row, rel_tol=_SAME_SPACING)
            or not math.isclose(col, other_col, rel_tol=_SAME_SPACING)
            for (other_row, other_col), _ in regions
        ):
            return None, ("no mm: the picture has regions of different scale",)
        return Spacing(row, col, tuple(box for _, box in regions)), ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    measures = [
        item.get("PixelSpacing")
        for group in shared
        for item in group.get("PixelMeasuresSequence") or ()
    ]
    for value in (header.get("PixelSpacing"), *measures):
        if pair := _positive_pair(value):
            return Spacing(*pair), _commas(value)
    value = header.get("ImagerPixelSpacing")
    if pair := _positive_pair(value):
        return Spacing(*pair), (AT_DETECTOR, *_commas(value))
    return None, ("no mm: the file gives no spacing",)


def _region(item: Any) -> tuple[tuple[float, float], tuple[int, int, int, int]] | None:
    """Spacing in mm (row, col) and box of a calibrated two-dimensional region, else None."""
    units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
    if item.get("RegionSpatialFormat") != _TWO_DIMENSIONAL or set(units) != {_CENTIMETRES}:
        return None
    # Deltas are signed: an axis may point up.
    pair = _positive_pair([abs(item.get(f"PhysicalDelta{axis}") or 0) for axis in "YX"])
    corners = [
        item.get(f"RegionLocation{corner}") for corner in ("MinY0", "MinX0", "MaxY1", "MaxX1")
    ]
    if pair is None or None in corners:
        return None
    top, left, bottom, right = map(int, corners)
    return (pair[0] * 10, pair[1] * 10), (top, left, bottom + 1, right + 1)


def _commas(value: Any) -> tuple[str, ...]:
    return (dicom_grey.COMMA,) if "," in "".join(map(str, value)) else ()


def _positive_pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, str):  # what pydicom leaves where it finds no numbers
        value = value.replace(",", ".").split("\\")
    try:
        first, second = (float(str(each).replace(",", ".")) for each in value)
    except (TypeError, ValueError):
        return None
    usable = all(math.isfinite(each) and each > 0 for each in (first, second))
    return (first, second) if usable else None
