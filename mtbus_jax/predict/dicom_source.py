"""Header elements of a DICOM file that go into the objects made from it, and nowhere else.

Prediction reads no other identifying element. An archive files an object beside its source by
these. Only `dicom_objects` and `dicom_output` use them: nothing here reaches a table, an overlay or
a message.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from mtbus_jax.images import dicom, silence

# Patient and study (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2): an archive files an object by these.
# They also say whether the study was de-identified or belongs to a trial.
PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID"),
    *("IssuerOfPatientIDQualifiersSequence", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName"),
    *("ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName"),
)
# Position of a picture in the patient; a frame of reference means nothing without it.
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
# Which breast a picture shows, and which of its edges points where.
SIDE = ("PatientOrientation", "BodyPartExamined", "Laterality", "ImageLaterality")
PICTURE = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"),
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", *GEOMETRY, "SliceThickness"),
    *("BurnedInAnnotation", *SIDE, *LOSS),
)
# Transfer syntaxes that are always lossy, with the defined term of their method.
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",  # JPEG, 8 bits
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",  # JPEG, 12 bits
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",  # JPEG-LS, near-lossless
}
# An object refers to its source and its study by these.
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class NoObjectsError(ValueError):
    """A source that no object can refer to; the message is the reason and quotes no value."""


def is_read_as_dicom(path: Path) -> bool:
    """Whether `images.read` takes a file for DICOM; False if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return dicom.looks_right(path, file.read(dicom.HEAD_BYTES))
    except OSError:
        return False


def read(path: Path) -> Any:
    """Reads the header of a DICOM file.

    Elements that pydicom cannot decode are left out, as if the file did not have them. If the
    pixels have lossy compression and the file's header does not say so, the returned one does.

    Args:
      path: of the file.

    Returns:
      A pydicom data set with those elements of `PATIENT_AND_STUDY` and `PICTURE` that the file has,
      and its character set.

    Raises:
      NoObjectsError: if it is not a DICOM file, cannot be read, or lacks what a reference needs.
    """
    import pydicom

    if not is_read_as_dicom(path):
        raise NoObjectsError("the picture is not a DICOM file")
    keywords = ("SpecificCharacterSet", *PATIENT_AND_STUDY, *PICTURE)
    header = pydicom.Dataset()
    with silence.quiet():
        try:
            found = pydicom.dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=list(keywords)
            )
        except Exception as error:  # pydicom raises nearly anything on a damaged file
            raise NoObjectsError(f"the header cannot be read ({type(error).__name__})") from None
        for keyword in keywords:
            with contextlib.suppress(Exception):  # a value that does not fit its type
                if keyword in found:
                    header.add(found[keyword])
        missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
        if missing:
            raise NoObjectsError(f"the file has no {', '.join(missing)}, which a reference needs")
        syntax = found.file_meta.get("TransferSyntaxUID")
        if syntax in LOSSY_SYNTAXES and header.get("LossyImageCompression") != "01":
            _note_loss(header, LOSSY_SYNTAXES[syntax], path)
    return header


def _note_loss(header: Any, method: str, path: Path) -> None:
    """Marks a header as lossy: once lossy, always lossy (PS3.3 C.7.6.1.1.5)."""
    factors = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    bits = math.prod(int(header.get(each) or 1) for each in factors)
    bits *= max(int(header.get("NumberOfFrames") or 1), 1)
    header.LossyImageCompression = "01"
    header.LossyImageCompressionMethod = method
    header.LossyImageCompressionRatio = f"{bits / 8 / path.stat().st_size:.2f}"
