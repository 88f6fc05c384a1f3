"""Computes once, for any number of pictures, what depends only on the weights of a network.

For prediction on a CPU. `prepare` adds a collection to the variables of a network. A layer that
finds its part there reads it instead of its weights. For other networks, and on other devices,
the variables are returned unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

COLLECTION = "prepared"
_NAME = "arranged"

T = TypeVar("T")


def prepare(module: nn.Module, variables: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables with which a network is faster and returns the same to float tolerance.

    Can be jitted. The weights are kept, and what is added takes about as much memory again.

    Args:
      module: the network.
      variables: its variables.
      shape: ``(batch, height, width, channels)`` of the images; prepare again for other shapes.
    """
    if jax.default_backend() != "cpu":
        return variables
    _, computed = module.apply(variables, jnp.zeros(shape), train=False, mutable=[COLLECTION])
    return {**variables, **computed}


def of(module: nn.Module, compute: Callable[[], T]) -> T | None:
    """What `prepare` stored for a layer, for use in its compact method; None if not prepared.

    Args:
      module: the layer.
      compute: computes it from weights and shapes alone.
    """
    known = module.has_variable(COLLECTION, _NAME)
    if module.is_initializing() or not (known or module.is_mutable_collection(COLLECTION)):
        return None
    return module.variable(COLLECTION, _NAME, compute).value
