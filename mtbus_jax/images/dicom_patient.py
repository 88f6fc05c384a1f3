"""Identifies the person in a DICOM file, so that pictures of one person can be kept together."""

from __future__ import annotations

from pathlib import Path

from mtbus_jax.images import dicom
from mtbus_jax.images.dicom_kind import HEAD_BYTES
from mtbus_jax.images.silence import quiet

_ELEMENTS = ["PatientID", "StudyInstanceUID"]


def patient_and_study(path: Path) -> tuple[str, str]:
    """Identifiers of a file's patient and study.

    They identify a person: compare them with those of other files, and never write them anywhere.

    Args:
      path: of a picture of any kind.

    Returns:
      Identifiers of the patient and the study. Each is "" if the file does not give it; both are ""
      if it is not a DICOM file or cannot be read, or if pydicom is not installed.
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
    except Exception:  # errors are reported when its pixels are read
        return "", ""
    return patient.casefold(), study
