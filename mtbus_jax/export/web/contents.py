"""What a page holds: facts about the run, and the networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import mtbus_jax
from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.export import formats, interface
from mtbus_jax.images import overlay
from mtbus_jax.training.trained_folds import Trained

# Ways to store the weights, each with the largest allowed difference of a probability.
TOLERANCES = {"int16": 1e-3, "float32": formats.TOLERANCE}
WEIGHTS = tuple(TOLERANCES)


@dataclasses.dataclass(frozen=True)
class Contents:
    """Facts and networks.

    Attributes:
      facts: for the page's scripts, JSON.
      members: ONNX files, in the order of ``facts["members"]``.
      weights: how their weights are stored, one of `WEIGHTS`.
      difference: largest absolute difference of a probability from the original's.
      checked_on: description of the images on which they were compared.
      versions: versions of the packages that wrote and ran them, by name.
    """

    facts: dict[str, Any]
    members: list[bytes]
    weights: str
    difference: float
    checked_on: str
    versions: dict[str, str]


def collect(
    run: Path, trained: Trained, images: np.ndarray, checked_on: str, onnx_python: str, weights: str
) -> Contents:
    """Converts the networks and compares them with the original.

    Args:
      run: the run folder, from which its trust is read.
      trained: the original networks.
      images: to compare on; ``(n, height, width, 1)`` float32.
      checked_on: description of ``images``.
      onnx_python: interpreter of the converter's environment.
      weights: how to store the weights, one of `WEIGHTS`.

    Raises:
      UserError: if a network cannot be converted or does not equal the original.
    """
    files, found, versions = formats.onnx_members(
        trained, images, onnx_python, short=weights == "int16"
    )
    difference = 0.0
    for variables, outputs in zip(trained.variables, found, strict=True):
        expected = interface.reference(trained.module, [variables], images)
        difference = max(difference, formats.largest_difference(expected, outputs))
    if not difference <= TOLERANCES[weights]:
        mend = ". Report this" if weights == "float32" else "; give --weights=float32"
        raise UserError(
            f"the page's networks do not equal the original: a probability differs by "
            f"{difference:.1e}, more than {TOLERANCES[weights]:.0e}{mend}. No file was kept."
        )
    facts = facts_of(trained, trust.read(run))
    return Contents(facts, files, weights, difference, checked_on, versions)


def facts_of(trained: Trained, fitted: trust.Trust | None) -> dict[str, Any]:
    """The facts with which the page's scripts predict as `mtbus predict` does without options.

    Args:
      trained: the folds to export.
      fitted: trust of the run, or None; it is used only if it covers all the exported folds.
    """
    config, classes = trained.config, trained.classes
    height, width = trained.image_size
    versions = trained.symmetries
    calibrated = fitted is not None and set(trained.folds) <= fitted.keys()
    return {
        "name": config.name,
        "version": mtbus_jax.__version__,
        "tasks": list(config.tasks),
        "imageSize": [height, width],
        "resize": config.data.resize,
        "enhancement": config.data.enhancement,
        "classNames": list(classes.names) if types.CLASSIFICATION in config.tasks else [],
        "normal": classes.normal,
        "threshold": types.MASK_THRESHOLD,
        "refine": bool(config.eval.refine),
        "versions": list(versions if config.eval.get("tta", False) else versions[:1]),
        "members": [{"fold": member.fold} for member in trained.members],
        "trust": {str(f): dataclasses.asdict(fitted[f]) for f in trained.folds}
        if calibrated
        else None,
        "colours": [list(overlay.colour(classes.names, code)) for code in range(len(classes))],
        "noClassColour": list(overlay.NO_CLASS),
    }
