"""BTS U-Net: a slim U-Net whose bottleneck shares the deepest encoder level's resolution.

Paper: one of the segmentation networks that Aumente-Maestro et al. 2025 (Comput. Methods Programs
Biomed. 260, 108540, Table 4) compares; layers as in its released code. Level k has k - 1 halvings
of the resolution.

Feature maps at 128×128 input (height = width × channels), width 48:
  level 1: encoder 128 × 48      decoder 128 × 24       level 2: encoder 64 × 96    decoder 64 × 48
  level 3: encoder  32 × 192     decoder  32 × 96       level 4: encoder 16 × 384
  bottleneck 16 × 384, with encoder level 4 merged to 16 × 192
  head: 16 × 864 → 16 × 512 → 256 → 3
10,501,876 parameters with both tasks (1 input channel, 3 classes), 6,386,929 with ``("seg",)``,
7,643,739 with ``("cls",)``; deep supervision adds 156,962 to the first two. The paper leaves the
width open: 48 is the released default, the released configuration has 24.

How the description is interpreted: a decoder block narrows in two steps, level 3 from 384 to 192 to
96 channels. The merge is one convolution, norm and LeakyReLU. All convolutions start with
Kaiming-normal weights and zero biases; transposed ones start from PyTorch's default.

Departure: `heads.FusionHead` gives the class. The released code has a multi-task variant that the
paper does not report; its head flattens a 16×16 map, so it takes 128×128 images only.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads, supervision
from mtbus_jax.models.cpu import pooling
from mtbus_jax.models.nnunet import NEGATIVE_SLOPE, kaiming_normal


class BTSUNet(nn.Module):
    """BTS U-Net for segmentation, classification, or both.

    Attributes:
      width: channels of level 1, even; levels below have 2, 4, 8 times as many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is neither merge
        nor decoder, and the head reads encoder level 4 and the bottleneck.
      deep_supervision: whether decoder levels 2 and 3 get a segmentation output too.
      classes: number of classes.
    """

    width: int = 48
    tasks: tuple[str, ...] = types.TASKS
    deep_supervision: bool = False
    classes: int = len(types.CLASS_NAMES)

    # Halvings of the resolution: height and width of the input must be multiples of 2 ** depth.
    depth = 3

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 8.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs`: segmentation logits of decoder levels 1, 2, 3, all at the image's
          resolution, and class logits.

        Raises:
          UserError: if ``width`` is odd.
        """
        del train
        if self.width % 2:
            raise UserError(
                f"model.width={self.width}: BTS U-Net halves it in two blocks, so give an even "
                "number."
            )
        encoder = []
        features = image
        for level in range(1, self.depth + 2):
            if level > 1:
                features = pooling.max_pool(features)
            wide = self.width * 2 ** (level - 1)
            features = self._block(features, wide // 2, wide, f"encoder_{level}")
            encoder.append(features)
        bottleneck = self._block(features, wide, wide, "bottleneck")
        segmentation, class_logits = (), None
        head_maps = [encoder[-1], bottleneck]
        if types.SEGMENTATION in self.tasks:
            decoder = self._decode(encoder, bottleneck)
            levels = range(1, self.depth + 1) if self.deep_supervision else (1,)
            segmentation = supervision.segment_levels(decoder, levels, kaiming_normal)
            head_maps.append(decoder[self.depth])
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(head_maps)
        return types.Outputs(segmentation, class_logits, {})

    def _decode(self, encoder: list[jax.Array], bottleneck: jax.Array) -> dict[int, jax.Array]:
        """The decoder's maps by level."""
        *skips, deepest = encoder
        below = blocks.convolution(
            jnp.concatenate([deepest, bottleneck], axis=-1),
            skips[-1].shape[-1],
            use_bias=False,
            kernel_init=kaiming_normal,
            name="merge",
        )
        below = blocks.instance_norm(below, affine=False, name="merge_norm")
        below = nn.leaky_relu(below, NEGATIVE_SLOPE)
        maps = {}
        for level in range(self.depth, 0, -1):
            # Nearest neighbour: each pixel becomes 2×2.
            upsampled = jnp.repeat(jnp.repeat(below, 2, axis=1), 2, axis=2)
            both = jnp.concatenate([skips[level - 1], upsampled], axis=-1)
            wide = both.shape[-1] // 2
            below = maps[level] = self._block(both, wide, wide // 2, f"decoder_{level}")
        return maps

    def _block(self, image: jax.Array, hidden: int, features: int, name: str) -> jax.Array:
        """Two × (3×3 convolution, instance norm, LeakyReLU)."""
        return blocks.ConvBlock(
            features,
            hidden=hidden,
            use_bias=False,
            affine=False,
            negative_slope=NEGATIVE_SLOPE,
            kernel_init=kaiming_normal,
            name=name,
        )(image)
