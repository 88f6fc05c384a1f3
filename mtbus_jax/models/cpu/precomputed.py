"""What a network computes of its weights alone, computed once for any number of pictures.

For prediction on a CPU. `prepare` adds a collection to the variables of a network; where a layer
finds its part of it there, it reads that instead of its weights. Other networks, and other devices,
get their variables back as they are.
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

    Can be jitted. The weights stay in them: what is prepared takes about as much memory again.

    Args:
      module: the network.
      variables: of it.
      shape: ``(batch, height, width, channels)`` of the images; for others prepare again.
    """
    if jax.default_backend() != "cpu":
        return variables
    _, computed = module.apply(variables, jnp.zeros(shape), train=False, mutable=[COLLECTION])
    return {**variables, **computed}


def of(module: nn.Module, compute: Callable[[], T]) -> T | None:
    """What `prepare` kept for a layer, in its compact method; None in a network as it is.

    Args:
      module: the layer.
      compute: computes it, of the weights and of shapes alone.
    """
    known = module.has_variable(COLLECTION, _NAME)
    if module.is_initializing() or not (known or module.is_mutable_collection(COLLECTION)):
        return None
    return module.variable(COLLECTION, _NAME, compute).value
