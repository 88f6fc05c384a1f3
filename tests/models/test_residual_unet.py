"""Residual U-Net: sizes from its widths, values, statistics and gradients against PyTorch layers.

Where outputs are compared with PyTorch's, dropout is set to 0: its draws are not to be had.
"""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    drawn_variables,
    flat,
    head_count,
    load,
    parameter_count,
    quick_jit,
    shapes_of,
)

from mtbus_jax.models import residual_unet
from mtbus_jax.models.residual_unet import ResidualUNet

SHAPE = (2, 32, 48, 1)


@pytest.fixture(scope="module")
def original():
    return load("residual_unet")


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(residual_unet, "DROPOUT", 0.0)


def statistics(original, prefix):
    """Running statistics stored under a prefix, as a tree."""
    chosen = {k.removeprefix(prefix): v for k, v in original.items() if k.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(chosen, sep="/")


def zero_gradient(path: str) -> bool:
    """A convolution's bias in front of a norm has no effect."""
    return path.endswith(("conv_1/bias", "shortcut_conv/bias", "head/conv/bias"))


def test_a_training_step_agrees_with_pytorch(original, no_dropout):
    """Outputs, gradients and new running statistics with the batch's own statistics."""
    before = statistics(original, "before:")
    module = ResidualUNet(width=8, tasks=("seg",))
    updated = flat(assert_agrees(module, original, batch_stats=before, is_zero=zero_gradient))
    before, expected = flat(before), flat(statistics(original, "after:"))
    assert updated.keys() == expected.keys()
    levels = {f"{part}_{level}": level for part in ("encoder", "decoder") for level in (1, 2, 3)}
    levels["bottleneck"] = 4
    batch, height, width, _ = original["image"].shape
    for path, found in updated.items():
        step, expected_step = found - 0.9 * before[path], expected[path] - 0.9 * before[path]
        if path.endswith("var"):
            # PyTorch averages unbiased variances.
            block, layer, _ = path.split("/")
            reads_above = layer == "norm_1" and not block.startswith("decoder")
            pixels = batch * height * width // 4 ** (levels[block] - 1 - reads_above)
            step *= pixels / (pixels - 1)
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(step, expected_step, rtol=0, atol=1e-6 * scale, err_msg=path)


@pytest.mark.parametrize("legacy", [False, True])
def test_evaluation_agrees_with_pytorch(original, legacy, no_dropout):
    """Outputs with the running statistics, with skips and, as released, without."""
    module = ResidualUNet(width=8, tasks=("seg",), legacy=legacy)
    variables = drawn_variables(module, original["image"].shape)
    variables["batch_stats"] = statistics(original, "before:")
    outputs = quick_jit(module.apply)(variables, original["image"])
    expected = original["evaluated_without_skips" if legacy else "evaluated"]
    np.testing.assert_allclose(outputs.segmentation[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("w", [24, 16])
def test_parameter_counts_in_closed_form(w):
    """From the published widths: convolutions with bias, two numbers per normalised channel."""

    def conv(inputs, outputs, kernel=3):
        return kernel**2 * inputs * outputs + outputs

    def unit(inputs, outputs):
        norms = 2 * inputs + 2 * outputs + 2 * outputs
        return norms + 2 * conv(inputs, outputs) + conv(outputs, outputs)

    # The first unit does not normalise its input.
    encoder = unit(1, w) - 2 + sum(unit(k * w, 2 * k * w) for k in (1, 2, 4))
    decoder = sum(
        4 * 2 * k * w * k * w + k * w + unit(k * w, k * w)  # transposed convolution and unit
        for k in (4, 2, 1)
    )
    joins = sum(conv(2 * k * w, k * w, kernel=1) for k in (4, 2, 1))
    segments = encoder + decoder + joins + (w + 1)
    # The head reads encoder level 3, the bottleneck and decoder level 3.
    assert parameter_count(ResidualUNet(width=w, tasks=("seg",))) == segments
    assert parameter_count(ResidualUNet(width=w, tasks=("seg",), legacy=True)) == segments - joins
    assert parameter_count(ResidualUNet(width=w)) == segments + head_count((4 + 8 + 4) * w)
    assert parameter_count(ResidualUNet(width=w, tasks=("cls",))) == (
        encoder + head_count((4 + 8) * w)
    )


def test_default_width_and_its_counts():
    assert ResidualUNet().width == 24
    assert parameter_count(ResidualUNet()) == 3_231_916
    assert parameter_count(ResidualUNet(tasks=("seg",))) == 1_328_809
    assert parameter_count(ResidualUNet(tasks=("cls",))) == 2_340_123
    assert parameter_count(ResidualUNet(legacy=True)) == 3_231_916 - 24_360


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks, no_dropout):
    module = ResidualUNet(width=2, tasks=tasks)
    names = check_tasks(module, size=(32, 48), is_zero=zero_gradient)
    expected = {"encoder_1", "encoder_2", "encoder_3", "bottleneck"}
    if "seg" in tasks:
        expected |= {f"{part}_{level}" for part in ("up", "join", "decoder") for level in (1, 2, 3)}
        expected |= {"segment"}
    assert names == expected | ({"head"} if "cls" in tasks else set())


def some_image():
    return jnp.asarray(np.random.default_rng(1).uniform(0, 255, SHAPE), jnp.float32)


def test_legacy_dropout_at_test_time_is_on_and_the_same_for_every_image(monkeypatch):
    module = ResidualUNet(width=2, tasks=("seg",), legacy=True)
    variables = drawn_variables(module, SHAPE)
    image = some_image()
    twice = jnp.concatenate([image, image[::-1]])
    logits = quick_jit(module.apply)(variables, twice).segmentation[0]
    tolerance = 1e-5 * np.abs(logits).max()
    # The same image at both its places in the batch, and alone.
    np.testing.assert_allclose(logits[3], logits[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(logits[2], logits[1], rtol=0, atol=tolerance)
    alone = quick_jit(module.apply)(variables, image[:1]).segmentation[0]
    np.testing.assert_allclose(alone[0], logits[0], rtol=0, atol=tolerance)
    monkeypatch.setattr(residual_unet, "DROPOUT", 0.0)
    # A function of its own: JAX would take what it has traced of the other.
    without = quick_jit(lambda v, i: module.apply(v, i))(variables, image).segmentation[0]
    assert np.abs(without - logits[:2]).max() > 1000 * tolerance


def test_legacy_dropout_differs_from_layer_to_layer(monkeypatch):
    """No two layers may drop by the same key."""
    drawn = []

    class Spy(nn.Dropout):
        def __call__(self, inputs, deterministic=None, rng=None):
            drawn.append(jax.random.key_data(rng))
            return super().__call__(inputs, deterministic, rng)

    monkeypatch.setattr(nn, "Dropout", Spy)

    @jax.jit
    def keys():
        module = ResidualUNet(width=2, tasks=("seg",), legacy=True)
        module.init(jax.random.key(0), jnp.zeros(SHAPE))
        return jnp.stack(drawn)

    # Seven blocks with two each, less the one in front of the first convolution.
    assert len(np.unique(keys(), axis=0)) == 2 * 7 - 1


@pytest.mark.parametrize("legacy", [False, True])
def test_dropout_while_training_follows_its_key(legacy):
    module = ResidualUNet(width=2, tasks=("cls",), legacy=legacy)
    variables = drawn_variables(module, SHAPE)

    @quick_jit
    def logits(seed):
        key = jax.random.key(seed)
        outputs, _ = module.apply(
            variables, some_image(), train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return outputs.class_logits

    np.testing.assert_array_equal(logits(0), logits(0))
    assert np.abs(logits(0) - logits(1)).max() > 1e-3


def test_training_without_a_dropout_key_is_refused():
    module = ResidualUNet(width=2, tasks=("cls",))
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        jax.eval_shape(
            lambda v: module.apply(v, some_image(), train=True, mutable=["batch_stats"]),
            shapes_of(module, SHAPE),
        )


def test_sides_that_cannot_be_halved_three_times_are_refused():
    with pytest.raises(TypeError, match="concatenate"):
        shapes_of(ResidualUNet(width=2), (1, 32, 52, 1))
