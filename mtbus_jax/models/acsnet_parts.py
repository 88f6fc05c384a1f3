"""The parts of ACSNet (`acsnet`): gate, decoder stage, deformable attention, output and heads.

All are from He et al. 2024 (Comput. Biol. Med., PII S0010482524004037), with the layers of its
released code.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax.models import blocks, resampling
from mtbus_jax.models.deformable import DeformableConvolution


def group_norm_relu(image: jax.Array, groups: int, *, name: str) -> jax.Array:
    """Group norm with ε 1e-5, then ReLU; created inside a compact module."""
    norm = nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, name=name)
    return nn.relu(norm(image))


def largest(image: jax.Array, axis: int) -> jax.Array:
    """The largest value along an axis, kept with length 1; of equals the first has the gradient.

    The values are those of `jax.numpy.max`. The gradient of that function looks for values that
    equal the largest. If XLA computes them twice and rounds differently, it finds none and divides
    by zero.
    """
    index = jnp.argmax(image, axis, keepdims=True)
    places = jax.lax.broadcasted_iota(index.dtype, image.shape, axis)
    return jnp.sum(jnp.where(places == index, image, 0), axis, keepdims=True)


def largest_of_pixels(image: jax.Array) -> jax.Array:
    """The largest value of each channel: ``(batch, height, width, channels)`` → (batch, channels).

    See `largest`.
    """
    return largest(image.reshape(image.shape[0], -1, image.shape[-1]), 1)[:, 0]


class GateUnit(nn.Module):
    """Scales a map by two numbers computed from the map itself.

    Convolutions and σ turn the map into two maps. The sum of the mean of the first and the largest
    value of the second multiplies the whole map, which then passes a 3×3 convolution.
    """

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        channels = image.shape[-1]
        hidden = blocks.convolution(image, channels // 8, name="reduce")
        hidden = group_norm_relu(hidden, channels // 16, name="reduce_norm")
        maps = nn.sigmoid(blocks.convolution(hidden, 2, name="maps"))
        opened = jnp.mean(maps[..., :1], axis=(1, 2)) + largest_of_pixels(maps[..., 1:])
        gated = blocks.convolution(opened[:, None, None] * image, channels, name="merge")
        return group_norm_relu(gated, channels // 4, name="merge_norm")


class DecoderStage(nn.Module):
    """Two convolutions, each with group norm and ReLU; a first one of 1×1 has no norm.

    Attributes:
      features: channels of the output.
      groups: number of groups of the group norms.
      first_kernel: height and width of the first kernel. A 1×1 kernel keeps the number of channels
        and has no norm.
    """

    features: int
    groups: int
    first_kernel: int = 3

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height, width, features)``."""
        if self.first_kernel == 1:
            image = blocks.convolution(image, image.shape[-1], kernel=1, name="conv_1")
            image = nn.relu(image)
        else:
            image = blocks.convolution(image, self.features, name="conv_1")
            image = group_norm_relu(image, self.groups, name="norm_1")
        image = blocks.convolution(image, self.features, name="conv_2")
        return group_norm_relu(image, self.groups, name="norm_2")


class DeformableAttention(nn.Module):
    """Deformable spatial attention: weights each pixel between two deformable convolutions.

    A deformable convolution gives X'. Its mean and its largest value over channels each pass a 3×3
    convolution and σ, which gives S₁ and S₂; a second deformable convolution joins X'·S₁ and X'·S₂.
    """

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        channels = image.shape[-1]
        image = DeformableConvolution(channels, name="deform_1")(image)
        image = group_norm_relu(image, channels // 4, name="norm_1")
        weighed = []
        pooled = {"mean": jnp.mean(image, -1, keepdims=True), "largest": largest(image, 3)}
        for name, each in pooled.items():
            weight = nn.sigmoid(blocks.convolution(each, 1, name=name))
            weighed.append(image * weight)
        image = jnp.concatenate(weighed, axis=-1)
        image = DeformableConvolution(channels, name="deform_2")(image)
        return group_norm_relu(image, channels // 4, name="norm_2")


class SegmentationOutput(nn.Module):
    """Turns the decoder's last map into logits at twice its resolution.

    Attributes:
      features: channels of the 3×3 convolution.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, 2·height, 2·width, 1)``."""
        image = blocks.convolution(resampling.doubled(image), self.features, name="conv")
        image = group_norm_relu(image, 4, name="norm")
        return blocks.convolution(image, 1, kernel=1, name="logits")


class ChannelAttention(nn.Module):
    """Weights channels by what two dense layers compute from their means and largest values."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Of the same shape as ``image``, ``(batch, height, width, channels)``."""
        channels = image.shape[-1]
        pooled = jnp.concatenate([jnp.mean(image, (1, 2)), largest_of_pixels(image)], axis=-1)
        hidden = nn.relu(blocks.dense(pooled, channels // 16, name="reduce"))
        weight = nn.sigmoid(blocks.dense(hidden, channels, name="weights"))
        return nn.relu(image * weight[:, None, None])


class MultiScaleHead(nn.Module):
    """Class logits from several stages.

    Attributes:
      classes: number of classes.
      channel_attention: whether each map passes `ChannelAttention` first.
    """

    classes: int
    channel_attention: bool

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """Maps feature maps to ``(batch, classes)``.

        Args:
          maps: encoder stages 4 and 5 and, where there is a decoder, its first stage; the second
            half as high and wide as the others.
        """
        read = []
        for number, each in enumerate(maps, 4):
            if self.channel_attention:
                each = ChannelAttention(name=f"attention_{number}")(each)
            read.append(resampling.doubled(each) if number == 5 else each)
        pooled = jnp.mean(jnp.concatenate(read, axis=-1), axis=(1, 2))
        hidden = nn.relu(blocks.dense(pooled, pooled.shape[-1] // 2, name="hidden"))
        return blocks.dense(hidden, self.classes, name="logits")


class PlainHead(nn.Module):
    """Class logits from the bottleneck: global average, dense 64, ReLU, dense ``classes``.

    Attributes:
      classes: number of classes.
      channel_attention: whether the map passes `ChannelAttention` first.
    """

    classes: int
    channel_attention: bool

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """One map, ``(batch, height, width, channels)``, to ``(batch, classes)``."""
        (image,) = maps
        if self.channel_attention:
            image = ChannelAttention(name="attention_5")(image)
        pooled = jnp.mean(image, axis=(1, 2))
        hidden = nn.relu(blocks.dense(pooled, pooled.shape[-1] // 8, name="hidden"))
        return blocks.dense(hidden, self.classes, name="logits")
