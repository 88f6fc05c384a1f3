"""Grey and resizing against stored results of OpenCV (fixtures/make_opencv.py), masks by hand."""

import hashlib
import pathlib

import numpy as np
import pytest

from mtbus_jax import images
from mtbus_jax.export import predict_onnx
from mtbus_jax.images import preprocess

FIXTURE = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "opencv.npz"


@pytest.fixture(scope="module")
def opencv():
    with np.load(FIXTURE) as stored:
        return dict(stored)


def test_greyscale_equals_opencvs_for_every_colour(opencv):
    np.testing.assert_array_equal(preprocess.to_greyscale(opencv["rgb"]), opencv["grey"])
    green, blue = np.meshgrid(*2 * [np.arange(256, dtype=np.uint8)], indexing="ij")
    digest = hashlib.sha256()
    for red in range(256):
        plane = np.stack([np.full_like(green, red), green, blue], axis=-1)
        digest.update(preprocess.to_greyscale(plane).tobytes())
    assert digest.hexdigest() == str(opencv["sha256_of_all_colours"])


@pytest.mark.real
def test_every_image_of_busi_is_read_as_opencv_reads_it(real_data_dir):
    cv2 = pytest.importorskip("cv2", reason="NOT TESTED without mtbus_jax[curate]")
    paths = sorted((real_data_dir / "Dataset_BUSI_with_GT").glob("*/*.png"))
    coloured = 0
    for path in (path for path in paths if "_mask" not in path.name):
        expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        (frame,) = images.read(path)
        np.testing.assert_array_equal(frame.grey, expected, err_msg=path.name)
        coloured += "colour turned to grey" in frame.notes
        small = cv2.resize(expected, (128, 96), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(preprocess.resize_nearest(frame.grey, 96, 128), small)
    assert coloured == 16


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


@pytest.mark.parametrize("module", [preprocess, predict_onnx])
def test_resizing_takes_opencvs_pixels_from_64_to_2048(opencv, module):
    """Every length, along both axes, to 64, 96, 128, 224, 256 and 299 pixels."""
    sources = opencv["sources"].tolist()
    assert sources == list(range(64, 2049))
    for target in opencv["targets"].tolist():
        for source, difference in zip(sources, opencv[f"difference_{target}"], strict=True):
            expected = np.arange(target) * source // target + difference
            ramp = np.arange(source)
            row = module.resize_nearest(ramp[None], 1, target)[0]
            column = module.resize_nearest(ramp[:, None], target, 1)[:, 0]
            assert (row == expected).all(), (source, target)
            assert (column == expected).all(), (source, target)


def test_resizing_differs_from_whole_numbers_where_opencv_does(opencv):
    """So that the test above cannot pass with floor(i · source / target)."""
    wide = [s for s in range(130, 1100) if opencv["difference_128"][s - 64].any()]
    assert len(wide) == 33


@pytest.mark.parametrize(
    ("source", "target"),
    [((7, 5), (3, 4)), ((476, 319), (128, 96)), ((5, 7), (12, 9)), ((6, 4), (6, 4))],
)
def test_resizing_of_both_axes_at_once(source, target):
    array = np.random.default_rng(0).integers(0, 256, source, np.uint8)
    expected = np.zeros(target, np.uint8)
    for row in range(target[0]):
        for col in range(target[1]):
            from_row = int(row * (1 / (target[0] / source[0])))
            from_col = int(col * (1 / (target[1] / source[1])))
            expected[row, col] = array[from_row, from_col]
    np.testing.assert_array_equal(preprocess.resize_nearest(array, *target), expected)


def mean_over_areas(image, height, width):
    """By repetition: each pixel so often that both sizes divide the lengths, then means of blocks.

    In whole numbers, halves rounded up.
    """
    rows, cols = image.shape
    big = np.repeat(np.repeat(image.astype(int), height, axis=0), width, axis=1)
    sums = big.reshape(height, rows, width, cols).sum(axis=(1, 3))
    return np.floor_divide(2 * sums + rows * cols, 2 * rows * cols).astype(np.uint8)


@pytest.mark.parametrize("module", [preprocess, predict_onnx])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((7, 5), (3, 4)),
        ((47, 31), (16, 32)),
        ((12, 6), (4, 3)),
        ((5, 7), (12, 9)),
        ((6, 4), (6, 4)),
    ],
)
def test_areas_are_means_of_what_they_cover(module, source, target):
    image = np.random.default_rng(0).integers(0, 256, source, np.uint8)
    found = module.resize_area(image, *target)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mean_over_areas(image, *target))


