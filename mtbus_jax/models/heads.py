"""Classification heads: from feature maps of a segmentation network to class logits."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax.models import blocks
from mtbus_jax.models.cpu import pooling


class PooledClassifier(nn.Module):
    """Global average pool, dense 256, ReLU, dense ``classes``.

    Attributes:
      classes: number of classes.
      hidden: width of the hidden dense layer.
    """

    classes: int = 3
    hidden: int = 256

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps ``(batch, height, width, channels)`` to ``(batch, classes)`` logits."""
        pooled = jnp.mean(features, axis=(1, 2))
        hidden = nn.relu(blocks.dense(pooled, self.hidden, name="hidden"))
        return blocks.dense(hidden, self.classes, name="logits")


class FusionHead(nn.Module):
    """The head of Aumente-Maestro et al. 2025 for any encoder-decoder network.

    Reads the bottleneck and the feature maps on both sides of it (deepest encoder stage, first
    decoder stage). Every map is max-pooled to the bottleneck's resolution; then concatenation, 3×3
    convolution, instance norm, LeakyReLU 0.01, and `PooledClassifier`. Networks whose published
    version has its own head (UNet++, nnU-Net, Adityan's) use that one instead.

    Attributes:
      classes: number of classes.
      features: channels of the fused map.
    """

    classes: int = 3
    features: int = 512

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """Maps feature maps, each ``(batch, 2^k·height, 2^k·width, any)``, to ``(batch, classes)``.

        Args:
          maps: see above; without the segmentation task there is no decoder map.
        """
        height = min(each.shape[1] for each in maps)
        pooled = []
        for each in maps:
            while each.shape[1] > height:
                each = pooling.max_pool(each)
            pooled.append(each)
        fused = blocks.convolution(jnp.concatenate(pooled, axis=-1), self.features, name="conv")
        fused = nn.leaky_relu(blocks.instance_norm(fused, name="norm"), 0.01)
        return PooledClassifier(self.classes, name="classifier")(fused)
