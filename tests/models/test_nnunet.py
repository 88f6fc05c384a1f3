"""MT nnU-Net: sizes from the paper's numbers, values and gradients against PyTorch layers."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_checks import assert_agrees, check_tasks, flat, load, parameter_count, shapes_of

from mtbus_jax.errors import UserError
from mtbus_jax.models import nnunet
from mtbus_jax.models.nnunet import NNUNet

SHAPE = (2, 64, 96, 1)


@dataclasses.dataclass
class EveryOutputAMap:
    """The network with its class logits as one more, 1×1, segmentation map, as the fixture's."""

    module: nn.Module

    def init(self, *args, **options):
        return self.module.init(*args, **options)

    def apply(self, *args, **options):
        outputs, updates = self.module.apply(*args, **options)
        logits = outputs.class_logits[:, None, None]
        return outputs._replace(segmentation=(*outputs.segmentation, logits)), updates


def test_outputs_and_gradients_agree_with_pytorch():
    """Both tasks with deep supervision, see fixtures/make_nnunet.py."""
    module = EveryOutputAMap(NNUNet(width=8))
    assert_agrees(module, load("nnunet"), is_zero=lambda path: False)


def parts_in_closed_form() -> dict[str, int]:
    """Parameters of the published network's parts, from the paper's widths alone."""

    def block(*widths):  # 3×3 convolutions without bias; the norms have no parameters
        return sum(9 * a * b for a, b in itertools.pairwise(widths))

    def up(width, factor):  # a transposed convolution that keeps the channels
        return factor**2 * width * width + width

    encoder = [(1, 32, 32), (32, 64, 64), (64, 128, 128), (128, 256, 256), (256, 320, 320)]
    decoder = [(640, 256, 256), (512, 128, 128), (256, 64, 64), (128, 32, 32), (64, 32, 16)]
    return {
        "encoder": sum(block(*widths) for widths in encoder) + block(320, 320, 320),
        "decoder": sum(block(*widths) for widths in decoder)
        + sum(up(width, 2) for width in (320, 256, 128, 64, 32)),
        "finest": 16 + 1,
        "coarse": sum(up(w, f) + w + 1 for w, f in ((128, 8), (64, 4), (32, 2))),
        "maps": block(320, 320) + block(256, 320),
        "dense": 512 * 256 + 256 + 256 * 3 + 3,
    }


def test_parameter_counts_in_closed_form():
    parts = parts_in_closed_form()
    segments = parts["encoder"] + parts["decoder"] + parts["finest"]
    head = parts["maps"] + 9 * 960 * 512 + parts["dense"]
    assert parameter_count(NNUNet(tasks=("seg",), deep_supervision=False)) == segments
    segments += parts["coarse"]
    assert parameter_count(NNUNet(tasks=("seg",))) == segments == 9_605_140
    assert parameter_count(NNUNet()) == segments + head == 15_819_799


def test_classifier_alone_has_encoder_bottleneck_and_head_only():
    parts = parts_in_closed_form()
    head = 9 * 320 * 320 + 9 * 640 * 512 + parts["dense"]
    assert parameter_count(NNUNet(tasks=("cls",))) == parts["encoder"] + head == 8_675_619


def test_classification_alone():
    check_tasks(NNUNet(width=2, tasks=("cls",)), size=(64, 96))


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("seg",), ("cls",)])
def test_parts_by_task(tasks):
    module = NNUNet(width=2, tasks=tasks, deep_supervision=False)
    expected = {f"encoder_{level}" for level in range(1, 6)} | {"bottleneck"}
    if "seg" in tasks:
        expected |= {f"{part}_{level}" for part in ("up", "decoder") for level in range(1, 6)}
        expected |= {"segment_1"}
    if "cls" in tasks:
        expected |= {"head_encoder", "head_fused", "classifier"}
    if len(tasks) == 2:
        expected |= {"head_decoder"}
    assert set(shapes_of(module, SHAPE)["params"]) == expected
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros(SHAPE))[0]
    )
    assert [m.shape for m in outputs.segmentation] == [SHAPE] * ("seg" in tasks)
    assert (outputs.class_logits is None) == ("cls" not in tasks)


def test_deep_supervision_gives_four_maps_at_full_resolution():
    assert NNUNet().deep_supervision
    for tasks in (("seg",), ("seg", "cls")):
        module = NNUNet(width=2, tasks=tasks)
        outputs = jax.eval_shape(
            lambda module=module: module.init_with_output(jax.random.key(0), jnp.zeros(SHAPE))[0]
        )
        assert [m.shape for m in outputs.segmentation] == [SHAPE] * 4


def test_kaiming_normal():
    shape = (3, 3, 64, 80)
    kernel = np.asarray(nnunet.kaiming_normal(jax.random.key(0), shape)).ravel()
    # The variance that keeps the second moment through LeakyReLU 0.01.
    variance = 2 / (1 + 0.01**2) / (9 * 64)
    # Four standard deviations of each estimate, n = 46,080.
    assert np.mean(kernel) == pytest.approx(0, abs=4 * (variance / kernel.size) ** 0.5)
    assert np.var(kernel) == pytest.approx(variance, rel=4 * (2 / kernel.size) ** 0.5)
    # A normal distribution has 4.55 % of its mass beyond two standard deviations. Flax's own
    # Kaiming-normal is cut off and stretched to the same variance: 3.5 % beyond.
    assert np.mean(np.abs(kernel) > 2 * variance**0.5) == pytest.approx(0.0455, abs=0.004)


def test_which_weights_are_kaiming_normal(monkeypatch):
    """All convolutions but the head's; transposed convolutions are not."""
    drawn = []

    def record(key, shape, dtype=jnp.float32):
        drawn.append(shape)
        return jnp.zeros(shape, dtype)

    monkeypatch.setattr(nnunet, "kaiming_normal", record)
    params = flat(shapes_of(NNUNet(width=2), SHAPE)["params"])
    expected = [
        leaf.shape
        for path, leaf in params.items()
        if path.endswith("kernel") and path.startswith(("encoder", "bott", "decoder", "segment"))
    ]
    assert len(expected) == 2 * 11 + 4
    assert sorted(drawn) == sorted(expected)


@pytest.mark.parametrize("width", [1, 3])
def test_an_odd_width_is_refused(width):
    with pytest.raises(UserError, match=r"width=\d: .*even"):
        shapes_of(NNUNet(width=width), SHAPE)


def test_sides_that_cannot_be_halved_five_times_are_refused():
    with pytest.raises(TypeError, match="concatenate"):
        shapes_of(NNUNet(width=2), (1, 64, 80, 1))
