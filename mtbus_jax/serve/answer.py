"""The server's answer about a picture."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import mtbus_jax
from mtbus_jax.images import Source
from mtbus_jax.predict import Prediction, Predictor
from mtbus_jax.predict.measure import measure
from mtbus_jax.predict.output import png

DISCLAIMER = "Research software, not a medical device. Not for diagnosis."
_BOX = ("top", "left", "bottom", "right")
_NOWHERE = Source(Path(), "", "")


def software(predictor: Predictor) -> dict[str, Any]:
    """Describes the program and the weights that answer."""
    return {
        "name": "mtbus_jax",
        "version": mtbus_jax.__version__,
        "network": predictor.trained.config.model.name,
        "weights": predictor.trained.digest(),
        "folds": list(predictor.folds),
        "test_time_augmentation": predictor.tta,
        "refine": predictor.refine,
        "calibrated": predictor.calibrated,
        "image_size": list(predictor.image_size),
        "class_names": list(predictor.classes.names),
    }


def as_json(prediction: Prediction, about: dict[str, Any]) -> dict[str, Any]:
    """A prediction as JSON types; unknown values, which are empty cells in the table, are None.

    Args:
      prediction: the result for one picture.
      about: the result of `software`.
    """
    frame = prediction.frame
    row = measure(_NOWHERE, prediction)
    mask = None if prediction.mask is None else base64.b64encode(png(prediction.mask)).decode()
    probabilities = None
    if prediction.class_probability is not None:
        names = prediction.class_names
        probabilities = {name: row[f"probability_{name}"] for name in names}
    spacing = None
    if frame.spacing is not None:
        spacing = {"row_mm": frame.spacing.row_mm, "col_mm": frame.spacing.col_mm}
    box = None
    if f"bbox_{_BOX[0]}" in row:
        box = {side: row[f"bbox_{side}"] for side in _BOX}
    sets = prediction.prediction_set
    return {
        "class": prediction.class_name,
        "probabilities": probabilities,
        "prediction_set": None if sets is None else list(sets),
        "uncertainty": row.get("uncertainty"),
        "warning": prediction.warning,
        "height": row["height"],
        "width": row["width"],
        "frame": frame.number or 1,
        "frames": frame.count,
        "area_px": row.get("area_px"),
        "area_mm2": row.get("area_mm2"),
        "parts": row.get("parts"),
        "bbox": box,
        "spacing": spacing,
        "refined": prediction.refined,
        "class_unrefined": row.get("class_unrefined"),
        "area_px_unrefined": row.get("area_px_unrefined"),
        "notes": row["notes"].split("; ") if row["notes"] else [],
        "mask_png": mask,
        "software": about,
        "disclaimer": DISCLAIMER,
    }
