"""DICOM objects of a prediction: a Segmentation, and a Secondary Capture with the outline drawn in.

Both belong to the patient and the study of their source and refer to it, frame by frame.
`docs/predict.md` describes what they contain, and why.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np

import mtbus_jax
from mtbus_jax.errors import UserError
from mtbus_jax.images import overlay
from mtbus_jax.predict import dicom_source, dicom_words
from mtbus_jax.predict.dicom_words import NOT_FOR_DIAGNOSIS
from mtbus_jax.predict.prediction import Prediction
from mtbus_jax.predict.predictor import Predictor

NAME = "mtbus_jax"
_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"  # storage of single ultrasound pictures
_BREAST = "BREAST"  # value of `BodyPartExamined`
# Our series numbers are 100 times the source's plus these, so that viewers list them together.
_SEGMENTATION_SERIES, _CAPTURE_SERIES, _MOST_SERIES = 1, 2, 1_000_000


@dataclasses.dataclass(frozen=True)
class Software:
    """What made the objects.

    Attributes:
      network: its name, such as ``lite_unet``.
      weights: a digest of the weights.
      parameters: settings of the prediction, by name.
    """

    network: str
    weights: str
    parameters: dict[str, str]

    @classmethod
    def of(cls, predictor: Predictor) -> Software:
        """Describes a predictor."""
        height, width = predictor.image_size
        parameters = {
            "folds": " ".join(map(str, predictor.folds)),
            "tta": "yes" if predictor.tta else "no",
            "refine": predictor.refine,
            "calibrated": "yes" if predictor.calibrated else "no",
            "input": f"{height}x{width}",
        }
        trained = predictor.trained
        return cls(dicom_words.plain(trained.config.model.name), trained.digest(), parameters)

    @property
    def version(self) -> str:
        """Version of the library and digest of the weights."""
        return f"{mtbus_jax.__version__} weights {self.weights}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Place of an object in its study.

    Attributes:
      series: UID of its series.
      number: number of the object in that series, from 1.
    """

    series: str
    number: int


def check_installed() -> None:
    """Checks that highdicom, which makes the objects, is installed.

    Raises:
      UserError: if highdicom is missing.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "--dicom needs highdicom: pip install -e '.[dicom]' in a checkout of mtbus_jax. Or "
            "leave --dicom out."
        ) from None


def segmentation(header: Any, prediction: Prediction, software: Software, place: Place) -> bytes:
    """A Segmentation (PS3.3 A.51) with the mask as its one segment and one frame.

    Each frame of a clip gets a separate object: ultrasound has no frame of reference, and
    without one highdicom, like many viewers, accepts a single frame only.

    Args:
      header: the source's header, from `dicom_source.read`.
      prediction: a prediction with a mask that is not empty.
      software: what made it.
      place: place of the object in the study.

    Returns:
      The file.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    frame = prediction.frame
    spacing, measures = dicom_words.spacing_in_patient(prediction), None
    # The standard requires no thickness with the spacing, but highdicom reads no object without it.
    if spacing is not None and header.get("SliceThickness"):
        pair = spacing.row_mm, spacing.col_mm
        measures = highdicom.PixelMeasuresSequence(pair, float(header.SliceThickness))
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"{NAME} {software.network}"[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=software.version,
        source=NAME,
        parameters=software.parameters,
    )
    # The code is "lesion" and nothing more specific: a cyst is not a neoplasm, a mass must be seen
    # in two planes, and a code for the class would turn a probability into a finding.
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Breast lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Breast],
    )
    said = dicom_words.writable(dicom_words.in_words(prediction), header)
    segment.SegmentDescription = said[:1024]
    made = highdicom.seg.Segmentation(
        source_images=[_stand_in(header)],
        pixel_array=prediction.mask[None].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_number=_series_number(header, _SEGMENTATION_SERIES),
        manufacturer=NAME,
        device_serial_number=software.weights,
        content_label="BREAST_LESION",
        content_description="Automatic outline, research only, not for diagnosis",
        pixel_measures=measures,
        **_common(software, place, "breast lesion, automatic, not for diagnosis"),
    )
    made.BurnedInAnnotation = "NO"
    made.PatientOrientation = None
    if "PatientOrientation" in header:
        made.PatientOrientation = header.PatientOrientation
    groups = made.PerFrameFunctionalGroupsSequence[0]
    references = [
        *made.SourceImageSequence,
        *groups.DerivationImageSequence[0].SourceImageSequence,
    ]
    for item in references:
        _refer(item, header, frame.number)
    # highdicom puts one item in two places, but the reference of a series is to the whole file.
    item = pydicom.Dataset()
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [_refer(item, header, None)]
    return _file(made, header, prediction, software)


