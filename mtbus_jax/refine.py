"""Prediction refining (PR): makes mask and class of one image tell the same story.

Aumente-Maestro et al. 2025; used at test time only.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtbus_jax import types


def incoherent(mask: jax.Array, class_id: jax.Array) -> jax.Array:
    """Where exactly one of mask and class says normal.

    Args:
      mask: ``(batch, height, width, ...)`` bool.
      class_id: ``(batch,)`` integers.

    Returns:
      ``(batch,)`` bool.
    """
    empty = ~jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    return empty != (class_id == types.NORMAL)


def refine(mask: jax.Array, class_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Empties the mask of an image classified normal; calls an image with an empty mask normal.

    Both rules look at the unrefined pair, so their order does not matter. Vectorised over the
    batch, without branches, so it can be jitted.

    Args:
      mask: ``(batch, height, width, ...)`` bool, the thresholded segmentation.
      class_logits: ``(batch, classes)`` logits or probabilities.

    Returns:
      The refined mask, same shape, bool, and the refined class, ``(batch,)`` int32.
    """
    mask = jnp.asarray(mask, bool)
    class_id = jnp.argmax(class_logits, axis=-1).astype(jnp.int32)
    normal = class_id == types.NORMAL
    empty = ~jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    keep = ~normal.reshape(normal.shape + (1,) * (mask.ndim - 1))
    return mask & keep, jnp.where(empty, types.NORMAL, class_id)
