"""Residual U-Net: a U-Net of pre-activation residual blocks with batch norm and dropout.

Paper: one of the segmentation networks that Aumente-Maestro et al. 2025 (Comput. Methods Programs
Biomed. 260, 108540, Table 4) compares; layers as in its released code, which took them from a
public implementation of ARPM-net's U-Net, Zhang et al. 2020 (Med. Phys.). Level k has k - 1
halvings of the resolution, by convolutions of stride 2.

Feature maps at 128×128 input (height = width × channels), width 24:
  level 1: encoder 128 × 24      decoder 128 × 24       level 2: encoder 64 × 48    decoder 64 × 48
  level 3: encoder  32 × 96      decoder  32 × 96       bottleneck 16 × 192
  head: 16 × 384 → 16 × 512 → 256 → 3
3,231,916 parameters with both tasks (1 input channel, 3 classes), 1,328,809 with ``("seg",)``,
2,340,123 with ``("cls",)``; 24,360 fewer with ``legacy=True`` (the same if there is no decoder).
The paper leaves the width open; 24 is the released default.

Departures:
  - The released network runs without its encoder-decoder skips, and its dropout stays on at test
    time. The default here has the skips, in the form that the released code defines but does not
    call: concatenation, then a 1×1 convolution back to the level's width. Dropout is off at test
    time. ``legacy=True`` is the network as released, without the parameters of those unused 1×1
    convolutions. At test time its dropout draws from fixed seeds, with the same values for every
    image of a batch, so a prediction depends neither on chance nor on the other images.
  - Flax's running variance averages the biased variance of a batch, PyTorch's the unbiased one; at
    128×128 and batch 2 they differ by 2·10⁻³ at most (bottleneck).
  - `heads.FusionHead` gives the class; the published network only segments.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.models import blocks, heads

DROPOUT = 0.2
NEGATIVE_SLOPE = 0.01


class ResidualBlock(nn.Module):
    """Two × (batch norm, LeakyReLU, dropout, 3×3 convolution), plus a convolved shortcut.

    Attributes:
      features: channels of the output.
      stride: of the first convolution and of the shortcut.
      activate_input: whether the first batch norm, LeakyReLU and dropout exist; False for the
        block that reads the image.
      test_seed: seed of dropout at test time; None turns dropout off then.
    """

    features: int
    stride: int = 1
    activate_input: bool = True
    test_seed: int | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, height/s, width/s, features)``."""
        path = image
        if self.activate_input:
            path = self._activate(path, 1, train)
        path = blocks.convolution(path, self.features, stride=self.stride, name="conv_1")
        path = self._activate(path, 2, train)
        path = blocks.convolution(path, self.features, name="conv_2")
        shortcut = blocks.convolution(
            image, self.features, stride=self.stride, name="shortcut_conv"
        )
        return path + blocks.batch_norm(shortcut, train=train, name="shortcut_norm")

    def _activate(self, path: jax.Array, number: int, train: bool) -> jax.Array:
        path = blocks.batch_norm(path, train=train, name=f"norm_{number}")
        path = nn.leaky_relu(path, NEGATIVE_SLOPE)
        if train:
            return nn.Dropout(DROPOUT, deterministic=False)(path)
        if self.test_seed is None:
            return path
        key = jax.random.fold_in(jax.random.key(self.test_seed), number)
        # Broadcast over the batch, so an image's result does not depend on its place in the batch.
        return nn.Dropout(DROPOUT, broadcast_dims=(0,), deterministic=False)(path, rng=key)


class ResidualUNet(nn.Module):
    """Residual U-Net for segmentation, classification, or both.

    Running statistics are in the collection ``batch_stats``; training needs a key for ``dropout``.

    Attributes:
      width: channels of level 1; levels below have 2, 4, 8 times as many.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is no decoder, and
        the head reads encoder level 3 and the bottleneck.
      legacy: whether to build the network as released, without encoder-decoder skips and with
        dropout at test time.
      classes: number of classes.
    """

    width: int = 24
    tasks: tuple[str, ...] = types.TASKS
    legacy: bool = False
    classes: int = len(types.CLASS_NAMES)

    # Halvings of the resolution: height and width of the input must be multiples of 2 ** depth.
    depth = 3

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 8.
          train: whether to normalise by the batch's statistics, update the running ones, and drop
            out at random.

        Returns:
          `types.Outputs`: segmentation logits and class logits.
        """
        *encoder, bottleneck = self._encode(image, train)
        segmentation, class_logits = (), None
        head_maps = [encoder[-1], bottleneck]
        if types.SEGMENTATION in self.tasks:
            decoder = self._decode(encoder, bottleneck, train)
            segmentation = (blocks.convolution(decoder[-1], 1, kernel=1, name="segment"),)
            head_maps.append(decoder[0])
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(head_maps)
        return types.Outputs(segmentation, class_logits, {})

    def _encode(self, image: jax.Array, train: bool) -> list[jax.Array]:
        """Maps of encoder levels 1 to 3, and the bottleneck."""
        maps = []
        for level in range(1, self.depth + 2):
            block = ResidualBlock(
                self.width * 2 ** (level - 1),
                stride=1 if level == 1 else 2,
                activate_input=level > 1,
                test_seed=self._seed(level),
                name=f"encoder_{level}" if level <= self.depth else "bottleneck",
            )
            image = block(image, train=train)
            maps.append(image)
        return maps

    def _decode(
        self, encoder: list[jax.Array], bottleneck: jax.Array, train: bool
    ) -> list[jax.Array]:
        """Maps of decoder levels 3 to 1."""
        maps = []
        below = bottleneck
        for level in range(self.depth, 0, -1):
            skip = encoder[level - 1]
            wide = skip.shape[-1]
            below = blocks.Upsample(wide, name=f"up_{level}")(below)
            if not self.legacy:
                below = jnp.concatenate([below, skip], axis=-1)
                below = blocks.convolution(below, wide, kernel=1, name=f"join_{level}")
            seed = self._seed(self.depth + 1 + level)
            block = ResidualBlock(wide, test_seed=seed, name=f"decoder_{level}")
            below = block(below, train=train)
            maps.append(below)
        return maps

    def _seed(self, number: int) -> int | None:
        return number if self.legacy else None
