"""Masks from DICOM segmentations, as saved by a viewer or by ``mtbus predict --dicom``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mtbus_jax.images.frame import MAX_BYTES, Decoded, ReadError
from mtbus_jax.images.silence import quiet


def decode(path: Path) -> Decoded:
    """The union of a segmentation's segments (PS3.3 A.51), as 0 and 255.

    In a fractional segmentation, pixels above half of the largest possible value count.

    Args:
      path: of the file.

    Raises:
      ReadError: if it cannot be read, or outlines lesions in several pictures.
    """
    import pydicom

    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            count = int(header.get("NumberOfFrames") or 1)
            size = math.prod((int(header.Rows), int(header.Columns), count))
            if size > MAX_BYTES:
                raise ReadError(path, f"unpacks to more than {MAX_BYTES // 10**6} MB")
            if len(_sources(header)) > 1 or _has_slices(header, count):
                raise ReadError(
                    path,
                    "is a segmentation of several pictures, so it does not say what is lesion in "
                    "which; save one for each picture",
                )
            frames = pydicom.dcmread(path).pixel_array
    except ReadError:
        raise
    except Exception as error:  # pydicom raises nearly anything on a damaged file
        reason = f"cannot be decoded, it is cut or damaged ({type(error).__name__})"
        raise ReadError(path, reason) from None
    fractional = header.get("SegmentationType") == "FRACTIONAL"
    least = float(header.get("MaximumFractionalValue") or 255) / 2 if fractional else 0
    lesion = (frames.reshape(-1, *frames.shape[-2:]) > least).any(axis=0)
    return Decoded(pixels=np.where(lesion, 255, 0).astype(np.uint8))


def pictures(path: Path) -> set[str]:
    """UIDs of the pictures that a segmentation says it was drawn in; empty if it names none.

    Args:
      path: of a file that `decode` has read.
    """
    import pydicom

    with quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True)
    return {uid for uid, _ in _sources(header)} - {""}


def _sources(header: Any) -> set[tuple[str, int]]:
    """The pictures, by file and frame, that a segmentation's frames say they were drawn in."""
    return {
        (str(source.get("ReferencedSOPInstanceUID", "")), int(number))
        for frame in header.get("PerFrameFunctionalGroupsSequence") or ()
        for derivation in frame.get("DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence") or ()
        for number in _numbers(source.get("ReferencedFrameNumber"))
    }


def _has_slices(header: Any, count: int) -> bool:
    """Whether a segment has more than one frame, as in a volume or a clip."""
    segments = [
        int(item.get("ReferencedSegmentNumber", 0))
        for frame in header.get("PerFrameFunctionalGroupsSequence") or ()
        for item in frame.get("SegmentIdentificationSequence") or ()
    ]
    return len(set(segments)) < len(segments) or (count > 1 and not segments)


def _numbers(value: Any) -> list[int]:
    if value is None:
        return [0]
    return list(value) if hasattr(value, "__iter__") else [value]
