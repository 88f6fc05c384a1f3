"""Comparing an operation, or a network that is made of it, with another: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from network_checks import quick_jit


def value_and_gradients(function, image, kernel, gradient):
    """The result of ``function(image, kernel)``, and its gradients with that of the result."""

    @quick_jit
    def both(image, kernel, gradient):
        value, pull = jax.vjp(function, image, kernel)
        return value, *pull(gradient)

    return both(image, kernel, gradient)


def assert_close(found, expected, tolerance):
    """Largest difference relative to the largest value; the types are the same too."""
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype
        assert np.abs(f - e).max() <= tolerance * np.abs(e).max()


def network_and_gradients(module, variables, image):
    """Outputs of a network, and gradients of a function of them, in double precision.

    An instance norm of few pixels magnifies rounding, so not in single precision.
    """

    def outputs(params, image):
        out = module.apply({"params": params}, image, train=True)
        return sum(jnp.sum(jnp.sin(each)) for each in jax.tree.leaves(out)), out

    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
        return quick_jit(jax.value_and_grad(outputs, has_aux=True))(params, image)


def assert_networks_close(found, expected):
    """Of trees of arrays in double precision."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-8 * max(np.abs(e).max(), 1e-3))
