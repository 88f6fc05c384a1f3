"""Residual-U-Net MTL: concatenating residual units, and a class head on three of its stages.

Paper: Jignesh Chowdary et al. 2022 (Ultrasonic Imaging 44, 3–12, doi 10.1177/01617346221075769).
Nine levels of residual units, each three × (convolution, batch norm, ReLU) whose output is
concatenated with the unit's input. The head reads the global averages of the last encoder stage,
the bridge and the first decoder stage. `residual_unet` is a different network from another paper.

Feature maps at 128×128 input (height = width × channels), width 32:
  encoder: 128 × 33, 64 × 97, 32 × 225, 16 × 481      bridge: 8 × 993
  decoder: 16 × 993, 32 × 481, 64 × 225, 128 × 97      head: 2467 → 256 → 3
15,257,669 parameters with both tasks (1 input channel, 3 classes), 14,625,090 with ``("seg",)``,
9,538,499 with ``("cls",)``.

Left open by the text, and chosen here:
  - widths of 32, 64, 128, 256 and 512, usual for a U-Net, as the channels that a unit adds to its
    input;
  - kernels of 3×3 with a bias and zero padding;
  - 2×2 max-pooling on the way down, transposed convolutions with kernel and stride 2 on the way up,
    skips that are concatenated;
  - the order of channels in a unit: the input first, then the new ones;
  - 128×128 pixels, as for the other networks here.

Departures:
  - The class scores are logits; the softmax is part of the loss.
  - With ``("cls",)`` there is no decoder, and the head reads two stages, 1474 channels.
  - The running variance averages each batch's biased variance, PyTorch's the unbiased one.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.models import blocks
from mtbus_jax.models.cpu import pooling

HIDDEN, DROPOUT = 256, 0.5


class ResidualUnit(nn.Module):
    """Three × (3×3 convolution, batch norm, ReLU), concatenated with the input.

    Attributes:
      features: channels that are added.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height, width, any + features)``."""
        path = image
        for i in range(1, 4):
            path = blocks.convolution(path, self.features, name=f"conv_{i}")
            path = nn.relu(blocks.batch_norm(path, train=train, name=f"norm_{i}"))
        return jnp.concatenate([image, path], axis=-1)


class ResidualMTL(nn.Module):
    """Residual-U-Net MTL for segmentation, classification, or both.

    Attributes:
      width: channels that the first unit adds; the next add 2, 4, 8 and the bridge 16 times as
        many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is no decoder.
      classes: number of classes.
    """

    width: int = 32
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)

    # How often the resolution is halved: height and width must be multiples of 2 ** depth.
    depth = 4

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, 1)`` float32, grey values 0..255; height and width
            multiples of 16.
          train: whether batch norm uses the batch's statistics and updates the running ones
            (collection ``batch_stats``, mutable then), and dropout drops.

        Returns:
          `types.Outputs` with one map of segmentation logits, and class logits.
        """
        # Grey values are concatenated with features at every level, so both need similar size.
        image = image / 255
        stages = []
        for level in range(self.depth + 1):
            if level:
                image = pooling.max_pool(image)
            name = f"encoder_{level + 1}" if level < self.depth else "bridge"
            image = ResidualUnit(self.width * 2**level, name=name)(image, train=train)
            stages.append(image)
        read, segmentation = stages[-2:], ()
        if types.SEGMENTATION in self.tasks:
            for level in reversed(range(self.depth)):
                features = self.width * 2**level
                up = blocks.Upsample(features, name=f"up_{level + 1}")(image)
                image = jnp.concatenate([stages[level], up], axis=-1)
                unit = ResidualUnit(features, name=f"decoder_{level + 1}")
                image = unit(image, train=train)
                if level == self.depth - 1:
                    read = [*read, image]
            segmentation = (blocks.convolution(image, 1, kernel=1, name="segment"),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            pooled = jnp.concatenate([jnp.mean(each, axis=(1, 2)) for each in read], axis=-1)
            hidden = nn.relu(blocks.dense(pooled, HIDDEN, name="hidden"))
            hidden = nn.Dropout(DROPOUT, deterministic=not train, name="dropout")(hidden)
            class_logits = blocks.dense(hidden, self.classes, name="classifier")
        return types.Outputs(segmentation, class_logits, {})
