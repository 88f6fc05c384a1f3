"""Adityan et al.'s network: a U-Net that segments, rebuilds its input and classifies.

Paper: Adityan et al. 2023 (ICIP), as Aumente-Maestro et al. 2025 (Comput. Methods Programs Biomed.
260, 108540, Tables 8 and 9) reimplements it; layers as in the latter's released code. The last
concatenation of the U-Net (encoder level 1 and the upsampled decoder) feeds three branches. The
reconstruction is an auto-encoder regulariser: its target is the image itself, scaled to 0..1.

Feature maps at 128×128 input (height = width × channels), width 64:
  level 1: encoder 128 × 64      concatenation 128 × 128
  level 2: encoder  64 × 128     decoder  64 × 64       level 3: encoder 32 × 256   decoder 32 × 128
  level 4: encoder  16 × 512     decoder  16 × 256      bottleneck 8 × 1024 → 8 × 512
  segmentation and reconstruction: 128 × 64      class: 16 × 128 → 16 × 32 → 1000 → 3
23,554,309 parameters with both tasks (1 input channel, 3 classes), 23,481,410 with ``("seg",)``,
23,332,227 with ``("cls",)``.

There is no normalisation layer, yet grey values go in as 0..255, as in the other networks: with
PyTorch's default weights each convolution with ReLU shrinks its input to about two fifths
(√(1/6)), so raw grey values arrive at the outputs with a size of about 1, while values in 0..1
would drown in the biases.

Departures: the class branch averages over the whole map; the released code averages over 16×16,
which is the same at 128×128, the only size it accepts. Without the segmentation task the
reconstruction is left out too, but the decoder stays, because the class branch reads its output.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.models import blocks, heads
from mtbus_jax.models.cpu import pooling, upsampled

RECONSTRUCTION = "reconstruction"

# The class branch's widths do not scale with the network's.
CLASS_FEATURES = 32
CLASS_HIDDEN = 1000


class PlainBlock(nn.Module):
    """Two × (3×3 convolution, ReLU).

    Attributes:
      hidden: channels between the two convolutions.
      features: channels of the output.
    """

    hidden: int
    features: int

    @nn.compact
    def __call__(self, *maps: jax.Array, up: upsampled.Upsampled | None = None) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height, width, features)``.

        Several maps, and one that is upsampled first, are read as if they were concatenated.
        """
        image = nn.relu(blocks.convolution_of_all(maps, up, self.hidden, name="conv_1"))
        return nn.relu(blocks.convolution(image, self.features, name="conv_2"))


class Adityan(nn.Module):
    """Adityan et al.'s network for segmentation with reconstruction, classification, or both.

    Attributes:
      width: channels of level 1; levels below have 2, 4, 8 times as many, the bottleneck 16 times.
      tasks: which outputs to compute, of `types.TASKS`. The reconstruction belongs to the
        segmentation; with ``("cls",)`` only encoder, decoder and class branch exist.
      classes: number of classes.
    """

    width: int = 64
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)

    # Halvings of the resolution: height and width of the input must be multiples of 2 ** depth.
    depth = 4

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 16.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs`: segmentation logits, class logits, and with the segmentation task
          ``aux["reconstruction"]``, the image divided by 255 as the network rebuilds it:
          ``(batch, height, width, channels)`` float32 in 0..1.
        """
        del train
        level_1, up = self._backbone(image)
        segmentation, class_logits, aux = (), None, {}
        if types.SEGMENTATION in self.tasks:
            segment = PlainBlock(self.width, self.width, name="segment_block")(level_1, up=up)
            segmentation = (blocks.convolution(segment, 1, kernel=1, name="segment"),)
            rebuilt = PlainBlock(self.width, self.width, name="rebuild_block")(level_1, up=up)
            rebuilt = blocks.convolution(rebuilt, image.shape[-1], name="rebuild")
            aux[RECONSTRUCTION] = nn.sigmoid(rebuilt)
        if types.CLASSIFICATION in self.tasks:
            features = jnp.concatenate([level_1, up.computed()], axis=-1)
            for _ in range(3):
                features = pooling.max_pool(features)
            features = nn.relu(blocks.convolution(features, CLASS_FEATURES, name="class_conv"))
            head = heads.PooledClassifier(self.classes, hidden=CLASS_HIDDEN, name="classifier")
            class_logits = head(features)
        return types.Outputs(segmentation, class_logits, aux)

    def _backbone(self, image: jax.Array) -> tuple[jax.Array, upsampled.Upsampled]:
        """Level 1 of the encoder and level 2 of the decoder upsampled, both of ``self.width``."""
        encoder = []
        features = image
        for level in range(1, self.depth + 1):
            wide = self.width * 2 ** (level - 1)
            features = PlainBlock(wide, wide, name=f"encoder_{level}")(features)
            encoder.append(features)
            features = pooling.max_pool(features)
        features = PlainBlock(2 * wide, wide, name="bottleneck")(features)
        for level in range(self.depth, 0, -1):
            wide = features.shape[-1]
            up = blocks.Upsample(wide, name=f"up_{level}").deferred(features)
            if level > 1:
                block = PlainBlock(wide, wide // 2, name=f"decoder_{level}")
                features = block(encoder[level - 1], up=up)
        return encoder[0], up
