"""Swin UNETR: a Swin transformer as encoder, residual convolution blocks as decoder.

Papers: Hatamizadeh et al. 2022 (BrainLes). This is MONAI's `SwinUNETR` with its default sizes, the
SwinUNETR of Table 4 in Aumente-Maestro et al. 2025 (Comput. Methods Programs Biomed. 260, 108540).

Feature maps at 128×128 input (height = width × channels), width 24:
  encoder: 64 × 24, 32 × 48, 16 × 96, 8 × 192, and 4 × 384      bottleneck: 4 × 384
  skip connections: 128 × 24 (of the image), 64 × 24, 32 × 48, 16 × 96, 8 × 192
  decoder: 8 × 192, 16 × 96, 32 × 48, 64 × 24, 128 × 24         head: 4 × 768 → 4 × 512 → 256 → 3
6,302,203 parameters for segmentation alone, as MONAI's; 9,974,782 with the head.

Departures: the network that the published text names does not classify; the head comes from its
multi-task networks, `heads.FusionHead`, and reads the last encoder map, the bottleneck and the
first decoder map. MONAI's network does not scale intensities, because its recipes scale them
beforehand; this one takes grey values 0..255 and scales them itself. Unscaled, the grey level of a
patch outweighs the bias of the embedding, and the layer norms divide it out again, so that no
attention block sees brightness.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads, swin

STAGES = 4


class ResidualBlock(nn.Module):
    """Two × (3×3 convolution, instance norm), LeakyReLU 0.01 after each, a shortcut around both.

    Convolutions have no bias and the norms no affine parameters. Where the number of channels
    changes, the shortcut is a 1×1 convolution and an instance norm.

    Attributes:
      features: channels of the output.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height, width, features)``."""

        def convolve(image, kernel, name):
            image = blocks.convolution(
                image, self.features, kernel=kernel, use_bias=False, name=f"conv_{name}"
            )
            return blocks.instance_norm(image, affine=False, name=f"norm_{name}")

        hidden = nn.leaky_relu(convolve(image, 3, "1"), 0.01)
        hidden = convolve(hidden, 3, "2")
        if image.shape[-1] != self.features:
            image = convolve(image, 1, "shortcut")
        return nn.leaky_relu(hidden + image, 0.01)


class SwinUNETR(nn.Module):
    """Swin UNETR for segmentation, classification, or both.

    Attributes:
      width: channels of the first level; every level below has twice as many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` only the encoder with its
        bottleneck and the head exist.
      classes: number of classes.
      depths: attention blocks of each of the four stages.
      heads: attention heads of each stage; they divide its channels, width·(1, 2, 4, 8).
      window: side of an attention window, in tokens.
      centred_grey: whether grey values are scaled to −1..1; if not, they go in as they are.
    """

    width: int = 24
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    centred_grey: bool = True

    # How often the resolution is halved: height and width must be multiples of 2 ** depth.
    depth = STAGES + 1

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 32.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs` with one map of segmentation logits, and class logits.

        Raises:
          UserError: if ``depths`` or ``heads`` are not four, or heads do not divide the channels.
        """
        del train
        self._check()
        if self.centred_grey:
            image = image / 127.5 - 1.0
        encoder = swin.SwinEncoder(
            self.width, tuple(self.depths), tuple(self.heads), self.window, name="swin"
        )(image)
        bottleneck = ResidualBlock(self.width * 2**STAGES, name="bottleneck")(encoder[STAGES])
        maps = [encoder[STAGES - 1], bottleneck]
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            decoder = self._decoder(image, encoder, bottleneck)
            maps.append(decoder[0])
            segmentation = (blocks.convolution(decoder[-1], 1, kernel=1, name="segment"),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(maps)
        return types.Outputs(segmentation, class_logits, {})

    def _decoder(
        self, image: jax.Array, encoder: list[jax.Array], bottleneck: jax.Array
    ) -> list[jax.Array]:
        """Feature maps of the decoder, from its first to the one at full resolution."""
        maps = [bottleneck]
        # Level 0 is the image's resolution, level k + 1 the one at which the encoder has width·2^k.
        skips = [image, *encoder[:STAGES]]
        for i in range(STAGES, -1, -1):
            features = self.width * 2 ** max(i - 1, 0)
            skip = skips[i]
            if i < STAGES:  # the deepest skip connection is taken as it is
                skip = ResidualBlock(features, name=f"skip_{i}")(skip)
            up = blocks.Upsample(features, use_bias=False, name=f"up_{i}")(maps[-1])
            joined = jnp.concatenate([up, skip], axis=-1)
            maps.append(ResidualBlock(features, name=f"decoder_{i}")(joined))
        return maps[1:]

    def _check(self) -> None:
        if len(self.depths) != STAGES or len(self.heads) != STAGES:
            raise UserError(
                f"model.depths={self.depths} and model.heads={self.heads} must have {STAGES} "
                "numbers each, one per stage."
            )
        for k, count in enumerate(self.heads):
            if (self.width * 2**k) % count:
                raise UserError(
                    f"model.heads={self.heads}: {count} heads cannot share the "
                    f"{self.width * 2**k} channels that stage {k + 1} has with "
                    f"model.width={self.width}; choose a width that is a multiple of 3 with the "
                    "default heads, or other heads."
                )
