"""A short name for the settings of a run, by which a figure is told from others.

Two runs with the same hash were made with the same settings. That they give the same figures takes
the same version of the program, the same pictures and, to the last digit, the same hardware.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mtbus_jax import configuration, types
from mtbus_jax.data import places
from mtbus_jax.training import former_fields, run_folder

_DIGITS = 8
# Fields that say how a run is called, where its files are, and how much of it is done or shown.
# The seed is not one of them, nor how long each fold trains.
_LEFT_OUT = (run_folder.FREE_FIELDS - set(run_folder.OF_A_FOLD)) | {"name"}
# What empty fields become in a run on a dataset of the three usual classes, see `data.resolve`.
_USUAL = {
    "data.classes": list(types.CLASSES.names),
    "data.class_names": list(types.CLASSES.names),
    "data.normal_class": types.CLASSES.names[types.NORMAL],
}


def of(content: Mapping[str, Any]) -> str:
    """The configuration hash: the first 8 hexadecimal digits of a SHA-256.

    It is taken over the fields that differ from ``configs/base.py``, as a JSON object of their
    values by dotted name, in the order of the names, without spaces. So it stays when a later
    version adds fields. Left out are the name, the folders of the data, and the fields that may
    change when a run is continued, but not how long a fold trains. Other files and folders count
    by their final names.

    Args:
      content: of ``config.json``, or `ConfigDict.to_dict` of a configuration.
    """
    text = json.dumps(settings(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields behind the hash and their values, lists instead of tuples.

    Args:
      content: see `of`.
    """
    config = run_folder.config_from_json(former_fields.completed(content))
    flat = run_folder.flatten(places.final_names(config))
    base = run_folder.flatten(configuration.defaults())
    return {
        field: value
        for field, value in flat.items()
        if field not in _LEFT_OUT
        and not (field in base and value == base[field])
        and value != _USUAL.get(field, ...)
    }
