"""Modulated deformable convolution, and enlarging with aligned corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import FIXTURES, quick_jit

from mtbus_jax.models import deformable, resampling
from mtbus_jax.models.deformable import DeformableConvolution

# Compiled, because one program per shape is quicker than its operations one by one.
deformable_convolution = jax.jit(deformable.deformable_convolution)

ARGUMENTS = ("image", "offsets", "modulation", "kernel")


@pytest.fixture(scope="module")
def original():
    with np.load(FIXTURES / "deformable.npz") as stored:
        return dict(stored)


def drawn(*, batch=2, height=4, width=6, channels=3, features=2, spread=1.5):
    """Arguments in double precision; with this spread many places lie outside."""
    rng = np.random.default_rng(1)
    pixels = (batch, height, width)
    return {
        "image": rng.normal(size=(*pixels, channels)),
        "offsets": rng.normal(0, spread, (*pixels, 18)),
        "modulation": rng.uniform(0, 1, (*pixels, 9)),
        "kernel": rng.normal(size=(3, 3, channels, features)),
    }


def at(image: np.ndarray, row: int, col: int) -> np.ndarray:
    """A pixel of ``(height, width, channels)``, zeros outside."""
    inside = 0 <= row < image.shape[0] and 0 <= col < image.shape[1]
    return image[row, col] if inside else np.zeros(image.shape[2])


def directly(image, offsets, modulation, kernel):
    """The definition, pixel by pixel and place by place."""
    batch, height, width, _ = image.shape
    result = np.zeros((batch, height, width, kernel.shape[3]))
    for b, y, x in np.ndindex(batch, height, width):
        for k, (i, j) in enumerate(np.ndindex(3, 3)):
            row = y + i - 1 + offsets[b, y, x, k]
            col = x + j - 1 + offsets[b, y, x, 9 + k]
            top, left = int(np.floor(row)), int(np.floor(col))
            down, right = row - top, col - left
            value = (
                (1 - down) * (1 - right) * at(image[b], top, left)
                + (1 - down) * right * at(image[b], top, left + 1)
                + down * (1 - right) * at(image[b], top + 1, left)
                + down * right * at(image[b], top + 1, left + 1)
            )
            result[b, y, x] += modulation[b, y, x, k] * value @ kernel[i, j]
    return result


@pytest.mark.parametrize("spread", [0.3, 1.5, 40.0])
def test_it_is_its_definition(spread):
    arguments = drawn(spread=spread)
    expected = directly(**arguments)
    with jax.enable_x64(True):
        found = deformable_convolution(**arguments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    single = deformable_convolution(**{k: np.float32(v) for k, v in arguments.items()})
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-5)


def test_whole_offsets_shift_the_window():
    """Two rows down and one column to the left, at every pixel and place."""
    arguments = drawn(height=6, width=5)
    offsets = np.concatenate([np.full((2, 6, 5, 9), 2.0), np.full((2, 6, 5, 9), -1.0)], axis=-1)
    arguments |= {"offsets": offsets, "modulation": np.ones((2, 6, 5, 9))}
    shifted = np.zeros_like(arguments["image"])
    shifted[:, :-2, 1:] = arguments["image"][:, 2:, :-1]
    inside = (slice(None), slice(1, -1), slice(1, -1))  # whose windows see no cut-off border
    with jax.enable_x64(True):
        found = deformable_convolution(**arguments)
        expected = convolved(shifted, arguments["kernel"])
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=1e-12)


def convolved(image, kernel):
    return jax.lax.conv_general_dilated(
        image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_without_offsets_and_with_ones_it_is_a_convolution():
    """Value, and gradients of image and kernel."""
    arguments = drawn()
    image, kernel = arguments["image"], arguments["kernel"]
    offsets, ones = np.zeros_like(arguments["offsets"]), np.ones_like(arguments["modulation"])
    cotangent = np.random.default_rng(2).normal(size=(2, 4, 6, 2))
    with jax.enable_x64(True):
        ours, our_pull = jax.vjp(
            lambda i, k: deformable_convolution(i, offsets, ones, k), image, kernel
        )
        expected, pull = jax.vjp(convolved, image, kernel)
        for f, e in zip((ours, *our_pull(cotangent)), (expected, *pull(cotangent)), strict=True):
            np.testing.assert_allclose(f, e, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gradients_are_finite_differences(name):
    """Every element, in double precision; places outside and across the border are among them."""
    arguments = drawn(batch=1, height=3, width=4, channels=2)
    rows, cols = deformable.places(jnp.asarray(arguments["offsets"]), 3, 4)
    outside = (rows <= -1) | (rows >= 3) | (cols <= -1) | (cols >= 4)
    across = ~outside & ((rows < 0) | (rows > 2) | (cols < 0) | (cols > 3))
    assert outside.sum() > 10 and across.sum() > 10
    cotangent = np.random.default_rng(2).normal(size=(1, 3, 4, 2))
    with jax.enable_x64(True):

        @jax.jit
        def total(array):
            return jnp.sum(deformable_convolution(**arguments | {name: array}) * cotangent)

        array = arguments[name]
        found = np.asarray(jax.grad(total)(array))
        step = 1e-6
        expected = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            change = np.zeros_like(array)
            change[index] = step
            expected[index] = (total(array + change) - total(array - change)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    if name == "offsets":
        # An offset that points outside altogether changes nothing.
        both = np.asarray(outside)[0]
        assert np.all(found[0][..., :9][both] == 0) and np.all(found[0][..., 9:][both] == 0)
    assert np.mean(found != 0) > 0.3


def test_it_agrees_with_torchvision(original):
    """Values and gradients, with offsets that are whole, at the border and far outside."""
    with jax.enable_x64(True):
        arguments = [original[name] for name in ARGUMENTS]
        found, pull = jax.vjp(deformable_convolution, *arguments)
        gradients = pull(jnp.asarray(original["cotangent"]))
    np.testing.assert_allclose(found, original["result"], rtol=0, atol=1e-12)
    for name, gradient in zip(ARGUMENTS, gradients, strict=True):
        expected = original[f"grad:{name}"]
        assert np.any(expected)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12, err_msg=name)


def test_another_order_of_the_offsets_would_be_seen(original):
    with jax.enable_x64(True):
        arguments = {name: original[name] for name in ARGUMENTS}
        pairs = arguments["offsets"].reshape(2, 5, 7, 2, 9).swapaxes(-1, -2)
        arguments["offsets"] = pairs.reshape(2, 5, 7, 18)
        found = deformable_convolution(**arguments)
    assert np.abs(np.asarray(found) - original["result"]).max() > 0.1


def test_far_places_and_what_is_no_number():
    """Infinite offsets read zero; one that is not a number shows in its pixel and no other."""
    arguments = {k: np.float32(v) for k, v in drawn(batch=1, spread=0.3).items()}
    arguments["offsets"][0, 1, 2] = np.inf
    arguments["offsets"][0, 2, 1] = -1e30
    found, pull = jax.vjp(deformable_convolution, *(arguments[name] for name in ARGUMENTS))
    assert np.all(found[0, 1, 2] == 0) and np.all(found[0, 2, 1] == 0)
    assert all(np.isfinite(each).all() for each in pull(jnp.ones_like(found)))
    arguments["offsets"][0, 3, 4, 5] = np.nan
    found = deformable_convolution(**arguments)
    expected = np.zeros((4, 6), bool)
    expected[3, 4] = True
    np.testing.assert_array_equal(np.isnan(found).all(-1)[0], expected)


def test_places_are_exact_in_mixed_precision():
    """bfloat16 numbers leave out odd ones from 256 on."""
    offsets = jnp.zeros((1, 2, 300, 18), jnp.bfloat16)
    _, cols = deformable.places(offsets, 2, 300)
    np.testing.assert_array_equal(cols[0, 1, :, 4], np.arange(300))
    image = jnp.arange(600, dtype=jnp.bfloat16).reshape(1, 2, 300, 1)
    kernel = jnp.zeros((3, 3, 1, 1), jnp.bfloat16).at[1, 1].set(1)
    found = deformable_convolution(image, offsets, jnp.ones((1, 2, 300, 9), jnp.bfloat16), kernel)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, image)


def test_wrong_shapes_are_refused():
    arguments = drawn()
    with pytest.raises(ValueError, match="offsets"):
        deformable_convolution(**arguments | {"offsets": arguments["offsets"][..., :9]})
    with pytest.raises(ValueError, match="kernel"):
        deformable_convolution(**arguments | {"kernel": arguments["kernel"][:, :, :1]})


def test_the_layer_starts_near_half_a_convolution():
    """Offsets and modulation start from their biases alone."""
    layer = DeformableConvolution(5)
    image = jax.random.normal(jax.random.key(0), (2, 6, 8, 64))
    params = quick_jit(layer.init)(jax.random.key(1), image)["params"]
    assert not np.any(params["offsets"]["kernel"]) and not np.any(params["modulation"]["kernel"])
    assert params["kernel"].shape == (3, 3, 64, 5)
    bound = 1 / np.sqrt(9 * 64)
    for name in ("offsets", "modulation"):
        assert 0 < np.abs(params[name]["bias"]).max() <= bound
    quiet = jax.tree.map(jnp.zeros_like, params) | {"kernel": params["kernel"]}
    found = quick_jit(layer.apply)({"params": quiet}, image)
    np.testing.assert_allclose(found, convolved(image, params["kernel"]) / 2, atol=1e-5)


def test_the_layer_learns_its_offsets():
    """All three convolutions get a gradient, and the image through each of them."""
    layer = DeformableConvolution(4)
    image = jax.random.normal(jax.random.key(0), (1, 5, 7, 16))
    params = quick_jit(layer.init)(jax.random.key(1), image)["params"]
    slope = quick_jit(jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, image) ** 2)))
    gradients = slope(params)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


def test_doubling_agrees_with_pytorch(original):
    small, cotangent = original["small"], original["doubled_cotangent"]

    @quick_jit
    def both(small, cotangent):
        value, pull = jax.vjp(resampling.doubled, small)
        return value, *pull(cotangent)

    with jax.enable_x64(True):
        found, gradient = both(small, cotangent)
    np.testing.assert_allclose(found, original["doubled"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, original["grad:small"], rtol=0, atol=1e-12)
    single = resampling.doubled(np.float32(small))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, original["doubled"], rtol=0, atol=1e-6)


def test_doubling_keeps_corners_and_straight_lines():
    """A plane becomes the plane through the same corners; a single pixel is repeated."""
    rows, cols = np.mgrid[:6, :9].astype(np.float32)
    plane = (2 * rows - 3 * cols + 1)[None, ..., None]
    rows, cols = np.mgrid[:12, :18]
    expected = 2 * rows * 5 / 11 - 3 * cols * 8 / 17 + 1
    np.testing.assert_allclose(resampling.doubled(plane)[0, ..., 0], expected, atol=1e-5)
    one = jnp.full((1, 1, 1, 2), 3.0)
    np.testing.assert_array_equal(resampling.doubled(one), np.full((1, 2, 2, 2), 3.0))
