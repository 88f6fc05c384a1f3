"""Attention U-Net against MONAI 1.6.1's `AttentionUnet` (fixtures/make_attention_unet.py)."""

import flax.traverse_util
import numpy as np
import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    drawn_variables,
    flat,
    head_count,
    load,
    output_shapes,
    parameter_count,
    quick_jit,
)

from mtbus_jax import types
from mtbus_jax.models.attention_unet import AttentionUNet


def zero_gradient(path: str) -> bool:
    """A convolution's bias in front of a norm over the batch or the image has no effect."""
    layer, leaf = path.split("/")[-2:]
    return leaf == "bias" and "conv" in layer


@pytest.fixture(scope="module")
def original():
    return load("attention_unet")


def statistics(original, prefix):
    """Running statistics stored under a prefix, as a tree."""
    chosen = {k.removeprefix(prefix): v for k, v in original.items() if k.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(chosen, sep="/")


def test_training_agrees_with_monai(original):
    """Outputs, gradients and new running statistics with the batch's own statistics."""
    before = statistics(original, "before:")
    updated = flat(
        assert_agrees(
            AttentionUNet(tasks=("seg",)), original, is_zero=zero_gradient, batch_stats=before
        )
    )
    before, expected = flat(before), flat(statistics(original, "after:"))
    assert updated.keys() == expected.keys()
    batch, height, width, _ = original["image"].shape
    for path, found in updated.items():
        step, expected_step = found - 0.9 * before[path], expected[path] - 0.9 * before[path]
        if path.endswith("var"):
            # PyTorch averages unbiased variances.
            owner = path.split("/")[0]
            level = 3 if owner == "bottleneck" else int(owner[-1])
            pixels = batch * height * width // 4**level
            step *= pixels / (pixels - 1)
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(step, expected_step, rtol=0, atol=1e-6 * scale, err_msg=path)


def test_evaluation_agrees_with_monai(original):
    """Outputs with the running statistics."""
    module = AttentionUNet(tasks=("seg",))
    variables = drawn_variables(module, original["image"].shape)
    variables["batch_stats"] = statistics(original, "before:")
    outputs = quick_jit(module.apply)(variables, original["image"])
    np.testing.assert_allclose(outputs.segmentation[0], original["evaluated"], rtol=0, atol=1e-4)


def test_segmentation_alone_gives_one_map():
    outputs = output_shapes(AttentionUNet(tasks=("seg",)), (2, 32, 48, 1))
    assert outputs == types.Outputs(((2, 32, 48, 1),), None, {})


def test_parameter_count_is_monais():
    """Counted with MONAI 1.6.1: AttentionUnet(2, 1, 1, (24, 48, 96, 192), strides=(2, 2, 2))."""
    assert parameter_count(AttentionUNet(tasks=("seg",))) == 1_109_593
    # The head reads the last encoder map, the bottleneck and the first decoder map.
    assert parameter_count(AttentionUNet()) == 1_109_593 + head_count(96 + 192 + 96) == 3_012_700


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks):
    module = AttentionUNet(width=4, tasks=tasks)
    names = check_tasks(module, size=(32, 48), is_zero=zero_gradient)
    encoder = {"encoder_0", "encoder_1", "encoder_2", "bottleneck"}
    decoder = {"decoder_2", "decoder_1", "decoder_0", "segment"} if "seg" in tasks else set()
    assert names == encoder | decoder | ({"head"} if "cls" in tasks else set())
