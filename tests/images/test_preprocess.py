"""Greyscale against Pillow, resizing against explicit loops, masks by hand."""

import numpy as np
import pytest
from PIL import Image

from mtbus_jax.images import preprocess


def test_greyscale_equals_pillow_for_every_kind_of_colour():
    rng = np.random.default_rng(0)
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 52, 3)
    for rgb in (lattice, rng.integers(0, 256, (61, 83, 3), np.uint8)):
        expected = np.array(Image.fromarray(rgb).convert("L"))
        np.testing.assert_array_equal(preprocess.to_greyscale(rgb), expected)


def test_greyscale_keeps_grey_pictures_and_ignores_alpha():
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    alpha = 255 - grey
    rgba = np.stack([grey, grey, grey, alpha], axis=-1)
    for picture in (grey, grey[..., None], rgba[..., :3], rgba):
        np.testing.assert_array_equal(preprocess.to_greyscale(picture), grey)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 5), np.uint16), np.zeros((4, 5, 2), np.uint8), np.zeros(5, np.uint8)]
)
def test_greyscale_refuses_other_types_and_shapes(image):
    with pytest.raises(ValueError, match="expected"):
        preprocess.to_greyscale(image)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((7, 5), (3, 4)),
        ((473, 319), (128, 96)),
        ((5, 7), (12, 9)),
        ((6, 4), (6, 4)),
        ((1, 9), (3, 2)),
    ],
)
def test_resize_takes_the_pixel_at_floor_of_i_times_source_over_target(source, target):
    array = np.random.default_rng(0).integers(0, 256, source, np.uint8)
    expected = np.zeros(target, np.uint8)
    for row in range(target[0]):
        for col in range(target[1]):
            expected[row, col] = array[row * source[0] // target[0], col * source[1] // target[1]]
    np.testing.assert_array_equal(preprocess.resize_nearest(array, *target), expected)


def test_resize_keeps_type_and_channels():
    array = np.random.default_rng(0).random((9, 7, 3)) < 0.5
    resized = preprocess.resize_nearest(array, 4, 6)
    assert resized.shape == (4, 6, 3)
    assert resized.dtype == bool
    np.testing.assert_array_equal(resized[..., 1], preprocess.resize_nearest(array[..., 1], 4, 6))


def test_merged_masks_are_the_union_of_grey_rgb_and_rgba_files():
    one_bit = np.array([[True, False, False, False]])
    grey = np.array([[0, 1, 0, 0]], np.uint8)
    rgb = np.zeros((1, 4, 3), np.uint8)
    rgb[0, 2, 1] = 255
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[..., 3] = 255
    merged = preprocess.merge_masks([one_bit, grey, rgb, rgba])
    assert merged.dtype == bool
    np.testing.assert_array_equal(merged, [[True, True, True, False]])


def test_merging_refuses_no_mask_and_masks_of_two_sizes():
    with pytest.raises(ValueError, match="no mask"):
        preprocess.merge_masks([])
    with pytest.raises(ValueError, match="differ in size"):
        preprocess.merge_masks([np.zeros((3, 4), bool), np.zeros((4, 3), bool)])
