"""A batch in two parts, so that a CPU has two things to do at a time.

XLA's CPU backend computes a convolution of few channels on one core, however many pixels it has,
and leaves the others to whatever does not depend on its result. In a forward pass at full
resolution that is nothing: one layer waits for the other. Two halves of a batch do not.

Only networks that treat images one by one may do so: not where statistics are taken over a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def cut(image: jax.Array) -> list[jax.Array]:
    """``(batch, …)`` as its first and its second half; as it is where that brings nothing.

    That is: except on a CPU, for a single image, and for a free batch size. The platform is JAX's
    default backend at tracing time.
    """
    batch = image.shape[0]
    if jax.default_backend() != "cpu" or not isinstance(batch, int) or batch < 2:
        return [image]
    return [image[: batch // 2], image[batch // 2 :]]


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """The batch that was `cut`."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
