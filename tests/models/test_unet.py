"""U-Net against MONAI 1.6.1's `UNet` (fixtures/make_unet.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    flat,
    head_count,
    load,
    output_shapes,
    parameter_count,
)

from mtbus_jax import types
from mtbus_jax.models.unet import UNet, Unit


def zero_gradient(path: str) -> bool:
    """A convolution's bias in front of an instance norm has no effect."""
    return path.endswith("conv/bias")


def test_segmentation_agrees_with_monai():
    """Parameters, outputs and gradients of the network for segmentation alone."""
    assert_agrees(UNet(tasks=("seg",)), load("unet"), is_zero=zero_gradient)


def test_segmentation_alone_gives_one_map():
    outputs = output_shapes(UNet(tasks=("seg",)), (2, 32, 48, 1))
    assert outputs == types.Outputs(((2, 32, 48, 1),), None, {})


def test_parameter_count_is_monais():
    """Counted with MONAI 1.6.1: UNet(2, 1, 1, channels=(24, 48, 96, 192), strides=(2, 2, 2))."""
    assert parameter_count(UNet(tasks=("seg",))) == 363_967
    # The head reads the last encoder map, the bottleneck and the first decoder map.
    assert parameter_count(UNet()) == 363_967 + head_count(96 + 192 + 48) == 2_045_890


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks):
    names = check_tasks(UNet(width=2, tasks=tasks), size=(32, 48), is_zero=zero_gradient)
    encoder = {"down_0", "down_1", "down_2", "bottleneck"}
    decoder = {"up_2", "up_1", "segment"} if "seg" in tasks else set()
    assert names == encoder | decoder | ({"head"} if "cls" in tasks else set())


def test_initial_values_follow_pytorch():
    """U(-1/√fan_in, 1/√fan_in), the fan-in of a transposed convolution that of its output."""
    image = jnp.zeros((1, 4, 6, 64))
    params = flat(jax.jit(Unit(32, transposed=True).init)(jax.random.key(0), image)["params"])
    bound = 1 / np.sqrt(9 * 32)
    assert 0.99 * bound < np.abs(params["conv/kernel"]).max() <= bound
    assert np.abs(params["conv/bias"]).max() <= bound
    assert params["prelu/negative_slope"] == 0.25
