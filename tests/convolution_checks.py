"""Comparing a convolution with another, values and gradients."""

import jax
import numpy as np


def value_and_gradients(function, image, kernel, gradient):
    """The result of ``function(image, kernel)``, and its gradients with that of the result."""

    @jax.jit
    def both(image, kernel, gradient):
        value, pull = jax.vjp(function, image, kernel)
        return value, *pull(gradient)

    return both(image, kernel, gradient)


def assert_close(found, expected, tolerance):
    """Largest difference relative to the largest value; the types are the same too."""
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype
        assert np.abs(f - e).max() <= tolerance * np.abs(e).max()
