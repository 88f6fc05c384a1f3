"""SegResNet against MONAI 1.6.1's `SegResNet` (fixtures/make_segresnet.py)."""

import jax
import jax.numpy as jnp
import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    head_count,
    load,
    output_shapes,
    parameter_count,
)

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models.segresnet import SegResNet


def zero_gradient(path: str) -> bool:
    """The one convolution with a bias in front of a norm is the head's."""
    return path == "head/conv/bias"


def test_segmentation_agrees_with_monai():
    """Parameters, outputs and gradients of the network for segmentation alone."""
    assert_agrees(SegResNet(tasks=("seg",)), load("segresnet"), is_zero=zero_gradient)


def test_segmentation_alone_gives_one_map():
    outputs = output_shapes(SegResNet(tasks=("seg",)), (2, 32, 48, 1))
    assert outputs == types.Outputs(((2, 32, 48, 1),), None, {})


def test_parameter_count_is_monais():
    """Counted with MONAI 1.6.1: SegResNet(2, in_channels=1, out_channels=1)."""
    assert parameter_count(SegResNet(tasks=("seg",))) == 394_977
    # The head reads the last encoder map, the bottleneck and the first decoder map.
    assert parameter_count(SegResNet()) == 394_977 + head_count(32 + 64 + 32) == 1_118_436


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks):
    names = check_tasks(SegResNet(tasks=tasks), size=(32, 48), is_zero=zero_gradient)
    decoder = {name for name in names if name.startswith(("reduce", "decoder", "norm", "segment"))}
    assert len(decoder) == (8 if "seg" in tasks else 0)
    assert ("head" in names) == ("cls" in tasks)
    assert len(names - decoder - {"head"}) == 4 + 1 + 2 + 2 + 4


def test_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"width=12.*multiple of 8"):
        jax.eval_shape(SegResNet(width=12).init, jax.random.key(0), jnp.zeros((1, 8, 16, 1)))
