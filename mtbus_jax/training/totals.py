"""Sums over the images of an epoch, from which its means are computed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtbus_jax import losses, types


class Totals(NamedTuple):
    """Sums over images, for the means of an epoch; all scalars, float32.

    Attributes:
      loss: total loss.
      segmentation: its part for the masks, the deep-supervision Dice loss.
      classification: its part for the classes, the focal loss.
      reconstruction: its part for the reconstructed input, 0 for networks without one.
      dice: Dice coefficient of the thresholded finest map (1 if both masks are empty).
      correct: images classified correctly.
      count: images.
      masks: images whose mask is known.
      labels: images whose label is known.
      finite: training steps up to the first whose loss is not finite.
    """

    loss: jax.Array
    segmentation: jax.Array
    classification: jax.Array
    reconstruction: jax.Array
    dice: jax.Array
    correct: jax.Array
    count: jax.Array
    masks: jax.Array
    labels: jax.Array
    finite: jax.Array = 0.0

    @classmethod
    def zero(cls) -> Totals:
        """The empty sum."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))

    def means(self) -> dict[str, float]:
        """Means over the images whose truth is known, as Python floats (reads the device)."""
        values = dict(zip(self._fields, map(float, jax.device_get(self)), strict=True))
        values.pop("finite")
        counts = (max(values.pop(name), 1.0) for name in ("count", "masks", "labels"))
        images, masks, labels = counts
        values["accuracy"] = values.pop("correct")
        divisors = dict.fromkeys(("segmentation", "dice"), masks)
        divisors |= dict.fromkeys(("classification", "accuracy"), labels)
        return {name: value / divisors.get(name, images) for name, value in values.items()}


def sums_of(outputs: types.Outputs, batch: types.Batch, parts: losses.LossParts) -> Totals:
    """Sums of one batch; ``parts`` are sums over the batch divided by the global count."""
    dice = correct = jnp.zeros((), jnp.float32)
    with_mask, with_label = (
        batch.valid if known is None else batch.valid * known
        for known in (batch.mask_known, batch.label_known)
    )
    if outputs.segmentation:
        predicted = jax.nn.sigmoid(outputs.segmentation[0]) > types.MASK_THRESHOLD
        truth = batch.mask > 0
        overlap = jnp.sum(predicted & truth, axis=(1, 2, 3))
        size = jnp.sum(predicted, axis=(1, 2, 3)) + jnp.sum(truth, axis=(1, 2, 3))
        per_image = jnp.where(size == 0, 1.0, 2 * overlap / jnp.maximum(size, 1))
        dice = jnp.sum(per_image * with_mask)
    if outputs.class_logits is not None:
        hit = jnp.argmax(outputs.class_logits, axis=-1) == batch.label
        correct = jnp.sum(hit * with_label)
    counts = (jnp.sum(each) for each in (batch.valid, with_mask, with_label))
    return Totals(*parts, dice, correct, *counts)
