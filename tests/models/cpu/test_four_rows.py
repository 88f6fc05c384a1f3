"""Winograd's convolution of four rows with its gradients, against lax's; and when it is used."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import assert_close, value_and_gradients
from jax import lax

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
            jax.grad(functools.partial(slope, function), argnums=(0, 1))(image, kernel)
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


def test_value_and_gradients_take_half_as_many_multiplications():
    """By the shapes of the products."""
    image, kernel, gradient = draw((2, 8, 10, 6, 7), np.float32)
    text = jax.make_jaxpr(
        lambda *arrays: jax.vjp(four_rows.products_together, *arrays)[1](gradient)
    )(image, kernel)
    found = 0
    for equation in text.eqns:
        if equation.primitive.name == "dot_general" and len(equation.invars[0].aval.shape) == 3:
            ((summed, _), _) = equation.params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[i] for i in summed)
            found += math.prod(equation.outvars[0].aval.shape) * terms
    direct = 3 * image.size * 9 * gradient.shape[-1]
    assert 2 * found == direct


def uses(shape, dtype=np.float32, **options) -> str:
    """Which of our convolutions the drop-in for lax's calls."""
    image, kernel, _ = draw(shape)
    text = str(
        jax.make_jaxpr(
            lambda i, k: convolution.conv_general_dilated(
                i, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT, **options
            )
        )(jnp.asarray(image, dtype), jnp.asarray(kernel, dtype))
    )
    names = ("products_apart", "products_together", "convolution_3x3")
    return next((name for name in names if name in text), "other")


def test_which_convolution_is_used(monkeypatch):
    apart, together = (2, 32, 32, 96, 48), (2, 16, 16, 96, 96)
    assert uses(apart) == uses((2, 32, 32, 48, 96)) == "products_apart"
    assert uses(together) == "products_together"
    # Too few channels on either side, a height that four does not divide, few digits, a kernel
    # that is large beside its image.
    assert uses((2, 32, 32, 48, 48)) == "convolution_3x3"
    assert uses((2, 32, 32, 200, 40)) == "convolution_3x3"
    assert uses((2, 30, 32, 96, 48)) == "convolution_3x3"
    assert uses(apart, jnp.bfloat16) == "convolution_3x3"
    assert uses((1, 4, 4, 96, 96)) == "other"
    with jax.enable_x64(True):
        assert uses(apart, np.float64) == "products_apart"
    assert uses(apart, precision=lax.Precision.HIGHEST) == "other"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert uses(apart) == "other"


def test_gradients_of_a_network_are_those_without_it(monkeypatch):
    """MT UNet++ as published, rows 1 to 4 of which have such convolutions, in double precision."""
    with jax.enable_x64(True):
        image = np.random.default_rng(0).uniform(0, 255, (2, 64, 32, 1))
        net = models.create("unetpp")
        variables = jax.jit(net.init)(jax.random.key(0), image.astype(np.float32))
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)

        def gradients():
            def loss(variables):
                outputs = net.apply(variables, image)
                maps = sum(jnp.mean(jnp.sin(each)) for each in outputs.segmentation)
                return maps + jnp.sum(outputs.class_logits**2)

            return jax.jit(jax.grad(loss))(variables)

        called = []
        own = four_rows.convolution
        monkeypatch.setattr(
            four_rows, "convolution", lambda i, k: called.append(k.shape) or own(i, k)
        )
        found = gradients()
        assert {(3, 3, 144, 48), (3, 3, 192, 96), (3, 3, 96, 96)} <= set(called)
        monkeypatch.setattr(four_rows, "pays", lambda image, kernel: False)
        expected = gradients()
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-9 * max(np.abs(e).max(), 1e-9))
