"""Fields that configurations of earlier versions lack, or had in addition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtbus_jax import types
from mtbus_jax.data import places

# Values that runs had before there was a field for them.
_FORMER = {
    "data": {
        "classes": (),
        **dict.fromkeys(places.PLACES, ""),
        "resize": "nearest",
        "enhancement": "none",
        "class_names": types.CLASSES.names,
        "normal_class": types.CLASSES.names[types.NORMAL],
        "fold_count": 4,
        "validation": True,
        "folds_file": "",
    },
    "train": {
        "oversample_rule": "round",
        "adam_b1": 0.9,
        "adam_b2": 0.999,
        "adam_epsilon": 1e-4,
        "plateau_factor": 0.5,
        "plateau_patience": 20,
        "min_learning_rate": 1e-6,
        "compute_dtype": "float32",
        "steps_per_call": 0,
        "checkpoint_seconds": 60.0,
        "rotation_fill": "zero",
        "augmentation": "released",
        "start_from": "",
        "keep": "best",
        "average_decay": 0.99,
        "plateau_threshold": 0.0,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "encoder_rate": 1.0,
        "course": "plateau",
        "warmup": 0.0,
        "cosine_floor": 0.0,
        "decay_factor": 0.9,
        "decay_epochs": 20,
        "l2": 0.0,
        "small_share": 0.0,
        "small_scale": 0.75,
        "speckle": 0.0,
        "elastic": 0.0,
        "mixup": 0.0,
    },
    "loss": {
        "weighting": "fixed",
        "reconstruction": 1.0,
        "lossnet": 0.0,
        "lossnet_weights": "",
        "double_softmax": False,
        "label_smoothing": 0.0,
        "cross_entropy": 0.0,
        "dice": "squared",
        "dice_smoothing": 1.0,
        "class_weights": (),
    },
    "eval": {"tta": True, "average": False, "fill_holes": False},
    "log": {"progress": True, "tensorboard": True},
}
# The same for options that only one network has.
_FORMER_OPTIONS = {"swin_unetr": {"centred_grey": False}}
# Fields of earlier versions that changed how, but not what, was computed.
_DROPPED = {"data": ("resident",), "train": ("fold_mapping",)}


def completed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run with all fields of this version but options of networks.

    A field that did not exist when the run was made gets the only value possible then.

    Args:
      content: of ``config.json``; not changed.
    """
    found = dict(content)
    for section, fields in _FORMER.items():
        found[section] = fields | content.get(section, {})
    found["model"] = _FORMER_OPTIONS.get(content["model"]["name"], {}) | content["model"]
    for section, fields in _DROPPED.items():
        for field in fields:
            found[section].pop(field, None)
    return found
