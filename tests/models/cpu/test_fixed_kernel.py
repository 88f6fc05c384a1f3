"""Convolutions with a kernel arranged beforehand, against lax's; and when which is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mtbus_jax.models.cpu import fixed_kernel, winograd

# batch, height, width, in, out.
SHAPES = {
    fixed_kernel.KERNEL_FIRST: [(1, 3, 5, 6, 30), (2, 1, 2, 9, 8), (1, 8, 8, 40, 128)],
    fixed_kernel.FOUR_ROWS: [(1, 4, 13, 96, 48), (2, 12, 7, 100, 60), (1, 16, 20, 192, 96)],
    fixed_kernel.PATCHES: [(1, 6, 5, 40, 50), (1, 8, 8, 96, 64)],
    fixed_kernel.PLAIN: [(2, 9, 7, 5, 6), (1, 16, 24, 1, 8), (1, 14, 14, 96, 48)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def draw(shape, dtype):
    batch, height, width, channels, out = shape
    rng = np.random.default_rng(sum(shape))
    image = rng.standard_normal((batch, height, width, channels)).astype(dtype)
    kernel = rng.standard_normal((3, 3, channels, out)).astype(dtype)
    return image, kernel


def plain(image, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return np.asarray(
        lax.conv_general_dilated(image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout)
    )


def with_arranged(image, kernel):
    arranged = fixed_kernel.arrange(jnp.asarray(kernel), image.shape)
    return jax.jit(fixed_kernel.convolve)(image, arranged)


@pytest.mark.parametrize("name, shape", CASES, ids=str)
def test_equals_lax_in_double_and_single_precision(name, shape):
    with jax.enable_x64(True):
        exact = plain(*draw(shape, np.float64))
        found = with_arranged(*draw(shape, np.float64))
    largest = np.abs(exact).max()
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-13 * largest)
    image, kernel = (a.astype(np.float32) for a in draw(shape, np.float64))
    assert list(fixed_kernel.arrange(kernel, image.shape)) == [name]
    found = with_arranged(image, kernel)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * largest)


def test_four_rows_at_a_time_keep_their_digits():
    """The error that winograd.py states, against double precision, and beside lax's own."""
    image, kernel = draw((1, 64, 48, 144, 48), np.float32)
    with jax.enable_x64(True):
        exact = plain(image.astype(np.float64), kernel.astype(np.float64))
    largest = np.abs(exact).max()
    found = jax.jit(winograd.convolution)(image, winograd.sums_of_kernel(jnp.asarray(kernel)))
    assert np.abs(np.asarray(found) - exact).max() < 3e-6 * largest


def test_a_constant_image_stays_constant_inside():
    """Sums of rows cancel: an instance norm of such a map would magnify what is left of them."""
    image = np.full((1, 8, 9, 96), 100, np.float32)
    _, kernel = draw((1, 8, 9, 96, 48), np.float32)
    inside = np.asarray(with_arranged(image, kernel))[0, 1:-1, 1:-1]
    exact = 100 * kernel.astype(np.float64).sum(axis=(0, 1, 2))
    scale = 100 * np.abs(kernel).sum(axis=(0, 1, 2))
    assert np.abs((inside - exact) / scale).max() < 1e-6


def test_multiplications_are_half_as_many():
    """By JAX's own count of a program's operations; the sums of rows are a small part of them."""

    def operations(function, *arrays):
        return jax.jit(function).lower(*arrays).cost_analysis()["flops"]

    image, kernel = draw((2, 16, 12, 64, 64), np.float32)
    own = operations(winograd.convolution, image, winograd.sums_of_kernel(jnp.asarray(kernel)))
    lax_own = operations(
        lambda i, k: lax.conv_general_dilated(
            i, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        image,
        kernel,
    )
    assert 0.45 < own / lax_own < 0.6
