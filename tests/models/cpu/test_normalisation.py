"""Instance normalisation with its own gradient, against Flax's with JAX's; and when it is used."""

import functools

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import (
    assert_close,
    assert_networks_close,
    network_and_gradients,
)
from network_checks import quick_jit

from mtbus_jax.models import blocks
from mtbus_jax.models.cpu import normalisation

# Non-square; one pixel, whose variance is 0; so many pixels that one pass is made.
SHAPES = [(2, 5, 7, 3), (3, 1, 4, 2), (2, 1, 1, 4), (2, 64, 80, 3)]


def draw(shape, dtype=np.float64):
    rng = np.random.default_rng(sum(shape))
    image = rng.normal(0.3, rng.uniform(0.5, 2, shape[-1]), shape)
    weight, bias = rng.standard_normal((2, shape[-1]))
    return tuple(each.astype(dtype) for each in (image, weight, bias, rng.standard_normal(shape)))


def flax_norm(image, weight, bias):
    layer = nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False)
    return layer.apply({"params": {"scale": weight, "bias": bias}}, image)


def closed_form(image, weight, bias):
    mean = image.mean((1, 2), keepdims=True)
    variance = ((image - mean) ** 2).mean((1, 2), keepdims=True)
    return (image - mean) / np.sqrt(variance + 1e-5) * weight + bias


def value_and_gradients(function, image, weight, bias, gradient):
    @quick_jit
    def both(image, weight, bias, gradient):
        value, pull = jax.vjp(function, image, weight, bias)
        return value, *pull(gradient)

    return both(image, weight, bias, gradient)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_flax_in_double_and_single_precision(shape):
    with jax.enable_x64(True):
        arrays = draw(shape)
        exact = value_and_gradients(flax_norm, *arrays)
        if shape[1:3] == (1, 1):  # zeros that are not 0 only by rounding
            exact = [np.where(np.abs(each) < 1e-9, 0, each) for each in exact]
        found = value_and_gradients(normalisation.instance_norm, *arrays)
        assert_close(found, exact, 1e-11)
        # Without gradients.
        alone = jax.jit(normalisation.instance_norm)(*arrays[:3])
        assert_close([alone], [closed_form(*arrays[:3])], 1e-11)
    arrays = draw(shape, np.float32)
    found = value_and_gradients(normalisation.instance_norm, *arrays)
    alone = jax.jit(normalisation.instance_norm)(*arrays[:3])
    assert {each.dtype for each in (*found, alone)} == {np.dtype(np.float32)}
    assert_close([np.float64(each) for each in found], map(np.asarray, exact), 1e-5)
    assert_close([np.float64(alone)], map(np.asarray, exact[:1]), 1e-5)


def test_an_empty_image_and_an_empty_gradient():
    for shape in (SHAPES[0], SHAPES[3]):
        image, weight, bias, gradient = draw(shape, np.float32)
        value = jax.jit(normalisation.instance_norm)(0 * image, weight, bias)
        np.testing.assert_array_equal(value, np.broadcast_to(bias, shape))
        value, by_image, by_weight, by_bias = value_and_gradients(
            normalisation.instance_norm, 0 * image, weight, bias, gradient
        )
        np.testing.assert_array_equal(value, np.broadcast_to(bias, shape))
        assert by_image.any() and not by_weight.any() and by_bias.any()
        _, *slopes = value_and_gradients(
            normalisation.instance_norm, image, weight, bias, 0 * gradient
        )
        assert not any(each.any() for each in slopes)


@pytest.mark.parametrize("mean", [0.0, 3.0, 5.0, 200.0, 5000.0])
def test_digits_are_kept_where_the_mean_is_far_larger_than_the_deviation(mean):
    """Also in one channel of one image alone; one pass loses them, so a second is made."""
    shape = SHAPES[3]
    image, weight, bias, gradient = draw(shape, np.float32)
    rng = np.random.default_rng(0)
    image[1, :, :, 1] = mean + rng.standard_normal(shape[1:3])
    expected = closed_form(*(each.astype(np.float64) for each in (image, weight, bias)))
    # The numbers themselves have a rounding of 6e-8 of the mean.
    tolerance = 1e-5 + 2e-7 * mean
    found = np.float64(jax.jit(normalisation.instance_norm)(image, weight, bias))
    assert_close([found], [expected], tolerance)
    arrays = image, weight, bias, gradient
    with jax.enable_x64(True):
        exact = value_and_gradients(flax_norm, *(each.astype(np.float64) for each in arrays))
    found = value_and_gradients(normalisation.instance_norm, *arrays)
    assert_close([np.float64(each) for each in found], map(np.asarray, exact), tolerance)

    squares = np.mean(image**2, (1, 2), dtype=np.float32)
    means = np.mean(image, (1, 2), dtype=np.float32)
    variance = np.mean((image - means[:, None, None]) ** 2, (1, 2), dtype=np.float64)
    off = np.abs(squares - means**2 - variance) / variance
    # So the test would see a single pass.
    assert (off.max() > 1e-3) == (mean >= 200)


