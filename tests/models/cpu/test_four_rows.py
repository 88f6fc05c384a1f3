"""Winograd's convolution of four rows with its gradients, against lax's; and when it is used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import assert_close, value_and_gradients
from jax import lax
from network_checks import quick_jit

from mtbus_jax import models
from mtbus_jax.models.cpu import convolution, four_rows, winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
OWN = [four_rows.products_apart, four_rows.products_together]
# batch, height, width, in, out: non-square, either side the narrower, one column, four rows.
SHAPES = [(2, 8, 5, 3, 4), (1, 4, 7, 5, 3), (3, 12, 2, 4, 4), (1, 4, 1, 6, 5), (2, 16, 9, 50, 96)]


def plain(image, kernel):
    return lax.conv_general_dilated(
        image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
    )


def draw(shape, dtype=np.float64):
    batch, height, width, channels, out = shape
    rng = np.random.default_rng(sum(shape))
    shapes = (
        (batch, height, width, channels),
        (3, 3, channels, out),
        (batch, height, width, out),
    )
    return tuple(rng.standard_normal(each).astype(dtype) for each in shapes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("own", OWN)
def test_equals_lax_in_double_and_single_precision(own, shape):
    with jax.enable_x64(True):
        exact = value_and_gradients(plain, *draw(shape))
        assert_close(value_and_gradients(own, *draw(shape)), exact, 1e-13)
    found = value_and_gradients(own, *draw(shape, np.float32))
    assert all(each.dtype == np.float32 for each in found)
    assert_close([np.float64(each) for each in found], map(np.asarray, exact), 1e-5)


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("shape", [(2, 32, 24, 96, 48), (2, 8, 8, 384, 192)], ids=str)
def test_digits_are_kept_where_nothing_cancels(own, shape):
    """Sums over many pixels and channels of numbers around one."""
    arrays = [a + 1 for a in draw(shape)]
    with jax.enable_x64(True):
        exact = value_and_gradients(plain, *arrays)
    found = value_and_gradients(own, *(a.astype(np.float32) for a in arrays))
    assert_close([np.float64(each) for each in found], map(np.asarray, exact), 5e-6)


@pytest.mark.parametrize("own", OWN)
def test_an_empty_image_and_an_empty_gradient(own):
    image, kernel, gradient = draw((1, 4, 6, 5, 4), np.float32)
    value, by_image, by_kernel = value_and_gradients(own, 0 * image, kernel, gradient)
    assert not value.any() and not by_kernel.any() and by_image.any()
    value, by_image, by_kernel = value_and_gradients(own, image, kernel, 0 * gradient)
    assert value.any() and not by_image.any() and not by_kernel.any()


@pytest.mark.parametrize("own", OWN)
def test_vmap_over_kernels_and_second_derivatives(own):
    with jax.enable_x64(True):
        image, kernel, gradient = draw((2, 8, 5, 3, 4))
        kernels = np.stack([kernel, kernel - 1])
        one = functools.partial(value_and_gradients, own)
        found = jax.vmap(one, in_axes=(None, 0, None))(image, kernels, gradient)
        expected = [value_and_gradients(plain, image, each, gradient) for each in kernels]
        assert_close(found, [np.stack(each) for each in zip(*expected, strict=True)], 1e-13)

        def slope(function, image, kernel):
            return jnp.sum(jax.grad(lambda k: jnp.sum(jnp.sin(function(image, k))))(kernel) ** 2)

        found, expected = (
            quick_jit(jax.grad(functools.partial(slope, function), argnums=(0, 1)))(image, kernel)
            for function in (own, plain)
        )
        assert_close(found, expected, 1e-12)


STEPS = [
    (winograd.sums_of_kernel, winograd.transpose_of_sums_of_kernel, (3, 3, 4, 5)),
    (winograd.sums_of_image, winograd.transpose_of_sums_of_image, (2, 8, 3, 5)),
    (winograd.rows_of_result, winograd.transpose_of_rows_of_result, (6, 2, 2, 3, 5)),
]


@pytest.mark.parametrize("step, transpose, shape", STEPS)
def test_transposes_by_their_definition(step, transpose, shape):
    """⟨Ax, y⟩ = ⟨x, Aᵀy⟩."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        x = rng.standard_normal(shape)
        result = jnp.asarray(step(x))
        y = rng.standard_normal(result.shape)
        back = jnp.asarray(transpose(jnp.asarray(y)))
        assert back.shape == shape
        np.testing.assert_allclose(jnp.vdot(result, y), jnp.vdot(x, back), rtol=1e-12)


@pytest.mark.parametrize("own", OWN)
def test_value_and_gradients_take_half_as_many_multiplications(own):
    """By JAX's own count of a program's operations; the sums of rows are a small part of them."""
    image, kernel, gradient = draw((2, 16, 16, 256, 192), np.float32)

    def operations(function):
        @jax.jit
        def both(image, kernel):
            value, pull = jax.vjp(function, image, kernel)
            return value, pull(gradient)

        return both.lower(image, kernel).cost_analysis()["flops"]

    assert 0.45 < operations(own) / operations(plain) < 0.6


def test_which_convolution_is_used(monkeypatch):
    def rule(shape, dtype=np.float32, **options):
        image, kernel, _ = (jnp.asarray(each, dtype) for each in draw(shape))
        return convolution.rule(
            image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT, **options
        )

    apart, together = (2, 32, 32, 96, 48), (2, 16, 16, 96, 96)
    assert rule(apart) is rule((2, 32, 32, 48, 96)) is four_rows.products_apart
    assert rule(together) is four_rows.products_together
    # Too few channels on either side, a height that four does not divide, few digits, a kernel
    # that is large beside its image.
    assert rule((2, 32, 32, 48, 48)) is convolution.convolution_3x3
    assert rule((2, 32, 32, 200, 40)) is convolution.convolution_3x3
    assert rule((2, 30, 32, 96, 48)) is convolution.convolution_3x3
    assert rule(apart, jnp.bfloat16) is convolution.convolution_3x3
    assert rule((1, 4, 4, 96, 96)) is convolution.patches_convolution
    with jax.enable_x64(True):
        assert rule(apart, np.float64) is four_rows.products_apart
    assert rule(apart, precision=lax.Precision.HIGHEST) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rule(apart) is None


@pytest.mark.long
def test_gradients_of_a_network_are_those_without_it(monkeypatch):
    """MT UNet++ as published, rows 1 to 4 of which have such convolutions, in double precision."""
    with jax.enable_x64(True):
        image = np.random.default_rng(0).uniform(0, 255, (2, 64, 32, 1))
        net = models.create("unetpp")
        variables = models.init(net, jax.random.key(0), image.shape[1:])
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)

        def gradients():
            def loss(variables):
                outputs = net.apply(variables, image)
                maps = sum(jnp.mean(jnp.sin(each)) for each in outputs.segmentation)
                return maps + jnp.sum(outputs.class_logits**2)

            return quick_jit(jax.grad(loss))(variables)

        found = gradients()
        monkeypatch.setattr(four_rows, "rule", lambda image, kernel: None)
        expected = gradients()
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    for f, e in pairs:
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-9 * max(np.abs(e).max(), 1e-9))
    # Its sums round otherwise: these were two programs.
    assert any((f != e).any() for f, e in pairs)
