"""Classification heads: from feature maps of a segmentation network to class logits."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax.models import blocks


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