def test_not_a_number_stays_one():
    image, weight, bias, _ = draw(SHAPES[3], np.float32)
    image[0, 3, 4, 1] = np.nan
    found = np.isnan(jax.jit(normalisation.instance_norm)(image, weight, bias))
    assert found[0, ..., 1].all() and found.sum() == found[0, ..., 1].size


def test_vmap_and_second_derivatives():
    def slope(function, image, weight, bias):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(function(*a))), argnums=(0, 1, 2))(
            image, weight, bias
        )

    def curvature(function, *arrays):
        def squares(*arrays):
            return sum(jnp.sum(each**2) for each in slope(function, *arrays))

        return jax.grad(squares, argnums=(0, 1, 2))(*arrays)

    with jax.enable_x64(True):
        for shape in (SHAPES[0], SHAPES[3]):
            image, weight, bias, _ = draw(shape)
            images = np.stack([image, 2 * image[::-1] + 40])  # the second needs two passes
            own, theirs = (
                jax.jit(jax.vmap(f, in_axes=(0, None, None)))(images, weight, bias)
                for f in (normalisation.instance_norm, flax_norm)
            )
            assert_close([own], [theirs], 1e-11)
            for of in (slope, curvature):
                own, theirs = (
                    jax.jit(lambda *a, f=f, of=of: of(f, *a))(image, weight, bias)
                    for f in (normalisation.instance_norm, flax_norm)
                )
                assert_close(own, theirs, 1e-9)


def test_numbers_of_few_digits_accelerators_and_exports_take_flax(monkeypatch):
    image = jnp.zeros((1, 4, 4, 2))
    assert normalisation.applies(image)
    assert not normalisation.applies(image.astype(jnp.bfloat16))
    free = jax.export.symbolic_shape("batch")[0]
    assert not normalisation.applies(jax.ShapeDtypeStruct((free, 4, 4, 2), jnp.float32))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not normalisation.applies(image)


@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_has_the_parameters_of_flax(affine, monkeypatch):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, image):
            return blocks.instance_norm(image, affine=affine, name="norm")

    image = draw(SHAPES[0], np.float32)[0]
    variables = Layer().init(jax.random.key(0), image)
    own = Layer().apply(variables, image)
    monkeypatch.setattr(normalisation, "applies", lambda image: False)
    flax_variables = Layer().init(jax.random.key(0), image)
    jax.tree.map(np.testing.assert_array_equal, variables, flax_variables)
    assert_close([own], [np.asarray(Layer().apply(variables, image))], 1e-5)


class Levels(nn.Module):
    """Blocks of networks at two resolutions: norms of many pixels and of few."""

    @nn.compact
    def __call__(self, image, *, train):
        fine = blocks.ConvBlock(4, name="fine")(image)
        coarse = blocks.DownBlock(8, name="coarse")(fine)
        up = blocks.Upsample(4, name="up")(coarse)
        return blocks.ConvBlock(2, affine=False, name="joined")(fine, up)


def test_a_network_and_its_gradients_are_the_same_with_flax(monkeypatch):
    """MT UNet++ with this norm is held against PyTorch in test_registry.py."""
    module = Levels()
    variables = quick_jit(functools.partial(module.init, train=True))(
        jax.random.key(0), jnp.zeros((1, 64, 80, 1))
    )
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 80, 1))

    found = []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(normalisation, "applies", lambda image: False)
        both = network_and_gradients(module, variables, image)
        with jax.enable_x64(True):  # without gradients another rule is used
            params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
            alone = quick_jit(lambda p, i: module.apply({"params": p}, i, train=True))(
                params, image
            )
        found.append((both, alone))
    assert_networks_close(*found)
