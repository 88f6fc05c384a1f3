"""Attention U-Net: a U-Net whose skip connections pass through attention gates.

Papers: Attention U-Net is Oktay et al. 2018 (MIDL). This is MONAI's `AttentionUnet` with channels
w·(1, 2, 4, 8) and strides 2, the Attention U-Net of Table 4 in Aumente-Maestro et al. 2025 (Comput.
Methods Programs Biomed. 260, 108540).

Feature maps at 128×128 input (height = width × channels), width 24:
  encoder: 128 × 24, 64 × 48, 32 × 96      bottleneck: 16 × 192
  decoder: 32 × 96, 64 × 48, 128 × 24      head: 16 × 384 → 16 × 512 → 256 → 3
1,109,593 parameters for segmentation alone, as MONAI's; 3,012,700 with the head.

Departures: the published text leaves w open; the default of 24 comes from its MT UNet++. The
network it names does not classify; the head comes from its multi-task networks, `heads.FusionHead`,
and reads the last encoder map, the bottleneck and the first decoder map. The running variance
averages each batch's biased variance, PyTorch's the unbiased one, n/(n − 1) times as large for the
n pixels of a batch. MONAI's network itself departs from the paper of 2018: strides instead of
pooling, and gates driven by the upsampled map instead of the coarser one.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads, unet


class EncoderBlock(nn.Module):
    """Two × (3×3 convolution, batch norm, ReLU).

    Attributes:
      features: channels of the output.
      stride: stride of the first convolution.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Maps ``(batch, height, width, any)`` to ``(batch, …, …, features)``."""
        for i, stride in enumerate((self.stride, 1), 1):
            image = blocks.convolution(image, self.features, stride=stride, name=f"conv_{i}")
            image = nn.relu(blocks.batch_norm(image, train=train, name=f"norm_{i}"))
        return image


class AttentionGate(nn.Module):
    """Weights every pixel of a skip connection, given the decoder's map.

    Oktay 2018, Eqs. 1–2: σ(ψ(ReLU(W_g·gate + W_x·skip))) · skip, each linear map a 1×1 convolution
    with batch norm.
    """

    @nn.compact
    def __call__(self, gate: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        """Two maps ``(batch, height, width, channels)`` to one of the same shape."""

        def project(image, features, name):
            image = blocks.convolution(image, features, kernel=1, name=f"{name}_conv")
            return blocks.batch_norm(image, train=train, name=f"{name}_norm")

        hidden = skip.shape[-1] // 2
        if not hidden:
            raise UserError("model.width=1: the attention gates halve it, so give at least 2.")
        joint = nn.relu(project(gate, hidden, "gate") + project(skip, hidden, "skip"))
        return skip * nn.sigmoid(project(joint, 1, "weight"))


class DecoderBlock(nn.Module):
    """Doubles the resolution, gates the skip connection and merges both.

    Attributes:
      features: channels of the skip connection and of the output.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        """From ``(batch, height, width, any)`` to the shape of ``skip``, twice as high and wide."""
        up = unet.transposed_convolution(image, self.features, name="up_conv")
        up = nn.relu(blocks.batch_norm(up, train=train, name="up_norm"))
        gated = AttentionGate(name="gate")(up, skip, train=train)
        return unet.Unit(self.features, name="merge")(jnp.concatenate([gated, up], axis=-1))


class AttentionUNet(nn.Module):
    """Attention U-Net for segmentation, classification, or both.

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
          train: whether batch norm uses the batch's statistics and updates the running ones
            (collection ``batch_stats``, mutable then) or uses the running ones.

        Returns:
          `types.Outputs` with one map of segmentation logits, and class logits.
        """
        encoder = []
        for i in range(self.depth):
            block = EncoderBlock(self.width * 2**i, stride=2 if i else 1, name=f"encoder_{i}")
            image = block(image, train=train)
            encoder.append(image)
        block = EncoderBlock(self.width * 2**self.depth, stride=2, name="bottleneck")
        bottleneck = block(image, train=train)
        maps = [encoder[-1], bottleneck]
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            image = bottleneck
            for i in range(self.depth - 1, -1, -1):
                block = DecoderBlock(self.width * 2**i, name=f"decoder_{i}")
                image = block(image, encoder[i], train=train)
                if i == self.depth - 1:
                    maps.append(image)
            segmentation = (blocks.convolution(image, 1, kernel=1, name="segment"),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = heads.FusionHead(self.classes, name="head")(maps)
        return types.Outputs(segmentation, class_logits, {})
