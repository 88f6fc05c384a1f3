"""Prediction refining (PR): makes the mask and the class of an image consistent.

`refine` applies the two hard rules of Aumente-Maestro et al. 2025. `refine_probable` weighs mask
and class by their probabilities, which that paper names as future work. Used at test time only.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtbus_jax import types


def incoherent(
    mask: jax.Array, class_id: jax.Array, *, normal: int | None = types.NORMAL
) -> jax.Array:
    """Whether exactly one of mask and class says normal, for each image.

    Args:
      mask: ``(batch, height, width, ...)`` bool.
      class_id: ``(batch,)`` integers.
      normal: code of the class "no lesion"; None if there is none: then an empty mask contradicts
        every class.

    Returns:
      ``(batch,)`` bool.
    """
    empty = ~jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    return empty != _is(normal, class_id)


def _is(normal: int | None, class_id: jax.Array) -> jax.Array:
    return jnp.zeros_like(class_id, bool) if normal is None else class_id == normal


def refine(
    mask: jax.Array, class_logits: jax.Array, *, normal: int | None = types.NORMAL
) -> tuple[jax.Array, jax.Array]:
    """Empties the mask of an image classified normal; calls an image with an empty mask normal.

    Both rules look at the unrefined pair, so their order does not matter. Vectorised over the
    batch, without branches, so it can be jitted.

    Args:
      mask: ``(batch, height, width, ...)`` bool, the thresholded segmentation.
      class_logits: ``(batch, classes)`` logits or probabilities.
      normal: code of the class "no lesion"; None if there is none: then nothing changes.

    Returns:
      The refined mask, same shape, bool, and the refined class, ``(batch,)`` int32.

    Raises:
      TypeError: for a mask that is not bool, such as probabilities: compare them with 1/2 first.
      ValueError: if the two do not hold the same number of images.
    """
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"the mask is {mask.dtype}, not bool: compare probabilities with 1/2")
    if class_logits.ndim != 2 or len(mask) != len(class_logits):
        raise ValueError(f"mask {mask.shape} and class_logits {class_logits.shape} do not fit")
    class_id = jnp.argmax(class_logits, axis=-1).astype(jnp.int32)
    if normal is None:
        return mask, class_id
    lesion = class_id != normal
    empty = ~jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    keep = lesion.reshape(lesion.shape + (1,) * (mask.ndim - 1))
    return mask & keep, jnp.where(empty, normal, class_id)


def refine_probable(
    probability: jax.Array,
    class_probability: jax.Array,
    lesion_odds: jax.Array,
    *,
    normal: int | None = types.NORMAL,
) -> tuple[jax.Array, jax.Array]:
    """The most probable coherent pair of mask and class.

    Mask and class are treated as independent evidence. With c_k the probability of class k and r
    the factor by which the mask raises the odds of a lesion, the pairs score

      (normal, no mask): c_normal        (k, mask): c_k · r for the lesion classes

    and the highest score wins (Bayes' rule; r = 1 if the mask says nothing). If a lesion wins
    although no pixel exceeds 1/2, the mask consists of the most probable pixels. Their number is
    the expected lesion area Σ p, at least one. Among equally probable pixels the first ones in
    reading order are taken. Vectorised over the batch, without branches, so it can be jitted.

    Args:
      probability: ``(batch, height, width, ...)`` float32, tumour probability of each pixel.
      class_probability: ``(batch, classes)`` float32, rows that sum to 1.
      lesion_odds: ``(batch,)`` float32 ≥ 0, r = q/(1 − q) · (1 − π)/π, with q the probability of a
        lesion judged by the mask alone and π the share of images with a lesion.
      normal: code of the class "no lesion"; None if there is none: then a lesion always wins.

    Returns:
      The refined mask, the shape of ``probability``, bool, and the refined class, ``(batch,)``
      int32.
    """
    probability = jnp.asarray(probability)
    flat = probability.reshape(len(probability), -1)
    codes = jnp.arange(class_probability.shape[-1])
    witness = jnp.where(_is(normal, codes), 1.0, lesion_odds[:, None])
    class_id = jnp.argmax(class_probability * witness, axis=-1).astype(jnp.int32)
    above = flat > 0.5
    count = jnp.clip(jnp.round(jnp.sum(flat, axis=-1)).astype(jnp.int32), 1, flat.shape[-1])
    falling = -jnp.sort(-flat, axis=-1)
    lowest = jnp.take_along_axis(falling, count[:, None] - 1, axis=-1)
    higher, tied = flat > lowest, flat == lowest
    room = count[:, None] - jnp.sum(higher, axis=-1, keepdims=True)
    most_probable = higher | (tied & (jnp.cumsum(tied, axis=-1) <= room))
    mask = jnp.where(jnp.any(above, axis=-1, keepdims=True), above, most_probable)
    mask = mask & ~_is(normal, class_id)[:, None]
    return mask.reshape(probability.shape), class_id
