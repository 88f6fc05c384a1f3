"""Table 4's UNet++ against MONAI 1.6.1's `BasicUNetPlusPlus` (fixtures/make_basic_unetpp.py)."""

import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    load,
    output_shapes,
    parameter_count,
    shapes_of,
)

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models.unetpp import BasicUNetPlusPlus, UNetPlusPlus

# MONAI's default features, (32, 32, 64, 128, 256, 32), by a quarter.
QUARTER = (8, 8, 16, 32, 64, 8)
IMAGE = (1, 32, 48, 1)


def zero_gradient(path: str) -> bool:
    """A convolution's bias in front of an instance norm has no effect."""
    return path.endswith(("conv_1/bias", "conv_2/bias"))


def test_segmentation_agrees_with_monai():
    """All four maps: with deep supervision, X(0,1..3) are returned too."""
    module = BasicUNetPlusPlus(width=8, tasks=("seg",), deep_supervision=True)
    assert_agrees(module, load("basic_unetpp"), is_zero=zero_gradient)


def test_segmentation_alone_gives_one_map():
    outputs = output_shapes(BasicUNetPlusPlus(tasks=("seg",)), (2, 32, 48, 1))
    assert outputs == types.Outputs(((2, 32, 48, 1),), None, {})


def test_parameter_count_is_monais():
    """Counted with MONAI 1.6.1: BasicUNetPlusPlus(2, 1, 1) has 2,410,180.

    MONAI's has the 1×1 convolutions of X(0,1..3) even without deep supervision.
    """
    assert parameter_count(BasicUNetPlusPlus(tasks=("seg",), deep_supervision=True)) == 2_410_180
    assert parameter_count(BasicUNetPlusPlus(tasks=("seg",))) == 2_410_180 - 3 * (32 + 1)
    assert parameter_count(BasicUNetPlusPlus()) == 9_329_764


def test_features_can_be_given_to_either():
    basic = shapes_of(BasicUNetPlusPlus(width=8, deep_supervision=True), IMAGE)
    assert shapes_of(UNetPlusPlus(features=QUARTER), IMAGE) == basic
    given = shapes_of(BasicUNetPlusPlus(features=(6, 2, 4, 8, 16, 10)), IMAGE)["params"]
    # X(0,4): four maps of row 0 and the upsampled X(1,3), whose channels row 0 keeps.
    assert given["node_0_4"]["conv_1"]["kernel"].shape == (3, 3, 4 * 6 + 2, 10)
    # X(1,1): one map of row 1 and the upsampled X(2,0) at half its channels.
    assert given["node_1_1"]["conv_1"]["kernel"].shape == (3, 3, 2 + 4 // 2, 2)
    assert given["segment_0_4"]["kernel"].shape == (1, 1, 10, 1)


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks):
    module = BasicUNetPlusPlus(width=2, head_features=16, tasks=tasks)
    names = check_tasks(module, size=(32, 48), is_zero=zero_gradient)
    decoder = {name for name in names if name.startswith("up_") or "_0_4" in name}
    assert len(decoder) == (10 + 2 if "seg" in tasks else 0)
    assert ("classifier" in names) == ("head_block" in names) == ("cls" in tasks)


@pytest.mark.parametrize("features", [(2, 2, 4, 8, 16), ()])
def test_features_that_are_not_six_are_refused(features):
    with pytest.raises(UserError, match="6 numbers"):
        shapes_of(UNetPlusPlus(features=features), IMAGE)
