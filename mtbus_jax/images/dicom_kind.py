"""The kind of a DICOM file, from its head alone: studies hold more than pictures."""

from __future__ import annotations

from pathlib import Path

from mtbus_jax.images import picture

HEAD_BYTES = 132
_MAGIC = b"DICM"  # at the end of these bytes

# Storage classes (PS3.4 B.5) by how their UIDs begin: structured reports and key object notes,
# presentation states, encapsulated documents, waveforms, and what refers to pictures or raw data.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_WITHOUT_PICTURE = tuple(f"{_STORAGE}{each}" for each in ("88.", "11.", "104.", "9.", "66."))
_RAW = f"{_STORAGE}66"
_DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR, a table of contents
# Segmentations, of bits and of labels: masks, although they look like pictures.
SEGMENTATIONS = (f"{_STORAGE}66.4", f"{_STORAGE}66.7")


def is_dicom_file(path: Path) -> bool:
    """Whether a file says that it is DICOM; False if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return has_magic(file.read(HEAD_BYTES))
    except OSError:
        return False


def has_magic(head: bytes) -> bool:
    """Whether the first `HEAD_BYTES` of a file are DICOM's."""
    return head[HEAD_BYTES - len(_MAGIC) :] == _MAGIC


def storage_class(path: Path) -> str:
    """UID of a file's storage class; "" if the file does not say, or pydicom is not installed."""
    return _said(path, "MediaStorageSOPClassUID")


def instance(path: Path) -> str:
    """UID by which other files refer to a file; "" if it does not say."""
    return _said(path, "MediaStorageSOPInstanceUID")


def _said(path: Path, keyword: str) -> str:
    try:
        import pydicom

        return str(pydicom.filereader.read_file_meta_info(path).get(keyword, ""))
    except Exception:  # errors are reported when the file is read
        return ""


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation; a file with a picture's suffix is not opened."""
    if path.suffix.lower() in picture.SUFFIXES or not is_dicom_file(path):
        return False
    return storage_class(path) in SEGMENTATIONS


def is_without_picture(path: Path) -> bool:
    """Whether a file says that it is a report, a document or a segmentation, and no picture."""
    found = storage_class(path)
    return found in (_RAW, _DIRECTORY) or found.startswith(_WITHOUT_PICTURE)
