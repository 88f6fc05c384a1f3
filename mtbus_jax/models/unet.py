"""U-Net with strided convolutions: one convolution per level on the way down and up.

Papers: U-Net is Ronneberger et al. 2015 (MICCAI). This is MONAI's `UNet` with channels
w·(1, 2, 4, 8), strides 2 and no residual units, the U-Net of Table 4 in Aumente-Maestro et al. 2025
(Comput. Methods Programs Biomed. 260, 108540).

Feature maps at 128×128 input (height = width × channels), width 24:
  encoder: 64 × 24, 32 × 48, 16 × 96      bottleneck: 16 × 192
  decoder: 32 × 48, 64 × 24, 128 × 1      head: 16 × 336 → 16 × 512 → 256 → 3
363,967 parameters for segmentation alone, as MONAI's; 2,045,890 with the head.

Departures: the published text leaves w open; the default of 24 comes from its MT UNet++. The
network it names does not classify; the head comes from its multi-task networks, `heads.FusionHead`,
and reads the last encoder map, the bottleneck and the first decoder map. MONAI's network itself
departs from the paper of 2015: strides instead of pooling, one convolution per level instead of
two, instance norm, PReLU, and a transposed convolution as its last layer.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.models import blocks, heads


def transposed_convolution(image: jax.Array, features: int, *, name: str) -> jax.Array:
    """3×3 transposed convolution, doubles height and width; created inside a compact module."""
    # PyTorch's bound depends on the output channels, see `blocks.Upsample`.
    uniform = blocks.torch_default_bias_init(9 * features)
    return nn.ConvTranspose(
        features,
        kernel_size=(3, 3),
        strides=(2, 2),
        # PyTorch's padding 1, which leaves 2·height − 1 rows, and output padding 1.
        padding=((1, 2), (1, 2)),
        transpose_kernel=True,
        kernel_init=uniform,
        bias_init=uniform,
        name=name,
    )(image)


class Unit(nn.Module):
    """3×3 convolution, instance norm without affine parameters, PReLU with one slope.

    Attributes:
      features: channels of the output.
      stride: 1, or 2 to halve height and width.
      transposed: whether the convolution is a transposed one, which doubles height and width.
    """

    features: int
    stride: int = 1
    transposed: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, …, …, features)``."""
        if self.transposed:
            image = transposed_convolution(image, self.features, name="conv")
        else:
            image = blocks.convolution(image, self.features, stride=self.stride, name="conv")
        image = blocks.instance_norm(image, affine=False, name="norm")
        return nn.PReLU(negative_slope_init=0.25, name="prelu")(image)


class UNet(nn.Module):
    """U-Net for segmentation, classification, or both.

    Attributes:
      width: channels of the first level; the next have 2, 4 and the bottleneck 8 times as many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` only the encoder and the
        head exist.
      classes: number of classes.
    """

    width: int = 24
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)

    # How often the resolution is halved: height and width must be multiples of 2 ** depth.
    depth = 3

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 8.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs` with one map of segmentation logits, and class logits.
        """
        del train
        encoder = []
        for i in range(self.depth):
            image = Unit(self.width * 2**i, stride=2, name=f"down_{i}")(image)
            encoder.append(image)
        bottleneck = Unit(self.width * 2**self.depth, name="bottleneck")(image)
        maps = [encoder[-1], bottleneck]
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            image = bottleneck
            for i in range(self.depth - 1, 0, -1):
                image = jnp.concatenate([encoder[i], image], axis=-1)
                image = Unit(self.width * 2 ** (i - 1), transposed=True, name=f"up_{i}")(image)
                if i == self.depth - 1:
                    maps.append(image)
            image = jnp.concatenate([encoder[0], image], axis=-1)
            segmentation = (transposed_convolution(image, 1, name="segment"),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(maps)
        return types.Outputs(segmentation, class_logits, {})
