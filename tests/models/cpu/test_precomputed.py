"""Networks that were prepared for prediction return what they return as they are."""

import functools

import jax
import numpy as np
import pytest
from network_checks import quick_jit

from mtbus_jax import models
from mtbus_jax.models.cpu import fixed_kernel, precomputed

SIZE = (32, 64)
SMALL = {
    "unetpp": {"width": 4, "head_features": 8},
    "nnunet": {"width": 4},
    "adityan": {},
    "unet": {"width": 4},
}


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def outputs_of(module, variables, image):
    return quick_jit(lambda v, i: module.apply(v, i, train=False))(variables, image)


def names_of(variables):
    """Keys of what was prepared: arrangements, and "up" where a map is never upsampled."""
    paths, _ = jax.tree_util.tree_flatten_with_path(variables[precomputed.COLLECTION])
    return {key.key for path, _ in paths for key in path if hasattr(key, "key")}


def test_outputs_are_those_of_the_network_as_it_is(monkeypatch):
    """Either head, and one image or several, the last of which is empty."""
    # Small networks have too few channels for sums of rows to pay.
    monkeypatch.setattr(fixed_kernel, "_FEWEST_IN", 4)
    monkeypatch.setattr(fixed_kernel, "_FEWEST_OUT", 4)
    chosen = set()
    for head, count in (("released", 3), ("printed", 1)):
        image = np.random.default_rng(count).uniform(0, 255, (count, *SIZE, 1))
        image[1:][-1:] = 0
        module = models.create("unetpp", head=head, **SMALL["unetpp"])
        variables = models.init(module, jax.random.key(0), (*SIZE, 1))
        # An instance norm of few pixels magnifies rounding, so not in single precision.
        with jax.enable_x64(True):
            variables = double(variables)
            prepare = functools.partial(precomputed.prepare, module, shape=image.shape)
            ready = jax.jit(prepare)(variables)
            found, expected = (outputs_of(module, v, image) for v in (ready, variables))
        for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(f, e, rtol=0, atol=1e-9 * np.abs(e).max())
        chosen |= names_of(ready)
    assert {"up", fixed_kernel.FOUR_ROWS, fixed_kernel.KERNEL_FIRST, fixed_kernel.PLAIN} <= chosen


@pytest.mark.parametrize(
    "name", ["nnunet", pytest.param("adityan", marks=pytest.mark.long), "unet"]
)
def test_other_networks_may_be_prepared_too(name):
    module = models.create(name, **SMALL[name])
    variables = models.init(module, jax.random.key(0), (*SIZE, 1))
    image = np.random.default_rng(0).uniform(0, 255, (1, *SIZE, 1))
    with jax.enable_x64(True):
        variables = double(variables)
        ready = jax.jit(lambda v: precomputed.prepare(module, v, image.shape))(variables)
        found, expected = (outputs_of(module, v, image) for v in (ready, variables))
    assert (precomputed.COLLECTION in ready) == (name != "unet")  # which has no layers that gain
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-9 * np.abs(e).max())


def test_weights_stay_as_they_are_and_accelerators_prepare_nothing(monkeypatch):
    module = models.create("unetpp", tasks=("cls",), **SMALL["unetpp"])
    variables = models.init(module, jax.random.key(0), (*SIZE, 1))
    assert precomputed.COLLECTION not in variables
    ready = precomputed.prepare(module, variables, (1, *SIZE, 1))
    assert set(ready) == {*variables, precomputed.COLLECTION}
    assert ready["params"] is variables["params"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert precomputed.prepare(module, variables, (1, *SIZE, 1)) is variables


def test_what_was_prepared_is_read():
    """Weights that are zero afterwards change nothing where the arranged ones are read."""
    module = models.create("unetpp", tasks=("cls",), **SMALL["unetpp"])
    variables = models.init(module, jax.random.key(0), (*SIZE, 1))
    image = np.random.default_rng(0).uniform(0, 255, (1, *SIZE, 1)).astype(np.float32)
    ready = precomputed.prepare(module, variables, image.shape)
    params = jax.tree.map(np.asarray, variables["params"])
    params["node_0_0"]["conv_1"]["kernel"] = np.zeros_like(params["node_0_0"]["conv_1"]["kernel"])
    found = outputs_of(module, {**ready, "params": params}, image)
    expected = outputs_of(module, ready, image)
    np.testing.assert_array_equal(found.class_logits, expected.class_logits)
    without = outputs_of(module, {"params": params}, image)
    assert np.abs(without.class_logits - expected.class_logits).max() > 0
