"""Reads ``trust.json``, which `measure` writes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mtbus_jax import files
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation.trust.apply import Doubt, FoldTrust, Logistic, Presence, Trust
from mtbus_jax.schema import Each

TRUST = "trust.json"
_MEND = (
    "Run main.py --mode=evaluate --workdir=… on the run folder to write it again, or remove it to "
    "go without"
)
_RISK = {"all": float, "kept": float, "best": float}
_MEASURED = {
    "images": int,
    "kept": float,
    "risk": Each(_RISK),
    "warned": float,
    "calibration?": Each((float, None)),
    "conformal?": {"coverage": float, "size": float},
    "refining?": Each({"dsc": float, "acc": float}),
}
# What a file must hold; `read` looks at the fitted values more closely.
_CONTENT = {
    "error_rate?": float,
    "folds": Each(
        {
            "temperature": float,
            "conformal_threshold": float,
            "warning_threshold": float,
            "validation_images": int,
        }
    ),
    "measured?": {"validation": _MEASURED, "test": _MEASURED},
}


def read(workdir: Path) -> Trust | None:
    """What was fitted for a run, or None if nothing was.

    Raises:
      UserError: if the file is broken.
    """
    content = read_content(workdir)
    if content is None:
        return None
    try:
        return {int(fold): _fold_trust(values) for fold, values in content["folds"].items()}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir / TRUST} is broken or of an earlier version ({type(error).__name__}). "
            f"{_MEND}."
        ) from None


def read_content(workdir: Path) -> dict[str, Any] | None:
    """The content of ``trust.json``, or None if there is none.

    Raises:
      UserError: if the file is broken.
    """
    path = workdir / TRUST
    return files.read_json(path, _CONTENT, mend=_MEND) if path.exists() else None


def _fold_trust(values: dict[str, Any]) -> FoldTrust:
    """What was fitted for a fold.

    Raises:
      IndexError, KeyError, TypeError or ValueError: for values that no fit produces.
    """
    presence, prior = values["presence"]
    found = FoldTrust(
        **{
            **values,
            "presence": Presence(_logistic(presence, 2), float(prior)),
            "class_error": _logistic(values["class_error"], len(Doubt._fields)),
            "mask_error": _logistic(values["mask_error"], len(Doubt._fields)),
        }
    )
    possible = {
        "temperature": 0 < found.temperature < math.inf,
        "conformal_threshold": 0 <= found.conformal_threshold <= 1,
        "warning_threshold": 0 <= found.warning_threshold <= 1,
        "presence": 0 < found.presence.prior < 1,
    }
    if not all(possible.values()):
        raise ValueError(f"{[name for name, holds in possible.items() if not holds]} out of range")
    return found


def _logistic(values: list, signs: int) -> Logistic:
    if len(values[1]) != signs:
        raise ValueError(f"{len(values[1])} weights for {signs} signs")
    offset, weights = float(values[0]), tuple(map(float, values[1]))
    if not (math.isfinite(offset) and all(0 <= weight < math.inf for weight in weights)):
        raise ValueError(f"{values} are no weights")
    return Logistic(offset, weights)
