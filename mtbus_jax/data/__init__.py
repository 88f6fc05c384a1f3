"""A built dataset as host arrays: by name, from a packed file, or as a configuration says."""

from __future__ import annotations

from mtbus_jax.data.arrays import (
    DATASETS,
    fingerprint,
    load_arrays,
    load_cases,
    only_classes,
    save_arrays,
)
from mtbus_jax.data.configured import load_configured

__all__ = [
    "DATASETS",
    "fingerprint",
    "load_arrays",
    "load_cases",
    "load_configured",
    "only_classes",
    "save_arrays",
]
