"""How a run changes its training images: one of the methods, and what is added to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtbus_jax import augment

# Folded into an image's key; the methods split theirs into fewer.
_ELASTIC, _SPECKLE = 1000, 1001


def of_run(train: Any) -> Callable | None:
    """The augmentation of a run: its method, then an elastic warp and speckle where it adds them.

    Args:
      train: with ``augment``, ``augmentation``, ``rotation_fill``, ``elastic`` and ``speckle``, as
        in a configuration. The last two are the probabilities that an image is also warped or
        speckled.

    Returns:
      (key, image, mask) → (image, mask); None without augmentation.
    """
    if not train.augment:
        return None
    method = functools.partial(augment.METHODS[train.augmentation], fill=train.rotation_fill)
    if not (train.elastic or train.speckle):
        return method

    def augmented(key, image, mask):
        image, mask = method(key, image, mask)
        if train.elastic:
            asked, drawn = jax.random.split(jax.random.fold_in(key, _ELASTIC))
            is_warped = jax.random.bernoulli(asked, train.elastic)
            new = augment.warped(drawn, image, mask, fill=train.rotation_fill)
            image, mask = (
                jnp.where(is_warped, *each) for each in zip(new, (image, mask), strict=True)
            )
        if train.speckle:
            asked, drawn = jax.random.split(jax.random.fold_in(key, _SPECKLE))
            is_speckled = jax.random.bernoulli(asked, train.speckle)
            image = jnp.where(is_speckled, augment.speckled(drawn, image), image)
        return image, mask

    return augmented