@pytest.mark.parametrize("module", [preprocess, predict_onnx])
def test_areas_by_hand(module):
    """Columns of 1.5 pixels: (2·10 + 40)/3 = 20 and (40 + 2·71)/3 = 60.7; a half is rounded up."""
    np.testing.assert_array_equal(
        module.resize_area(np.array([[10, 40, 71]], np.uint8), 1, 2), [[20, 61]]
    )
    np.testing.assert_array_equal(
        module.resize_area(np.array([[0], [1], [2], [1]], np.uint8), 2, 1), [[1], [2]]
    )


def test_areas_of_a_large_picture_are_exact():
    """White stays white: its sum, 255 · 3000 · 4001, needs more digits than float32 has."""
    white = np.full((3000, 4001), 255, np.uint8)
    assert (preprocess.resize_area(white, 128, 96) == 255).all()


def test_resizing_by_name():
    image = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    assert preprocess.RESIZES == ("nearest", "area")
    for method in preprocess.RESIZES:
        expected = getattr(preprocess, f"resize_{method}")(image, 4, 6)
        np.testing.assert_array_equal(preprocess.resize(image, 4, 6, method=method), expected)


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


@pytest.mark.parametrize(
    ("values", "lesion", "between"),
    [
        ([0, 0, 255], [0, 0, 1], False),
        ([0, 0, 1], [0, 0, 1], False),
        ([0, 9, 9], [0, 1, 1], False),
        ([0, 0, 0], [0, 0, 0], False),
        ([7, 7, 7], [1, 1, 1], False),
        ([0, 1, 2], [0, 1, 1], False),  # numbers of classes
        ([0, 100, 255], [0, 0, 1], True),  # a soft edge
        ([0, 128, 255], [0, 1, 1], True),
        ([2, 120, 251], [0, 0, 1], True),  # as JPEG leaves it
        ([0, 90, 200], [0, 0, 1], True),
        ([1, 1, 255], [0, 0, 1], True),
    ],
)
def test_what_a_mask_calls_lesion(values, lesion, between):
    grey = np.array([values], np.uint8)
    green, red = np.zeros((2, 1, 3, 3), np.uint8)
    green[..., 1], red[..., 0] = values, values
    for mask in (grey, grey[..., None], green, red):
        found, warned = preprocess.lesion_of(mask)
        np.testing.assert_array_equal(found, np.array([lesion], bool))
        assert warned == between


def test_soft_edges_do_not_make_a_lesion_larger():
    """A disc drawn at eight times the size and made smaller by means."""
    rows, cols = np.mgrid[:320, :448]
    disc = (rows - 160) ** 2 + (cols - 200) ** 2 < 40**2
    soft = np.rint(disc.reshape(40, 8, 56, 8).mean((1, 3)) * 255).astype(np.uint8)
    found, between = preprocess.lesion_of(soft)
    assert between
    assert found.sum() == pytest.approx(np.pi * 5**2, rel=0.05)
    assert (soft > 0).sum() > 1.1 * found.sum()


def test_merging_refuses_no_mask_and_masks_of_two_sizes():
    with pytest.raises(ValueError, match="no mask"):
        preprocess.merge_masks([])
    with pytest.raises(ValueError, match="differ in size"):
        preprocess.merge_masks([np.zeros((3, 4), bool), np.zeros((4, 3), bool)])
