"""Swin UNETR against MONAI 1.6.1's `SwinUNETR` (fixtures/make_swin_unetr.py), and its windows."""

import itertools

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
    output_shapes,
    parameter_count,
    quick_jit,
    shapes_of,
)

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import swin
from mtbus_jax.models.swin_unetr import SwinUNETR

SMALL = {"width": 4, "depths": (1, 1, 1, 1), "heads": (2, 1, 2, 4), "window": 3}


def zero_gradient(path: str) -> bool:
    """The one convolution with a bias in front of a norm is the head's.

    A bias on the keys has no effect either (it moves all scores of a query alike), but shares an
    array with those on the queries and values.
    """
    return path == "head/conv/bias"


def test_segmentation_agrees_with_monai():
    """At default sizes; windows are padded, shifted, and smaller than the map and larger.

    MONAI's takes intensities as they come.
    """
    module = SwinUNETR(tasks=("seg",), centred_grey=False)
    assert_agrees(module, load("swin_unetr"), is_zero=zero_gradient)


def test_grey_values_are_centred_unless_it_is_switched_off():
    image = np.random.default_rng(3).uniform(0, 255, (2, 32, 64, 1)).astype(np.float32)
    centred, as_it_is = (SwinUNETR(**SMALL, centred_grey=on) for on in (True, False))
    variables = drawn_variables(centred, image.shape)
    # In the same program, since the blocks make a thousand times as much of a rounding.
    by_hand = quick_jit(lambda v, pixels: as_it_is.apply(v, pixels / 127.5 - 1.0))
    given, wanted = quick_jit(centred.apply)(variables, image), by_hand(variables, image)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_the_encoder_tells_a_dark_image_from_a_bright_one():
    """Of uniform images, whose patches differ in brightness alone; unscaled they look the same."""

    def distance(centred_grey):
        module = SwinUNETR(**SMALL, tasks=("cls",), centred_grey=centred_grey)
        dark, bright = (jnp.full((1, 32, 64, 1), grey, jnp.float32) for grey in (60.0, 200.0))
        apply = quick_jit(lambda v, image: module.apply(v, image, capture_intermediates=is_first))
        variables = jax.jit(module.init)(jax.random.key(0), dark)
        dark, bright = (
            apply(variables, image)[1]["intermediates"]["swin"]["stage_1_0"]["norm_1"]["__call__"][
                0
            ]
            for image in (dark, bright)
        )
        return float(jnp.sqrt(jnp.mean((dark - bright) ** 2)))

    assert distance(True) > 0.5
    assert distance(False) < 0.05


def is_first(module, _method):
    return module.name == "norm_1"


def test_segmentation_alone_gives_one_map():
    outputs = output_shapes(SwinUNETR(tasks=("seg",)), (2, 64, 96, 1))
    assert outputs == types.Outputs(((2, 64, 96, 1),), None, {})


def test_parameter_count_is_monais():
    """Counted with MONAI 1.6.1: SwinUNETR(in_channels=1, out_channels=1, spatial_dims=2)."""
    assert parameter_count(SwinUNETR(tasks=("seg",))) == 6_302_203
    # The head reads the last encoder map, the bottleneck and the first decoder map.
    assert parameter_count(SwinUNETR()) == 6_302_203 + head_count(192 + 384 + 192) == 9_974_782


@pytest.mark.parametrize("tasks", [("seg", "cls"), ("cls",)])
def test_with_a_head_and_with_nothing_else(tasks):
    module = SwinUNETR(**SMALL, tasks=tasks)
    names = check_tasks(module, size=(64, 96), is_zero=zero_gradient)
    decoder = {f"{part}_{i}" for part in ("up", "decoder") for i in range(5)}
    decoder |= {"skip_0", "skip_1", "skip_2", "skip_3", "segment"}
    expected = {"swin", "bottleneck"} | (decoder if "seg" in tasks else set())
    assert names == expected | ({"head"} if "cls" in tasks else set())


