"""Adityan et al.'s network: sizes from its widths, values and gradients against PyTorch layers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import (
    assert_agrees,
    drawn_variables,
    load,
    parameter_count,
    quick_jit,
    shapes_of,
)

from mtbus_jax import models
from mtbus_jax.models.adityan import Adityan

SHAPE = (2, 32, 48, 1)


@dataclasses.dataclass
class EveryOutputAMap:
    """The network with reconstruction and class logits as further maps, as the fixture's."""

    module: nn.Module

    def init(self, *args, **options):
        return self.module.init(*args, **options)

    def apply(self, *args, **options):
        outputs, updates = self.module.apply(*args, **options)
        others = (outputs.aux["reconstruction"], outputs.class_logits[:, None, None])
        return outputs._replace(segmentation=(*outputs.segmentation, *others)), updates


def test_outputs_and_gradients_agree_with_pytorch():
    """All three branches, see fixtures/make_adityan.py."""
    module = EveryOutputAMap(Adityan(width=8))
    assert_agrees(module, load("adityan"), is_zero=lambda path: False)


@pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
def test_one_task_alone_equals_its_branches_of_both(tasks):
    original = load("adityan")
    image = original["image"]
    module = Adityan(width=8, tasks=tasks)
    outputs = quick_jit(module.apply)(drawn_variables(module, image.shape), image)
    segmentation, rebuilt, logits = (original[f"segmentation_{i}"] for i in range(3))
    if tasks == ("seg",):
        assert outputs.class_logits is None
        assert outputs.aux.keys() == {"reconstruction"}
        np.testing.assert_allclose(outputs.segmentation[0], segmentation, rtol=0, atol=1e-4)
        np.testing.assert_allclose(outputs.aux["reconstruction"], rebuilt, rtol=0, atol=1e-4)
    else:
        assert outputs.segmentation == () and outputs.aux == {}
        np.testing.assert_allclose(outputs.class_logits, logits[:, 0, 0], rtol=0, atol=1e-4)


def test_the_class_branch_needs_encoder_and_decoder():
    both, seg, cls = (
        set(shapes_of(Adityan(width=2, tasks=tasks), SHAPE)["params"])
        for tasks in (("seg", "cls"), ("seg",), ("cls",))
    )
    assert both - seg == {"class_conv", "classifier"}
    assert both - cls == {"segment_block", "segment", "rebuild_block", "rebuild"}


@pytest.mark.parametrize("w", [64, 24])
def test_parameter_counts_in_closed_form(w):
    """From the published widths: every convolution has a bias."""

    def conv(inputs, outputs):
        return 9 * inputs * outputs + outputs

    backbone = conv(1, w) + conv(w, w)
    backbone += sum(conv(k * w, 2 * k * w) + conv(2 * k * w, 2 * k * w) for k in (1, 2, 4))
    backbone += conv(8 * w, 16 * w) + conv(16 * w, 8 * w)
    backbone += sum(4 * (k * w) ** 2 + k * w for k in (8, 4, 2, 1))
    backbone += sum(conv(2 * k * w, k * w) + conv(k * w, k * w // 2) for k in (8, 4, 2))
    branch = conv(2 * w, w) + conv(w, w)
    segments = branch + (w + 1) + branch + conv(w, 1)
    classifies = conv(2 * w, 32) + 32 * 1000 + 1000 + 1000 * 3 + 3
    assert parameter_count(Adityan(width=w)) == backbone + segments + classifies
    assert parameter_count(Adityan(width=w, tasks=("seg",))) == backbone + segments
    assert parameter_count(Adityan(width=w, tasks=("cls",))) == backbone + classifies


def test_published_width_and_its_counts():
    assert Adityan().width == 64
    assert parameter_count(Adityan()) == 23_554_309
    assert parameter_count(Adityan(tasks=("seg",))) == 23_481_410
    assert parameter_count(Adityan(tasks=("cls",))) == 23_332_227


def test_every_channel_is_reconstructed():
    module = Adityan(width=2)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 48, 3)))[0]
    )
    assert outputs.aux["reconstruction"].shape == (1, 32, 48, 3)


def test_grey_values_reach_the_outputs_at_a_sane_size():
    """Without normalisation the default weights must bring 0..255 to logits of a few units.

    Too large would saturate the sigmoids of mask and reconstruction, too small would leave nothing
    but the biases.
    """
    image = jnp.asarray(np.random.default_rng(0).uniform(0, 255, SHAPE), jnp.float32)
    module = Adityan(width=16)
    variables = models.init(module, jax.random.key(0), SHAPE[1:])
    forward = quick_jit(module.apply)
    outputs, blank = forward(variables, image), forward(variables, jnp.zeros_like(image))
    for logits, at_zero in [
        (outputs.segmentation[0], blank.segmentation[0]),
        (outputs.class_logits, blank.class_logits),
    ]:
        assert np.abs(logits).max() < 20
        assert np.abs(logits - at_zero).max() > 0.2
    rebuilt = outputs.aux["reconstruction"]
    assert np.all((rebuilt > 1e-3) & (rebuilt < 0.999))


def test_sides_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(TypeError, match="concatenate"):
        shapes_of(Adityan(width=2), (1, 32, 40, 1))
