"""Depthwise convolutions by shifted products, against XLA's grouped convolution and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import value_and_gradients

from mtbus_jax.models.cpu import depthwise


def grouped(image, kernel, stride):
    return jax.lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=image.shape[-1],
    )


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(3, 8, 14, 5), (1, 7, 9, 2), (2, 1, 4, 3), (1, 5, 1, 1)])
def test_value_and_gradients_equal_xlas_convolution(size, stride, shape):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        image = jnp.asarray(rng.normal(size=shape))
        kernel = jnp.asarray(rng.normal(size=(size, size, 1, shape[-1])))
        reference = functools.partial(grouped, stride=stride)
        weight = rng.normal(size=jax.eval_shape(reference, image, kernel).shape)
        ours = functools.partial(depthwise.depthwise_convolution, stride=stride)
        found = value_and_gradients(ours, image, kernel, weight)
        expected = value_and_gradients(reference, image, kernel, weight)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_padding_is_tensorflows_same():
    """Stride 2 on an even size: 3 taps start at the first pixel, 5 taps one before it."""
    image = jnp.arange(1.0, 7.0).reshape(1, 1, 6, 1)
    for size, first in ((3, [1, 3, 5]), (5, [0, 2, 4])):
        kernel = jnp.zeros((size, size, 1, 1)).at[size // 2, 0].set(1.0)
        found = depthwise.depthwise_convolution(image, kernel, stride=2)
        np.testing.assert_array_equal(found.ravel(), first)


def test_single_precision_and_many_pixels():
    rng = np.random.default_rng(1)
    image = jnp.asarray(rng.normal(size=(4, 64, 48, 8)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(5, 5, 1, 8)), jnp.float32)

    def gradient(function, kernel):
        return jax.grad(lambda k: (function(image.astype(k.dtype), k) ** 2).sum())(kernel)

    found = gradient(lambda i, k: depthwise.depthwise_convolution(i, k), kernel)
    with jax.enable_x64(True):
        expected = gradient(lambda i, k: grouped(i, k, 1), jnp.asarray(np.float64(kernel)))
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))
