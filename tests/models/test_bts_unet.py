"""BTS U-Net: sizes from the published widths, values and gradients against PyTorch layers."""

import jax
import jax.numpy as jnp
import pytest
from network_checks import (
    assert_agrees,
    check_tasks,
    flat,
    head_count,
    load,
    parameter_count,
    shapes_of,
)

from mtbus_jax.errors import UserError
from mtbus_jax.models import bts_unet
from mtbus_jax.models.bts_unet import BTSUNet

SHAPE = (2, 32, 48, 1)


def test_outputs_and_gradients_agree_with_pytorch():
    """With deep supervision, see fixtures/make_bts_unet.py."""
    module = BTSUNet(width=8, tasks=("seg",), deep_supervision=True)
    assert_agrees(module, load("bts_unet"), is_zero=lambda path: False)


@pytest.mark.parametrize("w", [48, 24])
def test_parameter_counts_in_closed_form(w):
    """From the published widths: 3×3 convolutions without bias, norms without parameters."""
    encoder = 9 * (w // 2 + w // 2 * w)
    encoder += sum(9 * (k * w * k * w + k * w * 2 * k * w) for k in (1, 2, 4))
    bottleneck = 9 * 2 * (8 * w) ** 2
    merge = 9 * 16 * w * 4 * w
    # Each decoder block reads twice its first width and halves that once more.
    decoder = sum(9 * (2 * v * v + v * v // 2) for v in (4 * w, 2 * w, w))
    finest = w // 2 + 1
    coarse = 16 * (2 * w) ** 2 + 2 * w + (2 * w + 1) + 4 * w**2 + w + (w + 1)
    segments = encoder + bottleneck + merge + decoder + finest
    # The head reads encoder level 4, the bottleneck and decoder level 3.
    assert parameter_count(BTSUNet(width=w, tasks=("seg",))) == segments
    assert parameter_count(BTSUNet(width=w)) == segments + head_count((8 + 8 + 2) * w)
    assert parameter_count(BTSUNet(width=w, tasks=("cls",))) == (
        encoder + bottleneck + head_count((8 + 8) * w)
    )
    deep = BTSUNet(width=w, tasks=("seg",), deep_supervision=True)
    assert parameter_count(deep) == segments + coarse


def test_published_width_and_its_counts():
    assert BTSUNet().width == 48
    assert parameter_count(BTSUNet()) == 10_501_876
    assert parameter_count(BTSUNet(tasks=("seg",))) == 6_386_929
    assert parameter_count(BTSUNet(tasks=("cls",))) == 7_643_739
    assert parameter_count(BTSUNet(deep_supervision=True)) == 10_501_876 + 156_962


def zero_gradient(path: str) -> bool:
    """The one convolution with a bias in front of a norm is the head's."""
    return path == "head/conv/bias"


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("seg",), ("cls",)])
def test_every_setting_of_the_tasks(tasks):
    names = check_tasks(BTSUNet(width=2, tasks=tasks), size=(32, 48), is_zero=zero_gradient)
    expected = {f"encoder_{level}" for level in range(1, 5)} | {"bottleneck"}
    if "seg" in tasks:
        expected |= {"merge", "decoder_3", "decoder_2", "decoder_1", "segment_1"}
    assert names == expected | ({"head"} if "cls" in tasks else set())


def test_deep_supervision_gives_three_maps_at_full_resolution():
    module = BTSUNet(width=2, deep_supervision=True)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros(SHAPE))[0]
    )
    assert [m.shape for m in outputs.segmentation] == [SHAPE] * 3


def test_which_weights_are_kaiming_normal(monkeypatch):
    """All convolutions but the head's; transposed convolutions are not."""
    drawn = []

    def record(key, shape, dtype=jnp.float32):
        drawn.append(shape)
        return jnp.zeros(shape, dtype)

    monkeypatch.setattr(bts_unet, "kaiming_normal", record)
    params = flat(shapes_of(BTSUNet(width=2, deep_supervision=True), SHAPE)["params"])
    expected = [
        leaf.shape
        for path, leaf in params.items()
        if path.endswith("kernel") and not path.startswith(("supervise", "head"))
    ]
    assert len(expected) == 2 * 8 + 1 + 3
    assert sorted(drawn) == sorted(expected)


def test_an_odd_width_is_refused():
    with pytest.raises(UserError, match=r"width=3: .*even"):
        shapes_of(BTSUNet(width=3), SHAPE)


def test_sides_that_cannot_be_halved_three_times_are_refused():
    with pytest.raises(TypeError, match="concatenate"):
        shapes_of(BTSUNet(width=2), (1, 32, 52, 1))
