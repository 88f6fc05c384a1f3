"""The weights of a run as a small folder to pass on: no training state, no images.

``config.json`` is the run's, ``weights.safetensors`` has its arrays (parameters as float16,
running statistics as float32), ``bundle.json`` names their folds and their digest. `trained_folds`
reads such a folder like a run folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import mtbus_jax
from mtbus_jax import files
from mtbus_jax.errors import UserError, reason

# The network that comes with the library; its card says what it is.
PRETRAINED = Path(mtbus_jax.__file__).parent / "pretrained" / "curated_busi"

BUNDLE, WEIGHTS, CARD = "bundle.json", "weights.safetensors", "model_card.md"
_CONTENT = {"mtbus_jax": str, "folds": [int], "weights_sha256": str}
_MEND = "Copy the folder again"
# For parameters only; running variances can exceed its range.
_DTYPE = np.float16


class Member(NamedTuple):
    """Weights of one network.

    Attributes:
      fold: the fold whose training images it was trained on.
      variables: of the network.
    """

    fold: int
    variables: dict[str, Any]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle."""
    return (folder / BUNDLE).is_file()


def write(folder: Path, members: Sequence[Member]) -> None:
    """Writes the weights of some networks and their description.

    Args:
      folder: a folder with the run's ``config.json``.
      members: fold by fold, equally many of each.

    Raises:
      UserError: if a parameter exceeds the range of float16, or the folder cannot be written.
    """
    import safetensors.numpy

    arrays = {}
    for number, member in enumerate(members):
        for path, leaf in _flat(member.variables).items():
            array = np.asarray(leaf)
            if path[0] == "params":
                array = array.astype(_DTYPE)
                if not np.isfinite(array).all():
                    raise UserError(
                        f"the parameter {'/'.join(path)} of fold {member.fold} exceeds the range "
                        "of float16; the training has diverged. Train again."
                    )
            arrays[_name(number, path)] = np.ascontiguousarray(array)
    content = safetensors.numpy.save(arrays)
    files.write_bytes(folder / WEIGHTS, content)
    about = {
        "mtbus_jax": mtbus_jax.__version__,
        "folds": [member.fold for member in members],
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    files.write_json(folder / BUNDLE, about)


def read(folder: Path, like: dict[str, Any]) -> tuple[Member, ...]:
    """The networks of a bundle, their variables as float32 on the default device.

    Args:
      folder: written by mtbus bundle.
      like: variables of the same shapes.

    Raises:
      UserError: if a file is missing, damaged or of another network.
    """
    import safetensors.numpy

    about = files.read_json(folder / BUNDLE, _CONTENT, mend=_MEND)
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}. {_MEND}.") from None
    if hashlib.sha256(content).hexdigest() != about["weights_sha256"]:
        raise UserError(f"{path} is not what was written; its digest (SHA-256) differs. {_MEND}.")
    arrays = safetensors.numpy.load(content)
    return tuple(
        Member(fold, _variables(arrays, number, like, path))
        for number, fold in enumerate(about["folds"])
    )


def _variables(arrays: dict, number: int, like: dict[str, Any], path: Path) -> dict[str, Any]:
    found = {}
    for place, leaf in _flat(like).items():
        array = arrays.get(_name(number, place))
        if array is None or array.shape != leaf.shape:
            there = "is missing" if array is None else f"has the shape {array.shape}"
            raise UserError(
                f"{path}: {_name(number, place)} {there}; the network of config.json has "
                f"{tuple(leaf.shape)} there. The two are not of one run. {_MEND}."
            )
        found[place] = jnp.asarray(array, leaf.dtype)
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(found)) | {
        collection: {} for collection, tree in like.items() if not tree
    }


def _flat(variables: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(dict(variables))


def _name(number: int, path: tuple[str, ...]) -> str:
    """Name of an array in the file; ``number`` is the network's."""
    return "/".join((str(number), *path))
