"""Our own convolutions against lax's, values and gradients; and when which is used."""

import functools
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import assert_close, value_and_gradients
from jax import lax

from mtbus_jax.models.cpu import convolution, transposed
from mtbus_jax.runtime import host_memory

LAYOUT = ("NHWC", "HWIO", "NHWC")
PADDING = ((1, 1), (1, 1))
plain = functools.partial(
    lax.conv_general_dilated, window_strides=(1, 1), padding=PADDING, dimension_numbers=LAYOUT
)

# batch, height, width, in, out: non-square, widths that four, two and no pixels divide, either side
# the narrower, a single row, a single pixel.
SHAPES = [
    (2, 6, 8, 5, 7),
    (1, 5, 12, 8, 4),
    (3, 4, 6, 4, 4),
    (2, 7, 9, 6, 5),
    (2, 1, 8, 4, 6),
    (1, 1, 1, 4, 4),
    (1, 3, 4, 70, 100),
    (1, 4, 2, 200, 193),
    (2, 5, 6, 50, 50),
]


def draw(shape, dtype=np.float32):
    batch, height, width, channels, out = shape
    rng = np.random.default_rng(sum(shape))
    image = rng.standard_normal((batch, height, width, channels)).astype(dtype)
    kernel = rng.standard_normal((3, 3, channels, out)).astype(dtype)
    gradient = rng.standard_normal((batch, height, width, out)).astype(dtype)
    return image, kernel, gradient


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("own", [convolution.convolution_3x3, convolution.patches_convolution])
def test_equals_lax_in_single_and_double_precision(own, shape):
    arrays = draw(shape)
    expected = value_and_gradients(plain, *arrays)
    assert_close(value_and_gradients(own, *arrays), expected, 1e-5)
    with jax.enable_x64(True):
        arrays = draw(shape, np.float64)
        expected = value_and_gradients(plain, *arrays)
        assert_close(value_and_gradients(own, *arrays), expected, 1e-13)


# Fewer channels on either side; as many, and of those so many that they are treated as the others.
@pytest.mark.parametrize("channels, out", [(3, 6), (6, 3), (5, 5), (50, 50)])
def test_weight_gradient_by_its_definition(channels, out):
    image, _, gradient = draw((2, 5, 8, channels, out))
    found = convolution.weight_gradient(jnp.asarray(image), jnp.asarray(gradient))
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in range(3):
        for j in range(3):
            shifted = padded[:, i : i + 5, j : j + 8]
            expected = np.einsum("bhwc,bhwo->co", shifted, gradient)
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out", [4, 5])
def test_weight_gradient_of_many_pixels_keeps_its_digits(out):
    image, _, gradient = draw((8, 128, 128, 4, out))
    image += 1  # a sum whose parts do not cancel
    gradient += 1
    found = convolution.weight_gradient(jnp.asarray(image), jnp.asarray(gradient))
    padded = np.pad(image.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in range(3):
        for j in range(3):
            shifted = padded[:, i : i + 128, j : j + 128]
            expected = np.einsum("bhwc,bhwo->co", shifted, gradient.astype(float), optimize=True)
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-5)


@pytest.mark.parametrize("out", [8, 9])
def test_bfloat16_gradients_are_summed_in_single_precision(out):
    image, kernel, gradient = (jnp.asarray(a, jnp.bfloat16) for a in draw((2, 32, 32, 8, out)))
    found = convolution.weight_gradient(image, gradient)
    assert found.dtype == jnp.bfloat16
    exact = [a.astype(jnp.float32) for a in (image, kernel, gradient)]
    _, _, expected = value_and_gradients(plain, *exact)
    # Half a unit in the last of bfloat16's 8 digits; a sum in bfloat16 would lose far more.
    np.testing.assert_allclose(
        found.astype(np.float32), expected, rtol=2**-8, atol=2**-8 * np.abs(expected).max() / 50
    )


def test_vmap_over_kernels_equals_one_after_the_other():
    image, kernel, gradient = draw((2, 4, 8, 5, 6))
    kernels = np.stack([kernel, 2 * kernel, kernel - 1])
    one = functools.partial(value_and_gradients, convolution.convolution_3x3)
    found = jax.vmap(one, in_axes=(None, 0, None))(image, kernels, gradient)
    expected = [one(image, k, gradient) for k in kernels]
    assert_close(found, [np.stack(each) for each in zip(*expected, strict=True)], 1e-5)


