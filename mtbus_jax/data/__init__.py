"""A built dataset as host arrays: by name, from a packed file, or as a configuration says."""

from __future__ import annotations

from mtbus_jax.data.arrays import fingerprint, load_cases, only_classes
from mtbus_jax.data.configured import leaves_split_open, load_configured, resolve
from mtbus_jax.data.stored import DATASETS, is_own, load_arrays, save_arrays

__all__ = [
    "DATASETS",
    "fingerprint",
    "is_own",
    "leaves_split_open",
    "load_arrays",
    "load_cases",
    "load_configured",
    "only_classes",
    "resolve",
    "save_arrays",
]
