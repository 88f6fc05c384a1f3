"""Residual-U-Net MTL: counts in closed form, shapes, gradients, dropout, the order of the head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import check_tasks, drawn_variables, output_shapes, parameter_count, quick_jit

from mtbus_jax import types
from mtbus_jax.models.residual_mtl import ResidualMTL, ResidualUnit


def unit(inputs, features):
    """Parameters of three convolutions with bias and their norms."""
    return 9 * (inputs + 2 * features) * features + 3 * features + 6 * features


def test_parameter_counts_in_closed_form():
    """A unit adds its features to what it reads; the head reads 481, 993 and 993 channels."""
    widths, channels, total = (32, 64, 128, 256, 512), 1, 0
    stages = []
    for features in widths:
        total += unit(channels, features)
        channels += features
        stages.append(channels)
    assert stages == [33, 97, 225, 481, 993]
    encoder = total
    for features, skip in zip(widths[-2::-1], stages[-2::-1], strict=True):
        total += 4 * channels * features + features + unit(skip + features, features)
        channels = skip + 2 * features
    assert channels == 97
    segmentation = total + channels + 1

    def head(inputs):
        return inputs * 256 + 256 + 256 * 3 + 3

    assert parameter_count(ResidualMTL(tasks=("seg",))) == segmentation == 14_625_090
    assert parameter_count(ResidualMTL()) == segmentation + head(481 + 2 * 993) == 15_257_669
    assert parameter_count(ResidualMTL(tasks=("cls",))) == encoder + head(481 + 993) == 9_538_499


def test_outputs_for_each_set_of_tasks():
    shape = (2, 32, 48, 1)
    assert output_shapes(ResidualMTL(width=2), shape) == types.Outputs((shape,), (2, 3), {})
    segments = output_shapes(ResidualMTL(width=2, tasks=("seg",)), shape)
    assert segments == types.Outputs((shape,), None, {})
    classifies = output_shapes(ResidualMTL(width=2, tasks=("cls",), classes=2), shape)
    assert classifies == types.Outputs((), (2, 2), {})


def test_a_unit_keeps_its_input_and_adds_to_it():
    """What it adds is by hand: three convolutions, each normalised with its running statistics."""
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    module = ResidualUnit(4)
    variables = module.init(jax.random.key(0), image, train=False)
    found = module.apply(variables, image, train=False)
    np.testing.assert_array_equal(found[..., :3], image)
    path = jnp.asarray(image)
    for i in (1, 2, 3):
        conv = variables["params"][f"conv_{i}"]
        path = jax.lax.conv_general_dilated(
            path, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        # Fresh statistics are mean 0 and variance 1.
        path = jnp.maximum((path + conv["bias"]) / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(found[..., 3:], path, atol=1e-5)


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_gradients(tasks):
    """A bias in front of a batch norm changes nothing; all else has a gradient."""

    def is_zero(path):
        return "conv_" in path and path.endswith("bias")

    names = check_tasks(ResidualMTL(width=2, tasks=tasks), size=(32, 48), is_zero=is_zero)
    assert ("segment" in names) == ("seg" in tasks) == ("up_1" in names)


def test_dropout_is_of_the_head_and_for_training_alone():
    module = ResidualMTL(width=2)
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 1)).astype(np.float32)
    variables = drawn_variables(module, image.shape)

    def outputs(key, train):
        return module.apply(
            variables, image, train=train, rngs={"dropout": key}, mutable=["batch_stats"]
        )[0]

    program = quick_jit(lambda key: outputs(key, True))
    first, second = (program(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first.class_logits - second.class_logits).max() > 1e-3
    np.testing.assert_array_equal(first.segmentation[0], second.segmentation[0])
    tested = [quick_jit(lambda key: outputs(key, False))(jax.random.key(seed)) for seed in (0, 1)]
    np.testing.assert_array_equal(tested[0].class_logits, tested[1].class_logits)
