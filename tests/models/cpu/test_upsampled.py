"""The convolution of an upsampled map that is never computed, against lax doing both."""

import functools
import operator

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from network_checks import quick_jit

from mtbus_jax import models
from mtbus_jax.models.cpu import upsampled

# batch, height and width before upsampling, its channels, channels after it, channels of the other
# maps, channels of the result. Non-square, a single row, a single pixel.
SHAPES = [
    (2, 3, 4, 5, 3, (6,), 7),
    (1, 5, 2, 4, 4, (3, 2), 2),
    (3, 1, 4, 2, 6, (1,), 5),
    (2, 1, 1, 3, 3, (4, 4, 4), 1),
]


def draw(shape, dtype=np.float32):
    batch, height, width, channels, features, others, out = shape
    rng = np.random.default_rng(batch + height)

    def normal(*size):
        return rng.standard_normal(size).astype(dtype)

    maps = [normal(batch, 2 * height, 2 * width, each) for each in others]
    up = upsampled.Upsampled(
        normal(batch, height, width, channels),
        normal(2, 2, features, channels),
        normal(features),
    )
    kernel = normal(3, 3, sum(others) + features, out)
    return (maps, up, kernel), normal(batch, 2 * height, 2 * width, out)


def with_lax(maps, up, kernel):
    """Upsampled, concatenated and convolved, by lax alone."""
    image = lax.conv_transpose(up.image, up.kernel, (2, 2), "VALID", transpose_kernel=True)
    if up.bias is not None:
        image += up.bias
    return lax.conv_general_dilated(
        jnp.concatenate([*maps, image], axis=-1),
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def value_and_gradients(function, arguments, gradient):
    @quick_jit
    def both(arguments, gradient):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(gradient)

    return both(arguments, gradient)


def assert_close(found, expected, tolerance):
    """Largest difference relative to the largest value."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype
        assert np.abs(f - e).max() <= tolerance * np.abs(e).max()


@pytest.fixture
def always(monkeypatch):
    """Small shapes are joined too."""
    monkeypatch.setattr(upsampled, "_pays", lambda up, out: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_lax_in_single_and_double_precision(always, shape, bias):
    def compare(dtype, tolerance):
        (maps, up, kernel), gradient = draw(shape, dtype)
        arguments = maps, up if bias else up._replace(bias=None), kernel
        expected = value_and_gradients(with_lax, arguments, gradient)
        found = value_and_gradients(upsampled.convolution_of_both, arguments, gradient)
        assert_close(found, expected, tolerance)

    compare(np.float32, 1e-5)
    with jax.enable_x64(True):
        compare(np.float64, 1e-13)


def test_bfloat16_gradients_are_summed_in_single_precision(always):
    (maps, up, kernel), gradient = draw((4, 16, 12, 4, 4, (4,), 4))
    cast = functools.partial(jax.tree.map, lambda each: jnp.asarray(each, jnp.bfloat16))
    arguments, gradient = cast((maps, up, kernel)), cast(gradient)
    found = value_and_gradients(upsampled.convolution_of_both, arguments, gradient)
    exact = jax.tree.map(lambda each: np.asarray(each, np.float32), (arguments, gradient))
    expected = value_and_gradients(with_lax, *exact)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert f.dtype == jnp.bfloat16
        # Eight bits of mantissa; a sum over 3,072 pixels in bfloat16 would lose far more.
        assert np.abs(np.asarray(f, np.float32) - e).max() <= 2e-2 * np.abs(e).max()


def test_vmap_over_everything_equals_one_after_the_other(always):
    drawn = [draw(SHAPES[0])[0] for _ in range(2)]
    drawn[1] = jax.tree.map(lambda each: each[..., ::-1], drawn[1])

    def loss(maps, up, kernel):
        return jnp.sum(jnp.sin(upsampled.convolution_of_both(maps, up, kernel)))

    gradients = jax.grad(loss, argnums=(0, 1, 2))
    together = jax.jit(jax.vmap(gradients))(*jax.tree.map(lambda *each: np.stack(each), *drawn))
    for i, arguments in enumerate(drawn):
        alone = jax.jit(gradients)(*arguments)
        assert_close(jax.tree.map(operator.itemgetter(i), together), alone, 1e-5)


def test_when_it_is_used(monkeypatch):
    used = []
    joint = upsampled.convolution_of_upsampled
    monkeypatch.setattr(
        upsampled, "convolution_of_upsampled", lambda *each: used.append(1) or joint(*each)
    )

    def is_used(batch, size, channels, features, out, factor=2):
        used.clear()
        shapes = (
            [jax.ShapeDtypeStruct((batch, factor * size, factor * size, out), jnp.float32)],
            upsampled.Upsampled(
                jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32),
                jax.ShapeDtypeStruct((factor, factor, features, channels), jnp.float32),
                None,
            ),
            jax.ShapeDtypeStruct((3, 3, out + features, out), jnp.float32),
        )
        found = jax.eval_shape(upsampled.convolution_of_both, *shapes)
        assert found.shape == (batch, factor * size, factor * size, out)
        return bool(used)

    assert is_used(2, 64, 48, 48, 24)  # rows 0 and 1 of MT UNet++ at 128×128
    assert is_used(2, 32, 96, 48, 48)
    assert not is_used(2, 16, 192, 96, 96)  # row 2: the joint kernel costs more
    assert not is_used(1, 64, 48, 4, 24)  # hardly any channels between: nothing to save
    assert not is_used(2, 64, 48, 48, 24, factor=4)
    (batch,) = jax.export.symbolic_shape("b")
    assert not is_used(batch, 64, 48, 48, 24)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not is_used(2, 64, 48, 48, 24)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("unetpp", {"width": 4}, (16, 32)),
        ("unetpp", {"width": 4, "head": "printed"}, (16, 32)),
        ("nnunet", {"width": 4}, (32, 64)),
        ("adityan", {"width": 4}, (16, 32)),
    ],
)
def test_networks_are_the_same_with_and_without(monkeypatch, name, options, size):
    module = models.create(name, **options)
    variables = models.init(module, jax.random.key(3), (*size, 1))
    image = np.random.default_rng(0).uniform(0, 255, (2, *size, 1))

    def loss(params):
        outputs = module.apply({"params": params}, image)
        return sum(jnp.mean(jnp.sin(each)) for each in jax.tree.leaves(outputs)), outputs

    def value_and_gradient(joined):
        monkeypatch.setattr(upsampled, "_pays", lambda up, out: joined)
        drawn = models.init(module, jax.random.key(3), (*size, 1))
        jax.tree.map(np.testing.assert_array_equal, drawn, variables)
        # In double precision: instance norm makes much of the rounding of 8 values.
        with jax.enable_x64(True):
            double = jax.tree.map(lambda each: np.asarray(each, np.float64), drawn["params"])
            return quick_jit(jax.value_and_grad(loss, has_aux=True))(double)

    (_, found), gradient = value_and_gradient(True)
    (_, expected), reference = value_and_gradient(False)
    assert_close(found, expected, 1e-11)
    scale = max(np.abs(each).max() for each in jax.tree.leaves(reference))
    for f, e in zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True):
        assert f.dtype == np.float64
        assert np.abs(f - e).max() <= 1e-11 * scale


# A factor of three has no joint kernel; the last map would take more multiplications with one.
@pytest.mark.parametrize("factor, channels, features", [(2, 6, 5), (3, 4, 4), (2, 40, 1)])
def test_arranged_beforehand_equals_lax(factor, channels, features):
    rng = np.random.default_rng(factor)
    up = upsampled.Upsampled(
        rng.standard_normal((2, 3, 4, channels)),
        rng.standard_normal((factor, factor, features, channels)),
        rng.standard_normal(features),
    )
    maps = [rng.standard_normal((2, 3 * factor, 4 * factor, each)) for each in (2, 1)]
    kernel = rng.standard_normal((3, 3, 3 + features, 9))
    with jax.enable_x64(True):
        arranged = upsampled.arrange(maps, up, kernel)
        assert ("up" in arranged) == (channels == 6)
        found = jax.jit(upsampled.convolution_with_arranged)(maps, up, arranged)
        expected = lax.conv_transpose(
            up.image, up.kernel, (factor, factor), "VALID", transpose_kernel=True
        )
        expected = jnp.concatenate([*maps, expected + up.bias], axis=-1)
        expected = lax.conv_general_dilated(
            expected, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
