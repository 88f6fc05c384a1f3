"""Initial weights drawn together: the distributions of those drawn one by one, independent."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mtbus_jax import models
from mtbus_jax.models import blocks
from mtbus_jax.models.cpu import drawing

IMAGE = (32, 64, 1)


def leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def test_distributions_are_those_of_flax_own_initialisation():
    module = models.create("nnunet")  # it has either
    found = leaves(models.init(module, jax.random.key(3), IMAGE))
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    one_by_one = jax.jit(
        lambda key: module.lazy_init(key, image), compiler_options=models.INIT_COMPILER_OPTIONS
    )
    expected = leaves(one_by_one(jax.random.key(3)))
    assert found.keys() == expected.keys()
    p_values = []
    for path, weight in found.items():
        assert weight.shape == expected[path].shape and weight.dtype == expected[path].dtype, path
        if np.ptp(expected[path]) == 0:  # zeros of biases, ones of normalisations
            np.testing.assert_array_equal(weight, expected[path])
        elif weight.size >= 16:
            few = (np.asarray(each).ravel()[:100_000] for each in (weight, expected[path]))
            p_values.append(scipy.stats.ks_2samp(*few).pvalue)
    assert len(p_values) > 30
    # Of so many true hypotheses, the smallest p-value is rarely below this.
    assert min(p_values) > 1e-4 / len(p_values)
    # The two draw different numbers, so p-values are spread evenly, too.
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-4


class Pair(nn.Module):
    """Two layers of the same shape, of either distribution, and one with Flax's own initialiser."""

    depth = 0

    @nn.compact
    def __call__(self, image, *, train=False):
        normal = drawing.Initializer("normal", gain=2.0)
        for number, init in enumerate((blocks.torch_default_init, normal) * 2):
            image = nn.Dense(64, kernel_init=init, name=f"dense_{number}")(image)
        return nn.Dense(64, name="flax_own")(image)


def draw_pair(seed):
    params = models.init(Pair(), jax.random.key(seed), (4, 6, 64))["params"]
    return {name: np.asarray(layer["kernel"]).ravel() for name, layer in params.items()}


def test_scale_and_shape_of_either_distribution():
    kernels = draw_pair(0)
    for number in (0, 2):
        bound = 1 / np.sqrt(64)
        between_0_and_1 = (kernels[f"dense_{number}"] / bound + 1) / 2
        assert scipy.stats.kstest(between_0_and_1, "uniform").pvalue > 1e-3
    for number in (1, 3):
        deviation = np.sqrt(2 / 64)
        assert scipy.stats.kstest(kernels[f"dense_{number}"] / deviation, "norm").pvalue > 1e-3


def test_layers_and_seeds_are_independent_and_a_seed_is_repeatable():
    kernels = {(seed, name): k for seed in (0, 1) for name, k in draw_pair(seed).items()}
    names = list(kernels)
    correlation = np.corrcoef([kernels[name] for name in names])
    # 4096 numbers each: a standard deviation is 1/64.
    assert np.abs(correlation - np.eye(len(names))).max() < 6 / 64
    for name, kernel in draw_pair(1).items():
        np.testing.assert_array_equal(kernel, kernels[1, name])


def test_what_a_failed_initialisation_leaves_behind():
    class Broken(nn.Module):
        depth = 0

        @nn.compact
        def __call__(self, image, *, train=False):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        models.init(Broken(), jax.random.key(0), IMAGE)
    weight = blocks.torch_default_init(jax.random.key(0), (3, 4))
    assert isinstance(weight, jax.Array) and np.ptp(weight) > 0
