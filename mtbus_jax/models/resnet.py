"""ResNet-18 as an encoder, with the names of torchvision's ImageNet weights.

Paper: He et al. 2016 (CVPR), the network of 18 layers with projections where the shape changes.

Feature maps at 128×128 input (height = width × channels), width 64:
  layer 0: 64 × 64   1: 32 × 64   2: 16 × 128   3: 8 × 256   4: 4 × 512
11,176,512 parameters without the ImageNet classifier.

Departure: Flax's running variance averages the biased variance of a batch, PyTorch's the unbiased
one, n/(n − 1) times as large for the n pixels of a batch.
"""

from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax.models import blocks, weights
from mtbus_jax.models.cpu import drawing

NAME = "resnet18"
# Channels of the four layers, relative to the first.
_LAYERS = (1, 2, 4, 8)


def _convolution(
    image: jax.Array, features: int, *, kernel: int = 3, stride: int = 1, name: str
) -> jax.Array:
    """A convolution without bias, drawn as in the paper; created inside a compact module."""
    # He et al. 2015: variance 2 / fan-out, as torchvision draws it.
    init = drawing.Initializer("normal", gain=2.0, fan_in=kernel * kernel * features)
    return blocks.convolution(
        image,
        features,
        kernel=kernel,
        stride=stride,
        use_bias=False,
        kernel_init=init,
        name=name,
    )


class Normalisation(nn.Module):
    """Batch norm with PyTorch's defaults.

    Attributes:
      frozen: whether training, too, normalises by the running statistics and leaves them unchanged.
    """

    frozen: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        return blocks.batch_norm(image, train=train, frozen=self.frozen, name="norm")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, added to the input.

    Attributes:
      features: channels of the output.
      stride: of the first convolution, and of the projection of the input if there is one.
      frozen: see `Normalisation`.
    """

    features: int
    stride: int = 1
    frozen: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height/s, width/s, features)``."""

        def norm(image, name):
            return Normalisation(self.frozen, name=name)(image, train=train)

        path = _convolution(image, self.features, stride=self.stride, name="conv_1")
        path = nn.relu(norm(path, "norm_1"))
        path = norm(_convolution(path, self.features, name="conv_2"), "norm_2")
        if path.shape != image.shape:
            image = _convolution(image, self.features, kernel=1, stride=self.stride, name="project")
            image = norm(image, "project_norm")
        return nn.relu(path + image)


class ResNet18(nn.Module):
    """The encoder.

    Attributes:
      width: channels of the first layers; 64 is the published network.
      frozen: see `Normalisation`.
    """

    width: int = 64
    frozen: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """The maps of layers 0 to 4, of stride 2, 4, 8, 16 and 32.

        Args:
          image: ``(batch, height, width, 3)`` float32, normalised; height and width multiples of
            32.
          train: whether batch norm uses the batch's statistics and updates the running ones.
        """
        image = _convolution(image, self.width, kernel=7, stride=2, name="stem")
        image = nn.relu(Normalisation(self.frozen, name="stem_norm")(image, train=train))
        maps = [image]
        # ReLU outputs are never below 0, so zeros pad as −∞ would. jax2onnx rejects padded pooling.
        image = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
        image = nn.max_pool(image, window_shape=(3, 3), strides=(2, 2))
        for number, factor in enumerate(_LAYERS, 1):
            for i in range(2):
                stride = 2 if i == 0 and number > 1 else 1
                block = BasicBlock(
                    factor * self.width, stride, self.frozen, name=f"layer_{number}_{i}"
                )
                image = block(image, train=train)
            maps.append(image)
        return maps


_OUTER = {"conv1": "stem", "bn1": "stem_norm"}
_INNER = {
    "conv1": "conv_1",
    "bn1": "norm_1",
    "conv2": "conv_2",
    "bn2": "norm_2",
    "downsample.0": "project",
    "downsample.1": "project_norm",
}
_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def place(name: str, array: np.ndarray) -> weights.Place | None:
    """Where a tensor of torchvision's file belongs, see `weights.put_into`.

    Args:
      name: such as ``layer2.0.downsample.1.running_var``.
      array: in PyTorch's layout: kernels are ``(out, in, height, width)``.
    """
    owner, _, leaf = name.rpartition(".")
    path: tuple[str, ...] = ()
    names = _OUTER
    if inner := re.fullmatch(r"layer(\d)\.(\d)\.(.+)", owner):
        layer, block, owner = inner.groups()
        path, names = (f"layer_{layer}_{block}",), _INNER
    if owner not in names:
        return None
    path = (*path, names[owner])
    if array.ndim == 4 and leaf == "weight":
        return "params", (*path, "kernel"), array.transpose(2, 3, 1, 0)
    if array.ndim != 1 or leaf not in _LEAVES:
        return None
    collection, leaf = _LEAVES[leaf]
    return collection, (*path, "norm", leaf), array
