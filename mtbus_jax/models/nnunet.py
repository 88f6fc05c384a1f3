"""MT nnU-Net: the U-Net that nnU-Net's rules give, deep supervision and a classification head.

Papers: the multi-task network is from Aumente-Maestro et al. 2025 (Comput. Methods Programs Biomed.
260, 108540) and its released code; the rules are those of nnU-Net, Isensee et al. 2021 (Nat.
Methods 18). Level k has k - 1 halvings of the resolution, the bottleneck below level 5 has five.

Feature maps at 128×128 input (height = width × channels), width 32:
  level 1: encoder 128 × 32      decoder 128 × 16       level 2: encoder 64 × 64    decoder 64 × 32
  level 3: encoder  32 × 128     decoder  32 × 64       level 4: encoder 16 × 256   decoder 16 × 128
  level 5: encoder   8 × 320     decoder   8 × 256      bottleneck 4 × 320
  head: 8 × 960 → 8 × 512 → 256 → 3
15,819,799 parameters with both tasks (1 input channel, 3 classes), 9,605,140 with ``("seg",)``,
8,675,619 with ``("cls",)``.

Where the paper leaves a choice, this network follows the released code:
  - A decoder block narrows in its first convolution: level 5 goes 640 → 256 → 256 channels. Only
    level 1 has two widths, 64 → 32 → 16.
  - "Conv block" in the head is one convolution, norm and LeakyReLU, not two. The upsampled
    bottleneck is the one that decoder level 5 reads: one transposed convolution, not two.
  - Encoder, bottleneck, decoder and 1×1 convolutions start with Kaiming-normal weights and zero
    biases. Transposed convolutions and the head start from PyTorch's default.
Departure: the released single-task classifier keeps decoder level 5. Here ``("cls",)`` is encoder,
bottleneck and head only, as the paper defines the single-task classifier. Without a decoder there
is no learned upsampling of the bottleneck, so the head works at 4×4: it reads the bottleneck and
the encoder's conv block, max-pooled.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads, supervision
from mtbus_jax.models.cpu import drawing, pooling

NEGATIVE_SLOPE = 0.01

# Channels of the head's last feature map; they do not scale with the network's width.
HEAD_FEATURES = 512

# Kaiming-normal for LeakyReLU: variance 2/((1 + slope²)·fan_in), not truncated.
kaiming_normal = drawing.Initializer("normal", gain=2 / (1 + NEGATIVE_SLOPE**2))


class NNUNet(nn.Module):
    """nnU-Net for segmentation, classification, or both.

    Attributes:
      width: channels of level 1, even; levels below have 2, 4, 8, 10 times as many, and the
        bottleneck 10 times.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is no decoder.
      deep_supervision: whether decoder levels 2, 3 and 4 get a segmentation output too.
      classes: number of classes.
    """

    width: int = 32
    tasks: tuple[str, ...] = types.TASKS
    deep_supervision: bool = True
    classes: int = len(types.CLASS_NAMES)

    # Halvings of the resolution: height and width of the input must be multiples of 2 ** depth.
    depth = 5

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 32, one of them at least 64.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs`: segmentation logits of decoder levels 1, 2, 3, 4, all at the image's
          resolution, and class logits.

        Raises:
          UserError: if ``width`` is odd.
        """
        del train
        if self.width % 2:
            raise UserError(
                f"model.width={self.width}: nnU-Net's last block halves it, so give an even number."
            )
        encoder, bottleneck = self._encode(image)
        segmentation, class_logits = (), None
        if types.SEGMENTATION in self.tasks:
            decoder, bottleneck_up = self._decode(encoder, bottleneck)
            levels = (1, 2, 3, 4) if self.deep_supervision else (1,)
            segmentation = supervision.segment_levels(decoder, levels, kaiming_normal)
        if types.CLASSIFICATION in self.tasks:
            deep = 10 * self.width
            maps = [self._single(encoder[self.depth], deep, name="head_encoder")]
            if types.SEGMENTATION in self.tasks:
                maps.append(bottleneck_up)
                maps.append(self._single(decoder[self.depth], deep, name="head_decoder"))
            else:
                maps = [pooling.max_pool(maps[0]), bottleneck]
            fused = jnp.concatenate(maps, axis=-1)
            fused = self._single(fused, HEAD_FEATURES, name="head_fused")
            class_logits = heads.PooledClassifier(self.classes, name="classifier")(fused)
        return types.Outputs(segmentation, class_logits, {})

    def _encode(self, image: jax.Array) -> tuple[dict[int, jax.Array], jax.Array]:
        """The encoder's maps by level, and the bottleneck."""
        maps = {}
        for level, factor in enumerate((1, 2, 4, 8, 10), 1):
            image = maps[level] = self._double(factor * self.width, f"encoder_{level}")(image)
            image = pooling.max_pool(image)
        return maps, self._double(10 * self.width, "bottleneck")(image)

    def _decode(
        self, encoder: dict[int, jax.Array], bottleneck: jax.Array
    ) -> tuple[dict[int, jax.Array], jax.Array]:
        """The decoder's maps by level, and the bottleneck at level 5's resolution."""
        maps = {}
        below = bottleneck
        for level in range(self.depth, 0, -1):
            up = blocks.Upsample(below.shape[-1], name=f"up_{level}").deferred(below)
            if level == self.depth:
                bottleneck_up = up.computed()
            if level > 1:
                block = self._double(encoder[level - 1].shape[-1], f"decoder_{level}")
            else:
                block = self._double(self.width // 2, "decoder_1", hidden=self.width)
            below = maps[level] = block(encoder[level], up=up)
        return maps, bottleneck_up

    def _double(self, features: int, name: str, *, hidden: int = 0) -> blocks.ConvBlock:
        """Two × (3×3 convolution, instance norm, LeakyReLU)."""
        return blocks.ConvBlock(
            features,
            hidden=hidden,
            use_bias=False,
            affine=False,
            negative_slope=NEGATIVE_SLOPE,
            kernel_init=kaiming_normal,
            name=name,
        )

    def _single(self, image: jax.Array, features: int, *, name: str) -> jax.Array:
        """3×3 convolution, instance norm, LeakyReLU, with the head's initialisation."""
        image = blocks.convolution(image, features, use_bias=False, name=name)
        image = blocks.instance_norm(image, affine=False, name=f"{name}_norm")
        return nn.leaky_relu(image, NEGATIVE_SLOPE)
