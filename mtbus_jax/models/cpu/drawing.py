"""Initialisers of weights, which can be drawn one by one or all at once.

XLA takes longer to compile a hundred small draws than a training step. `draw_together` merges them:
initialisers say how large a weight is and how it is distributed, and get a piece of one long
vector. `module.init` of any network here still draws weight by weight, as usual in Flax. Both use
the same distributions but draw different numbers.
"""

from __future__ import annotations

import contextvars
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


def _uniform(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, minval=-1)


# Distributions at scale 1.
_AT_SCALE_ONE = {"uniform": _uniform, "normal": jax.random.normal}


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Draws weights of mean 0 whose scale is √(gain / fan_in).

    Attributes:
      distribution: ``"uniform"``, where the scale is the bound, or ``"normal"``, where it is the
        standard deviation.
      gain: see above.
      fan_in: inputs of a unit; None takes the product of all axes of a weight but the last.
    """

    distribution: str
    gain: float = 1.0
    fan_in: int | None = None

    def __call__(
        self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
    ) -> jax.Array | _Wanted:
        """A weight, or a request for one within `draw_together`; called by Flax as usual."""
        scale = math.sqrt(self.gain / (self.fan_in or math.prod(shape[:-1])))
        if _together.get():
            return _Wanted(jnp.zeros(shape, dtype), self.distribution, scale)
        return _AT_SCALE_ONE[self.distribution](key, shape, dtype) * jnp.asarray(scale, dtype)


_together = contextvars.ContextVar("together", default=False)


class _Wanted(struct.PyTreeNode, nn.meta.AxisMetadata):
    """A weight that is not drawn yet; layers see the zeros, `draw_together` reads the rest."""

    zeros: jax.Array
    distribution: str = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False)

    def unbox(self) -> jax.Array:
        return self.zeros

    def replace_boxed(self, val: jax.Array) -> _Wanted:
        return self.replace(zeros=val)

    # nn.vmap and nn.scan add an axis to `zeros` themselves.
    def add_axis(self, index: int, params: dict) -> _Wanted:
        return self

    def remove_axis(self, index: int, params: dict) -> _Wanted:
        return self


def draw_together(init: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """``init(key)``, a network's initial variables, with few draws instead of one per weight.

    Args:
      init: such as ``module.init`` with its other arguments bound. Initialisers that are not an
        `Initializer` draw as usual.
      key: PRNG key.

    Returns:
      Variables like those of ``init``, with other numbers from the same distributions.
    """
    token = _together.set(True)
    try:
        variables = init(key)
    finally:
        _together.reset(token)
    leaves, tree = jax.tree.flatten(variables, is_leaf=lambda leaf: isinstance(leaf, _Wanted))
    for number, (distribution, draw) in enumerate(_AT_SCALE_ONE.items()):
        wanted = {
            i: leaf
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, _Wanted) and leaf.distribution == distribution
        }
        if not wanted:
            continue
        ends = np.cumsum([leaf.zeros.size for leaf in wanted.values()])
        drawn = draw(jax.random.fold_in(key, number), (ends[-1],), jnp.float32)
        for (i, leaf), piece in zip(wanted.items(), jnp.split(drawn, ends[:-1]), strict=True):
            scaled = piece * jnp.float32(leaf.scale)
            leaves[i] = scaled.reshape(leaf.zeros.shape).astype(leaf.zeros.dtype)
    return jax.tree.unflatten(tree, leaves)
