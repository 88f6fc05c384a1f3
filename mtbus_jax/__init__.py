"""Multi-task segmentation and classification of breast-ultrasound images in JAX/Flax.

The names below are loaded when they are used: importing this package imports neither JAX nor
TensorFlow. `mtbus_jax.refine.refine`, `mtbus_jax.losses` and `mtbus_jax.oversampling` hold the
paper's equations.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name → module that holds it.
_PUBLIC = {
    "load_cases": "mtbus_jax.data",
    "create": "mtbus_jax.models",
    "load_config": "mtbus_jax.configuration",
    "train_and_evaluate": "mtbus_jax.crossval",
    "evaluate": "mtbus_jax.crossval",
    "Predictor": "mtbus_jax.predict",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
