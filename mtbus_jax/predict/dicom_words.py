"""Texts for the DICOM objects of a prediction, in characters that their character sets hold."""

from __future__ import annotations

import contextlib
import unicodedata
from typing import Any

from mtbus_jax.images import Spacing, dicom
from mtbus_jax.predict.measure import spacing_of_lesion
from mtbus_jax.predict.prediction import Prediction

NOT_FOR_DIAGNOSIS = "Research software, not a medical device. Not for diagnosis."


def spacing_in_patient(prediction: Prediction) -> Spacing | None:
    """Size of a pixel in the patient, if it holds for the lesion; see `spacing_of_lesion`."""
    frame = prediction.frame
    if dicom.AT_DETECTOR in frame.notes:
        return None
    return spacing_of_lesion(prediction.mask, frame.spacing)


def in_words(prediction: Prediction) -> str:
    """Describes area, class and uncertainty as text."""
    parts = []
    spacing = spacing_in_patient(prediction)
    if spacing is not None:
        area = prediction.mask.sum() * spacing.row_mm * spacing.col_mm
        parts.append(f"Area: {area:.1f} mm2.")
    if prediction.class_id is not None:
        pairs = zip(prediction.class_names, prediction.class_probability, strict=True)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in pairs)
        parts.append(f"Most probable class: {prediction.class_name} ({shown}).")
    if prediction.uncertainty is not None:
        parts.append(f"Probability of being wrong: {prediction.uncertainty:.2f}.")
    return " ".join([*parts, NOT_FOR_DIAGNOSIS])


def writable(text: str, header: Any) -> str:
    """Text that the source's character set can hold; otherwise in ASCII, with é as e."""
    from pydicom.charset import convert_encodings

    named = header.get("SpecificCharacterSet") or ""
    with contextlib.suppress(LookupError, UnicodeEncodeError):
        if isinstance(named, str) and named:
            text.encode(convert_encodings(named)[0])
            return text.replace("\\", "/")
    apart = unicodedata.normalize("NFKD", text)
    return plain("".join(each for each in apart if not unicodedata.combining(each)))


def plain(text: str) -> str:
    """ASCII text, which every character set of a source can hold."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")
