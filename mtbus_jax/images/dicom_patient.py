"""Whom a DICOM file shows, so that pictures of the same person can be kept together."""

from __future__ import annotations

from pathlib import Path

from mtbus_jax.images import dicom
from mtbus_jax.images.dicom_kind import HEAD_BYTES
from mtbus_jax.images.silence import quiet

_ELEMENTS = ["PatientID", "StudyInstanceUID"]


def patient_and_study(path: Path) -> tuple[str, str]:
    """Identifiers of a file's patient and study.

    They name a person. Compare them with those of other files, and write them nowhere.

    Args:
      path: of a picture of any kind.

    Returns:
      The patient's and the study's; "" for what the file does not say, and where it is no DICOM
      file, cannot be read, or pydicom is not installed.
    """
    try:
        with path.open("rb") as file:
            if not dicom.looks_right(path, file.read(HEAD_BYTES)):
                return "", ""
        import pydicom

        with quiet():
            dicom.check_unpacked(path)
            head = pydicom.dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=_ELEMENTS
            )
            patient, study = (str(head.get(element) or "").strip() for element in _ELEMENTS)
    except Exception:  # what is wrong with the file is said where its pixels are read
        return "", ""
    return patient.casefold(), study
