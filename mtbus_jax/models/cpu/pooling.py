"""2×2 max-pool whose gradient is computed by comparisons instead of a search.

XLA's CPU backend implements that gradient as a search for the index of each maximum, over four
arrays of coordinates as large as the image, and a scatter.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))


def max_pool(image: jax.Array) -> jax.Array:
    """2×2 max-pool with stride 2; an odd last row or column is dropped.

    A CPU uses the gradient rule of this module, other platforms Flax's own function. The platform
    is JAX's default backend at tracing time.

    Args:
      image: ``(batch, height, width, channels)``.

    Returns:
      ``(batch, height // 2, width // 2, channels)``.
    """
    return _with_own_gradient(image) if jax.default_backend() == "cpu" else _plain(image)


def _plain(image: jax.Array) -> jax.Array:
    return nn.max_pool(image, window_shape=(2, 2), strides=(2, 2))


@jax.custom_vjp
def _with_own_gradient(image: jax.Array) -> jax.Array:
    return _plain(image)


def _forward(image):
    pooled = _plain(image)
    return pooled, (image, pooled)


def _backward(saved, gradient):
    """Gives the gradient to the first of the largest pixels, row by row, as lax and PyTorch do."""
    image, pooled = saved
    height, width = (2 * length for length in pooled.shape[1:3])
    windows = image[:, :height, :width].reshape(
        image.shape[0], height // 2, 2, width // 2, 2, image.shape[3]
    )

    def each(per_window):
        return jnp.expand_dims(per_window, (2, 4))

    receives = windows == each(pooled)
    for row, column in _POSITIONS[:-1]:
        earlier = each(windows[:, :, row, :, column] == pooled)
        later = np.array([[(i, j) > (row, column) for j in (0, 1)] for i in (0, 1)])
        receives &= ~(earlier & later[:, None, :, None])
    by_image = jnp.where(receives, each(gradient), 0).reshape(
        image.shape[0], height, width, image.shape[3]
    )
    dropped = ((0, 0), (0, image.shape[1] - height), (0, image.shape[2] - width), (0, 0))
    return (jnp.pad(by_image, dropped),)


_with_own_gradient.defvjp(_forward, _backward)