def capture(
    header: Any, prediction: Prediction, lines: list[str], software: Software, place: Place
) -> bytes:
    """A Secondary Capture (PS3.3 A.8): the outline on the picture, pixel for pixel, text below it.

    Args:
      header: the source's header, from `dicom_source.read`.
      prediction: any prediction, with or without a lesion.
      lines: text for the strip below the picture.
      software: what made it.
      place: place of the object in the study.

    Returns:
      The file.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    frame = prediction.frame
    drawn = overlay.outlined(
        frame.grey,
        prediction.mask,
        [*lines, "Not for diagnosis", f"{NAME} {mtbus_jax.__version__}, {software.network}"],
        removed=prediction.unrefined_mask,
        colour=overlay.colour(prediction.class_names, prediction.class_id),
    )
    spacing = dicom_words.spacing_in_patient(prediction)
    made = highdicom.sc.SCImage(
        pixel_array=drawn,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # required here; the source's comes below
        study_instance_uid=header.StudyInstanceUID,
        series_number=_series_number(header, _CAPTURE_SERIES),
        manufacturer=NAME,
        device_serial_number=software.weights,
        pixel_spacing=(spacing.row_mm, spacing.col_mm) if spacing else None,
        **_common(software, place, "outline burned in, not for diagnosis"),
    )
    made.ConversionType = "WSD"  # made by a workstation, not digitised
    # Must be present even if unknown. So must the side of a paired body part, in one of two places.
    made.PatientOrientation = None
    if "ImageLaterality" not in header and header.get("BodyPartExamined", _BREAST) == _BREAST:
        made.Laterality = None
    for keyword in ("BurnedInAnnotation", *dicom_source.SIDE, *dicom_source.LOSS):
        if keyword in header:
            made[keyword] = header[keyword]
    source = pydicom.Dataset()
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [
        highdicom.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    made.SourceImageSequence = [_refer(source, header, frame.number)]
    return _file(made, header, prediction, software)


def _common(software: Software, place: Place, description: str) -> dict[str, Any]:
    """Arguments of highdicom that both kinds of object share."""
    import highdicom

    return {
        "series_instance_uid": place.series,
        "sop_instance_uid": highdicom.UID(),
        "instance_number": place.number,
        "manufacturer_model_name": f"{NAME} {software.network}"[:64],
        "software_versions": software.version,
        "series_description": f"{NAME}: {description}",
        "content_qualification": "RESEARCH",
    }


def _stand_in(header: Any) -> Any:
    """A stand-in for the source, with what highdicom needs and nothing that it would reject.

    `_file` adds patient and study afterwards, as the source has them: highdicom rejects values that
    some devices write, such as a sex of "W", and does not know the retired ultrasound classes.
    A clip is presented to it as a single picture.
    """
    import pydicom

    source = pydicom.Dataset()
    source.SOPClassUID = _ULTRASOUND
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
        setattr(source, keyword, None)
    for keyword in ("StudyID", "StudyTime", "AccessionNumber"):
        setattr(source, keyword, None)
    taken = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns"]
    taken += dicom_source.LOSS
    if header.get("FrameOfReferenceUID") and _lies_in_space(header):
        taken += ["FrameOfReferenceUID", "PositionReferenceIndicator", "SliceThickness"]
        taken += dicom_source.GEOMETRY
    for keyword in taken:
        if keyword in header:
            source[keyword] = header[keyword]
    return source


def _lies_in_space(header: Any) -> bool:
    """Whether the picture's position in the patient is known, with all that highdicom requires."""
    lengths = zip(dicom_source.GEOMETRY, (3, 6, 2), strict=True)
    known = all(len(header.get(keyword) or ()) == length for keyword, length in lengths)
    return known and bool(header.get("SliceThickness"))


def _refer(item: Any, header: Any, number: int | None) -> Any:
    """Completes a reference: the source's true class, and which frame of a clip."""
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if number is not None:
        item.ReferencedFrameNumber = number
    return item


def _file(made: Any, header: Any, prediction: Prediction, software: Software) -> bytes:
    """Encodes an object, with its source's patient and study and a note on how it was made."""
    if "SpecificCharacterSet" in header:
        made["SpecificCharacterSet"] = header["SpecificCharacterSet"]
    for keyword in dicom_source.PATIENT_AND_STUDY:
        if keyword in header:
            made[keyword] = header[keyword]
    frame = prediction.frame
    which = "the source" if frame.number is None else f"frame {frame.number} of the source"
    made.DerivationDescription = (
        f"Outline of a breast lesion in {which}, made without a person by {NAME} "
        f"{software.version}, network {software.network}. {NOT_FOR_DIAGNOSIS}"
    )
    made.ImageComments = NOT_FOR_DIAGNOSIS
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _series_number(header: Any, number: int) -> int:
    """A series number derived from the source's, which may have none."""
    try:
        first = int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        first = 0
    return 100 * (first if 0 <= first < _MOST_SERIES else 0) + number
