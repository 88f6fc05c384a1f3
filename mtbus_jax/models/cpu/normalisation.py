"""Instance normalisation for a CPU, in few passes over memory.

Each channel of each image is scaled to mean 0 and variance 1 (Ulyanov et al. 2016, Instance
Normalization: The Missing Ingredient for Fast Stylization, arXiv:1607.08022), then multiplied by a
weight, and a bias is added.

The gradient has its own rule: two sums over pixels, then one pass that reads the image and the
gradient. With the gradient that JAX derives, XLA writes two more maps of that size.

Without gradients, as in prediction, mean and variance take one pass, from sums of numbers and of
their squares. That would lose digits where the mean is far larger than the deviation, so a second
pass is made there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-5
# From this many pixels on, one pass is made: with fewer, checking if it is allowed costs more.
_FEWEST_PIXELS = 64 * 64
# The smallest variance, as a multiple of the squared mean, that is taken from the sum of squares:
# their difference then keeps 24 − 4 of its 24 binary digits.
_SMALLEST_VARIANCE = 1 / 16


class _Moments(NamedTuple):
    """Mean and variance of each image's channels, ``(batch, 1, 1, channels)``."""

    mean: jax.Array
    variance: jax.Array


def applies(image: jax.Array) -> bool:
    """Whether `instance_norm` should be used instead of Flax's.

    The platform is JAX's default backend at tracing time.
    """
    # Not for a symbolic batch size, as in export, nor below float32, where sums lose digits.
    return (
        jax.default_backend() == "cpu"
        and isinstance(image.shape[0], int)
        and image.dtype in (jnp.float32, jnp.float64)
    )


@jax.custom_vjp
def instance_norm(image: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """(x − mean) / √(variance + 1e-5) · weight + bias, per image and channel.

    Args:
      image: ``(batch, height, width, channels)``, float32 or float64.
      weight: ``(channels,)``, same type.
      bias: ``(channels,)``, same type.

    Returns:
      Of the shape and type of ``image``.
    """
    height, width = image.shape[1:3]
    moments = _in_one_pass(image) if height * width >= _FEWEST_PIXELS else _in_two_passes(image)
    return _normalise(image, moments, weight, bias)


def _forward(image, weight, bias):
    moments = _in_two_passes(image)
    return _normalise(image, moments, weight, bias), (image, moments, weight)


def _backward(saved, gradient):
    image, (mean, variance), weight = saved
    pixels = image.shape[1] * image.shape[2]
    inverse = lax.rsqrt(variance + EPSILON)
    # Σ g and Σ g·x̂, x̂ the normalised image.
    sums = jnp.sum(gradient, (1, 2), keepdims=True)
    products = inverse * jnp.sum(gradient * (image - mean), (1, 2), keepdims=True)
    # weight / √(variance + ε) · (g − Σ g / n − x̂ · Σ g·x̂ / n)
    factor = inverse * weight
    of_image = factor * inverse * products / pixels
    return (
        gradient * factor - (image - mean) * of_image - factor * sums / pixels,
        products.sum((0, 1, 2)),
        sums.sum((0, 1, 2)),
    )


instance_norm.defvjp(_forward, _backward)


def _normalise(image, moments, weight, bias):
    factor = lax.rsqrt(moments.variance + EPSILON) * weight
    return (image - moments.mean) * factor + bias


def _in_two_passes(image: jax.Array) -> _Moments:
    mean = jnp.mean(image, (1, 2), keepdims=True)
    return _Moments(mean, jnp.mean(jnp.square(image - mean), (1, 2), keepdims=True))


def _in_one_pass(image: jax.Array) -> _Moments:
    """`_in_two_passes`; the second is made only where it is needed."""
    mean = jnp.mean(image, (1, 2), keepdims=True)
    variance = jnp.mean(image * image, (1, 2), keepdims=True) - jnp.square(mean)
    enough = jnp.all(variance >= _SMALLEST_VARIANCE * jnp.square(mean))
    return lax.cond(enough, lambda _: _Moments(mean, variance), _in_two_passes, image)
