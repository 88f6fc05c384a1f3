"""Masks and classes for your own pictures: ``python -m mtbus_jax.predict``, or from Python

    predictor = mtbus_jax.predict.Predictor("runs/mt_unetpp")
    for prediction in predictor(["scan.dcm", "frame.png"]):
        prediction.mask, prediction.class_name, prediction.class_probability
"""  # fmt: skip

from __future__ import annotations

from mtbus_jax.predict.prediction import Prediction
from mtbus_jax.predict.predictor import Predictor

__all__ = ["Prediction", "Predictor"]