def test_which_convolution_is_used():
    def rule(image, kernel, strides=(1, 1), padding=PADDING, layout=LAYOUT, **options):
        return convolution.rule(
            image, kernel, strides, padding, dimension_numbers=layout, **options
        )

    narrow, few, wide = (draw(s)[:2] for s in [(2, 8, 8, 6, 5), (2, 8, 8, 1, 5), (1, 2, 2, 9, 9)])
    assert rule(*narrow) is convolution.convolution_3x3
    assert rule(*wide) is convolution.patches_convolution
    assert rule(*few) is None
    for options in [
        {"strides": (2, 2)},
        {"padding": "VALID"},
        {"padding": ((0, 2), (1, 1))},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2)},
        {"precision": lax.Precision.HIGHEST},
        {"preferred_element_type": jnp.float32},
    ]:
        assert rule(*narrow, **options) is None, options
    image, kernel = draw((2, 8, 8, 6, 6))[:2]
    assert rule(image, kernel[:, :, :2], feature_group_count=3) is None
    assert rule(np.moveaxis(image, 3, 1), kernel, layout=("NCHW", "HWIO", "NCHW")) is None


@pytest.mark.parametrize(
    "options",
    [{"window_strides": (2, 2)}, {"padding": ((0, 2), (1, 1))}, {"rhs_dilation": (2, 2)}],
    ids=str,
)
def test_what_lax_is_asked_for_is_what_it_gives(options):
    image, kernel = draw((2, 8, 8, 6, 6))[:2]
    asked = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT} | options
    np.testing.assert_array_equal(
        convolution.conv_general_dilated(image, kernel, **asked),
        lax.conv_general_dilated(image, kernel, **asked),
    )


def test_a_free_batch_size_is_exported_as_one_convolution():
    def drop_in(image, kernel):
        return convolution.conv_general_dilated(
            image, kernel, (1, 1), PADDING, dimension_numbers=LAYOUT
        )

    image, kernel = draw((2, 8, 8, 6, 5))[:2]
    (free,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(drop_in))(
        jax.ShapeDtypeStruct((free, 8, 8, 6), image.dtype), kernel
    )
    np.testing.assert_allclose(
        exported.call(image, kernel), drop_in(image, kernel), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("factor, columns", [(2, 2), (3, 3), (4, 4), (2, 3)])
def test_transposed_convolution_equals_lax(monkeypatch, factor, columns):
    rng = np.random.default_rng(factor)
    image = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    kernel = rng.standard_normal((factor, columns, 4, 6)).astype(np.float32)
    gradient = rng.standard_normal((2, 3 * factor, 5 * columns, 4)).astype(np.float32)
    found = value_and_gradients(transposed.conv_transpose, image, kernel, gradient)

    def reference(image, kernel):
        return lax.conv_transpose(image, kernel, (factor, columns), "VALID", transpose_kernel=True)

    assert_close(found, value_and_gradients(reference, image, kernel, gradient), 1e-5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = transposed.conv_transpose(image, kernel)
    np.testing.assert_array_equal(elsewhere, reference(image, kernel))


FAULTS = """
import resource, sys
import numpy as np
from mtbus_jax.runtime import host_memory
if sys.argv[1] == "keep":
    assert host_memory.keep_freed_memory()
def touch():
    np.ones(25_000_000, np.uint8)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept():
    """Page faults of allocating 25 MB again and again."""

    def faults(mode):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # 25 MB are 6100 pages of 4 kB, or 12 of 2 MB where the system gives those.
    assert faults("keep") < 10 <= faults("as it is")


def test_memory_stays_as_it_is_without_glibc(monkeypatch):
    class Other:
        """A C library without glibc's functions."""

    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: Other())
    assert host_memory.keep_freed_memory() is False


@pytest.mark.parametrize("batch_size, common", [(1, False), (4, False), (8, True), (32, True)])
def test_threads_share_memory_for_large_batches_only(batch_size, common, monkeypatch):
    settings = {}

    class Recording:
        gnu_get_libc_version = None

        @staticmethod
        def mallopt(name, value):
            settings[name] = value
            return 1

    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: Recording())
    assert host_memory.keep_for_prediction(batch_size)
    arena_max = -8  # M_ARENA_MAX of malloc.h
    assert settings.get(arena_max) == (1 if common else None)
