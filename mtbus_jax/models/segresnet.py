"""SegResNet: an asymmetric encoder-decoder of pre-activated residual blocks with group norm.

Papers: Myronenko 2018 (BrainLes), without its variational auto-encoder. This is MONAI's `SegResNet`
with its default sizes, the SegResNet of Table 4 in Aumente-Maestro et al. 2025 (Comput. Methods
Programs Biomed. 260, 108540).

Feature maps at 128×128 input (height = width × channels), width 8, and residual blocks:
  encoder: 128 × 8 (1 block), 64 × 16 (2), 32 × 32 (2)      bottleneck: 16 × 64 (4)
  decoder: 32 × 32 (1), 64 × 16 (1), 128 × 8 (1)            head: 16 × 128 → 16 × 512 → 256 → 3
394,977 parameters for segmentation alone, as MONAI's; 1,118,436 with the head.

Departure: the network that the published text names does not classify; the head comes from its
multi-task networks, `heads.FusionHead`, and reads the last encoder map, the bottleneck and the
first decoder map.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads

GROUPS = 8
# Residual blocks of the encoder's levels and of the bottleneck; the decoder has one per level.
ENCODER_BLOCKS = (1, 2, 2, 4)


def group_norm(image: jax.Array, *, name: str) -> jax.Array:
    """Group normalisation with 8 groups and ε 1e-5, created inside a compact module."""
    # The residual path carries grey values 0..255: E[x²] − E[x]² loses too many digits there.
    return nn.GroupNorm(GROUPS, epsilon=1e-5, use_fast_variance=False, name=name)(image)


class ResidualBlock(nn.Module):
    """Two × (group norm, ReLU, 3×3 convolution without bias), added to the input."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, channels)`` to the same shape."""
        inputs = image
        for i in (1, 2):
            image = nn.relu(group_norm(image, name=f"norm_{i}"))
            image = blocks.convolution(image, inputs.shape[-1], use_bias=False, name=f"conv_{i}")
        return inputs + image


class SegResNet(nn.Module):
    """SegResNet for segmentation, classification, or both.

    Attributes:
      width: channels of the first level, a multiple of 8; the next have 2, 4 and the bottleneck 8
        times as many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` only the encoder and the
        head exist.
      classes: number of classes.
    """

    width: int = 8
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

        Raises:
          UserError: if ``width`` is not a multiple of the 8 groups.
        """
        del train
        if self.width % GROUPS:
            raise UserError(
                f"model.width={self.width}: SegResNet normalises in {GROUPS} groups of channels, "
                f"so its width must be a multiple of {GROUPS}."
            )
        encoder = self._encoder(image)
        maps = encoder[-2:]
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            image = encoder[-1]
            for i in range(self.depth - 1, -1, -1):
                image = blocks.convolution(
                    image, self.width * 2**i, kernel=1, use_bias=False, name=f"reduce_{i}"
                )
                image = ResidualBlock(name=f"decoder_{i}")(encoder[i] + _upsample(image))
                if i == self.depth - 1:
                    maps.append(image)
            image = nn.relu(group_norm(image, name="norm"))
            segmentation = (blocks.convolution(image, 1, kernel=1, name="segment"),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(maps)
        return types.Outputs(segmentation, class_logits, {})

    def _encoder(self, image: jax.Array) -> list[jax.Array]:
        """Feature maps of every level, the bottleneck last."""
        maps = []
        for i, count in enumerate(ENCODER_BLOCKS):
            image = blocks.convolution(
                image, self.width * 2**i, stride=2 if i else 1, use_bias=False, name=f"enter_{i}"
            )
            for j in range(count):
                image = ResidualBlock(name=f"encoder_{i}_{j}")(image)
            maps.append(image)
        return maps


def _upsample(image: jax.Array) -> jax.Array:
    """Bilinear, ×2, with pixel centres at half-integers (PyTorch's ``align_corners=False``)."""
    batch, height, width, channels = image.shape
    return jax.image.resize(image, (batch, 2 * height, 2 * width, channels), "bilinear")
