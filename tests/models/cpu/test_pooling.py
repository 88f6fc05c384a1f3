"""Our own gradient of max-pool against lax's: ties, odd and non-square images, half precision."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbus_jax.models.cpu import pooling


def lax_pool(image):
    return nn.max_pool(image, window_shape=(2, 2), strides=(2, 2))


def value_and_gradient(function, image, gradient):
    value, pull = jax.vjp(function, image)
    return value, pull(gradient)[0]


def draw(shape, seed=0, values=None):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal(shape) if values is None else rng.choice(values, shape)
    batch, height, width, channels = shape
    gradient = rng.standard_normal((batch, height // 2, width // 2, channels))
    return image.astype(np.float32), gradient.astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 7, 4, 2), (2, 4, 9, 1), (1, 5, 5, 4)], ids=str)
# A few values only: most windows have several largest pixels, of which the first counts.
@pytest.mark.parametrize("values", [None, [0.0], [-1.0, 0.0, 2.0]], ids=str)
def test_equals_lax(shape, values):
    arrays = draw(shape, values=values)
    expected = value_and_gradient(lax_pool, *arrays)
    found = value_and_gradient(pooling.max_pool, *arrays)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_gradient_goes_to_the_first_of_equals():
    image = jnp.array([[1.0, 3.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
    _, by_image = value_and_gradient(pooling.max_pool, image, jnp.full((1, 1, 1, 1), 5.0))
    np.testing.assert_array_equal(by_image.reshape(2, 2), [[0, 5], [0, 0]])


def test_an_image_too_small_for_a_window():
    image, gradient = draw((2, 1, 4, 3))
    value, by_image = value_and_gradient(pooling.max_pool, image, gradient)
    assert value.shape == (2, 0, 2, 3)
    np.testing.assert_array_equal(by_image, np.zeros_like(image))


def test_half_precision_and_vmap():
    image, gradient = (jnp.asarray(each, jnp.bfloat16) for each in draw((3, 4, 6, 2)))
    found = value_and_gradient(pooling.max_pool, image, gradient)
    assert found[0].dtype == found[1].dtype == jnp.bfloat16
    expected = value_and_gradient(lax_pool, image, gradient)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    both = jax.vmap(lambda i, g: value_and_gradient(pooling.max_pool, i[None], g[None]))
    mapped = both(image, gradient)
    for each, alone in zip(mapped, found, strict=True):
        np.testing.assert_array_equal(each[:, 0], alone)


def test_double_precision_against_finite_differences():
    with jax.enable_x64(True):
        image, gradient = (each.astype(np.float64) for each in draw((1, 4, 6, 2)))
        _, by_image = value_and_gradient(pooling.max_pool, image, gradient)
        direction = np.random.default_rng(1).standard_normal(image.shape)
        step = 1e-7
        above, below = (pooling.max_pool(image + s * direction) for s in (step, -step))
        slope = np.sum(gradient * (above - below)) / (2 * step)
        assert np.sum(by_image * direction) == pytest.approx(float(slope), rel=1e-6)


def test_only_a_cpu_uses_it(monkeypatch):
    """Elsewhere it is lax's, which has the derivative forwards too."""
    image, _ = draw((1, 4, 6, 2))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(pooling.max_pool, (image,), (image,))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    value, slope = jax.jvp(pooling.max_pool, (image,), (image,))
    np.testing.assert_array_equal(value, lax_pool(image))
    np.testing.assert_array_equal(slope, value)  # of a pool along the image itself
