"""The row of ``predictions.csv`` about one prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from mtbus_jax.images import Source, Spacing
from mtbus_jax.predict.prediction import Prediction

DICOM_COLUMNS = ("dicom_segmentation", "dicom_capture")
_BOX = ("top", "left", "bottom", "right")


def columns(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of ``predictions.csv`` for a run with these classes."""
    return (
        *("name", "file", "frame", "height", "width"),
        *("class", *(f"probability_{name}" for name in class_names), "prediction_set"),
        *("area_px", "parts", *(f"bbox_{side}" for side in _BOX)),
        *("area_mm2", "bbox_height_mm", "bbox_width_mm", "spacing_row_mm", "spacing_col_mm"),
        *("refined", "class_unrefined", "area_px_unrefined"),
        *("uncertainty", "warning", "notes"),
        *("mask", "overlay", "probability_map"),
        *DICOM_COLUMNS,
    )


def result_name(source: Source, prediction: Prediction) -> str:
    """Name of a prediction's files: the source's name, with ``#frame`` if there are several."""
    frame = prediction.frame
    if frame.number is None:
        return source.name
    return f"{source.name}#{frame.number:0{len(str(frame.count))}d}"


def measure(source: Source, prediction: Prediction) -> dict[str, Any]:
    """A row of the table, without the paths of the written files.

    Args:
      source: where the picture comes from.
      prediction: the result for it.

    Returns:
      Values by column name, see `columns`; unknown values are left out.
    """
    frame = prediction.frame
    notes = list(frame.notes)
    row: dict[str, Any] = {
        "name": result_name(source, prediction),
        "file": source.file,
        "frame": frame.number,
        "height": frame.grey.shape[0],
        "width": frame.grey.shape[1],
        "refined": prediction.refined,
        "warning": prediction.warning,
    }
    if prediction.class_id is not None:
        row["class"] = prediction.class_name
        row["class_unrefined"] = prediction.class_names[prediction.unrefined_class_id]
        probability = prediction.class_probability
        for name, value in zip(prediction.class_names, probability, strict=True):
            row[f"probability_{name}"] = round(float(value), 6)
    if prediction.prediction_set is not None:
        row["prediction_set"] = " ".join(prediction.prediction_set)
    if prediction.uncertainty is not None:
        row["uncertainty"] = round(prediction.uncertainty, 6)
    if frame.spacing is not None:
        row["spacing_row_mm"] = frame.spacing.row_mm
        row["spacing_col_mm"] = frame.spacing.col_mm
    if prediction.mask is not None:
        row["area_px_unrefined"] = int(prediction.unrefined_mask.sum())
        lesion, note = _lesion(prediction.mask, frame.spacing)
        row |= lesion
        notes += [note] if note else []
    row["notes"] = "; ".join(notes)
    return row


def _lesion(mask: np.ndarray, spacing: Spacing | None) -> tuple[dict[str, Any], str]:
    """Area, parts and box of a mask in pixels, and in mm where the spacing holds; and a note."""
    area = int(mask.sum())
    row: dict[str, Any] = {
        "area_px": area,
        "parts": int(scipy.ndimage.label(mask, np.ones((3, 3)))[1]),
    }
    box = bounding_box(mask)
    if box is None:
        return row | ({"area_mm2": 0.0} if spacing else {}), ""
    row |= {f"bbox_{side}": value for side, value in zip(_BOX, box, strict=True)}
    if spacing is None:
        return row, ""
    if spacing_of_lesion(mask, spacing) is None:
        return row, "no mm: the lesion reaches outside of the calibrated region"
    top, left, bottom, right = box
    row["area_mm2"] = round(area * spacing.row_mm * spacing.col_mm, 3)
    row["bbox_height_mm"] = round((bottom - top) * spacing.row_mm, 3)
    row["bbox_width_mm"] = round((right - left) * spacing.col_mm, 3)
    return row, ""


def spacing_of_lesion(mask: np.ndarray | None, spacing: Spacing | None) -> Spacing | None:
    """Size of a pixel, if it holds for the whole lesion; None otherwise.

    A spacing that is limited to regions holds only for a lesion inside one of them.

    Args:
      mask: ``(height, width)`` bool, or None.
      spacing: the picture's spacing, or None.
    """
    if spacing is None or not spacing.regions:
        return spacing
    box = None if mask is None else bounding_box(mask)
    if box is None or not any(_inside(box, region) for region in spacing.regions):
        return None
    return spacing


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) in pixels, half open; None for an empty mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def _inside(box: tuple[int, int, int, int], region: tuple[int, int, int, int]) -> bool:
    return (
        box[0] >= region[0] and box[1] >= region[1] and box[2] <= region[2] and box[3] <= region[3]
    )
