"""Shares of maps in the convolutions of their concatenations, against lax on the concatenation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_checks import assert_close, assert_networks_close, network_and_gradients
from jax import lax

from mtbus_jax import models
from mtbus_jax.models import unetpp
from mtbus_jax.models.cpu import shares

# batch, height, width, channels of the maps, of the result. Non-square, one map, one pixel.
SHAPES = [(2, 6, 5, (4, 4, 4), 7), (1, 3, 8, (5, 6), 4), (3, 4, 2, (6,), 5), (2, 1, 1, (4, 2), 3)]


def draw(shape, dtype):
    *pixels, channels, out = shape
    rng = np.random.default_rng(sum(channels) + out)
    maps = tuple(rng.standard_normal((*pixels, each)).astype(dtype) for each in channels)
    kernel = rng.standard_normal((3, 3, sum(channels), out)).astype(dtype)
    return maps, kernel, rng.standard_normal((*pixels, out)).astype(dtype)


def plain(maps, kernel):
    return lax.conv_general_dilated(
        jnp.concatenate(maps, axis=-1),
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def by_shares(maps, kernel):
    """As a node does; each map is also convolved for another node, with a kernel of its own."""
    ends = itertools.accumulate((each.shape[-1] for each in maps), initial=0)
    parts = [kernel[:, :, i:j] for i, j in itertools.pairwise(ends)]
    known = [
        shares.of_map(each, [part[..., :2], part])[1]
        for each, part in zip(maps, parts, strict=True)
    ]
    return shares.total(maps, kernel, tuple(known))


def value_and_gradients(function, maps, kernel, gradient):
    @jax.jit
    def both(maps, kernel, gradient):
        value, pull = jax.vjp(function, maps, kernel)
        by_maps, by_kernel = pull(gradient)
        return [value, *by_maps, by_kernel]

    return both(maps, kernel, gradient)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_lax_in_double_and_single_precision(shape):
    with jax.enable_x64(True):
        exact = value_and_gradients(plain, *draw(shape, np.float64))
        assert_close(value_and_gradients(by_shares, *draw(shape, np.float64)), exact, 1e-13)
    found = value_and_gradients(by_shares, *draw(shape, np.float32))
    assert all(each.dtype == np.float32 for each in found)
    assert_close([np.float64(each) for each in found], map(np.asarray, exact), 1e-5)


def test_empty_maps_and_empty_gradients():
    maps, kernel, gradient = draw(SHAPES[0], np.float32)
    empty = tuple(map(np.zeros_like, maps))
    value, *by_maps, by_kernel = value_and_gradients(by_shares, empty, kernel, gradient)
    assert not value.any() and not by_kernel.any() and all(each.any() for each in by_maps)
    value, *slopes = value_and_gradients(by_shares, maps, kernel, 0 * gradient)
    assert value.any() and not any(each.any() for each in slopes)


def test_each_kernel_has_its_share():
    maps, kernel, _ = draw((2, 5, 4, (4,), 9), np.float32)
    kernels = [kernel[..., :2], kernel[..., 2:3], kernel[..., 3:]]
    found = jax.jit(shares.of_map)(maps[0], kernels)
    assert_close(found, [np.asarray(plain(maps, each)) for each in kernels], 1e-5)
    arranged = shares.arrange(maps[0], kernels)
    found = shares.of_map_with_arranged(maps[0], kernels, arranged)
    assert_close(found, [np.asarray(plain(maps, each)) for each in kernels], 1e-5)


def test_vmap_and_second_derivatives():
    with jax.enable_x64(True):
        maps, kernel, _ = draw(SHAPES[0], np.float64)
        several = jnp.stack([kernel, kernel + 1])

        def slope(function, maps, kernel):
            return jax.grad(lambda m, k: jnp.sum(jnp.sin(function(m, k))), argnums=(0, 1))(
                maps, kernel
            )

        def curvature(function, maps, kernel):
            def squares(maps, kernel):
                return sum(
                    jnp.sum(each**2) for each in jax.tree.leaves(slope(function, maps, kernel))
                )

            return jax.grad(squares, argnums=(0, 1))(maps, kernel)

        for of in (slope, curvature):
            found, expected = (
                jax.jit(jax.vmap(lambda k, f=f, of=of: of(f, maps, k)))(several)
                for f in (by_shares, plain)
            )
            assert_close(*map(jax.tree.leaves, (found, expected)), 1e-12)


def test_a_network_and_its_gradients_are_the_same_with_and_without_shares(monkeypatch):
    module = models.create("unetpp", width=4, head_features=8)
    variables = models.init(module, jax.random.key(0), (32, 16, 1))
    image = np.random.default_rng(0).uniform(0, 255, (3, 32, 16, 1))
    image[-1] = 0  # nothing to see
    counted = []
    own = shares.of_map
    monkeypatch.setattr(
        shares, "of_map", lambda i, kernels: counted.append(len(kernels)) or own(i, kernels)
    )

    found = []
    for rows in (0, 1, 3):
        monkeypatch.setattr(unetpp.UNetPlusPlus, "rows_of_shares", rows)
        counted.clear()
        found.append(network_and_gradients(module, variables, image))
        # Of two parts of a batch in rows 0 and 1: for the nodes to come, of each map.
        of_row = [[4, 4, 3, 3, 2, 2, 1, 1], [3, 3, 2, 2, 1, 1], [2, 1]]
        assert sorted(counted) == sorted(itertools.chain(*of_row[:rows]))
    for other in found[1:]:
        assert_networks_close(other, found[0])


def test_accelerators_and_exported_networks_convolve_the_concatenation(monkeypatch):
    assert shares.pays((1, 8, 8, 24))
    free = jax.export.symbolic_shape("batch")[0]
    assert not shares.pays((free, 8, 8, 24))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not shares.pays((1, 8, 8, 24))
