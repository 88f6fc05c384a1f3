"""The order of channels in stored weights, and conversion from the former order to the current one.

The released head of MT UNet++ (`unetpp`, both tasks) concatenates the maps of encoder, bottleneck
and decoder; before order 2 it was encoder, decoder, bottleneck. The shapes are the same, so a
checkpoint records its order, see `checkpoint`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

# The order of the networks in this package. A checkpoint that names none has order 1.
CURRENT = 2

_KERNEL = ("head_block", "conv_1", "kernel")
_DECODER_NODE = "node_3_1"


def to_current(tree: Any, order: int) -> Any:
    """Converts stored arrays to the current order; the network computes the same, up to rounding.

    Args:
      tree: tree of arrays, the variables of a network. Leading axes of a kernel are kept.
      order: order of these arrays.

    Returns:
      The converted tree. If the order is already the current one, or no head in the tree reads
      encoder and decoder, its arrays are those of ``tree``.

    Raises:
      ValueError: for an order that does not exist.
    """
    if order not in (1, CURRENT):
        raise ValueError(f"weights have the channel order {order}; 1 and {CURRENT} are known")
    paths = [_names(path) for path, _ in jax.tree.leaves_with_path(tree)]
    # Without the decoder the head reads two maps, encoder and bottleneck, as it did before.
    if order == CURRENT or not any(_DECODER_NODE in names for names in paths):
        return tree

    def reorder(path, array):
        if _names(path)[-3:] != _KERNEL:
            return array
        # (..., height, width, in, out): ``in`` is three maps with equally many channels.
        encoder, decoder, bottleneck = jnp.split(array, 3, axis=-2)
        return jnp.concatenate([encoder, bottleneck, decoder], axis=-2)

    return jax.tree.map_with_path(reorder, tree)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A leaf's path as strings: keys of dictionaries and names of fields alike."""
    return tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