@pytest.mark.parametrize("size", [(32, 64), (96, 32), (128, 128)])
def test_sides_may_be_any_multiple_of_32(size):
    outputs = output_shapes(SwinUNETR(), (1, *size, 1))
    assert outputs.segmentation == ((1, *size, 1),)


def test_windows_are_cut_row_by_row_and_joined_again():
    tokens = np.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    windows = swin.partition(tokens, (3, 4))
    assert windows.shape == (2, 4, 12, 3)
    np.testing.assert_array_equal(windows[1, 1].reshape(3, 4, 3), tokens[1, :3, 4:])
    np.testing.assert_array_equal(windows[1, 2].reshape(3, 4, 3), tokens[1, 3:, :4])
    np.testing.assert_array_equal(swin.join(windows, (3, 4), (6, 8)), tokens)


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((6, 12), (3, 3), (1, 1)), ((4, 14), (4, 7), (0, 3)), ((14, 7), (7, 7), (3, 0))],
)
def test_after_a_shift_only_tokens_of_one_neighbourhood_see_each_other(size, window, shift):
    """Two tokens of a window do so iff, before the shift, they were less than a window apart."""
    position = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    position = np.roll(position, (-shift[0], -shift[1]), axis=(0, 1))
    windows = swin.partition(position[None], window)[0]
    mask = swin.shift_mask(size, window, shift)
    assert mask.shape == (len(windows), np.prod(window), np.prod(window))
    for cut, found in zip(windows, mask, strict=True):
        for (i, a), (j, b) in itertools.product(enumerate(cut), repeat=2):
            assert (found[i, j] == 0) == np.all(np.abs(a - b) < window)
    assert set(np.unique(mask)) == {0.0, -100.0}


def test_a_map_of_one_window_is_not_shifted():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(1, 4, 4, 6)).astype(np.float32)
    plain, shifted = (swin.SwinBlock(2, 4, shifted=each) for each in (False, True))
    variables = drawn_variables(plain, tokens.shape)
    plain, shifted = (quick_jit(each.apply) for each in (plain, shifted))
    np.testing.assert_array_equal(shifted(variables, tokens), plain(variables, tokens))
    # A row more, and it is.
    taller = rng.normal(size=(1, 5, 4, 6)).astype(np.float32)
    difference = plain(variables, taller) - shifted(variables, taller)
    assert np.abs(difference).max() > 0.01


def test_relative_position_index_is_one_number_per_offset():
    index = swin.relative_position_index(3)
    row, col = np.divmod(np.arange(9), 3)
    offsets = {}
    for i, j in itertools.product(range(9), repeat=2):
        offsets.setdefault((row[i] - row[j], col[i] - col[j]), set()).add(int(index[i, j]))
    assert len(offsets) == 25
    # Ordered by row offset, then column offset.
    assert [offsets[key] for key in sorted(offsets)] == [{k} for k in range(25)]


def test_initial_values_follow_monai():
    """Biases of relative positions N(0, 0.02²); dense layers by PyTorch's rule."""
    block = swin.SwinBlock(heads=24, window=7, shifted=False)
    tokens = jnp.zeros((1, 7, 7, 96))
    params = flat(jax.jit(block.init)(jax.random.key(0), tokens)["params"])
    assert np.std(params["attention/relative_position_bias"]) == pytest.approx(0.02, rel=0.1)
    bound = 1 / np.sqrt(96)
    assert 0.99 * bound < np.abs(params["attention/qkv/kernel"]).max() <= bound


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 8}, "multiple of 3"),
        ({"heads": (3, 6, 12)}, "4 numbers"),
        ({"depths": (2, 2)}, "4 numbers"),
    ],
)
def test_impossible_options_are_refused(options, word):
    with pytest.raises(UserError, match=word):
        shapes_of(SwinUNETR(**options), (1, 32, 64, 1))
