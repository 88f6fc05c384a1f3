"""Multi-peak generalised histogram equalisation against its rules written out pixel by pixel."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from mtbus_jax.images import enhancement, preprocess
from mtbus_jax.images.phantom import make_phantom

enhance = enhancement.equalise_multi_peak


def joined_by_scipy(image):
    """Grey value and Laplacian joined: ½ of each sign's largest is four grey values."""
    kernel = np.full((3, 3), -1)
    kernel[1, 1] = 8
    around = ndimage.correlate(image.astype(int), kernel, mode="nearest")
    value = image.astype(float)
    for sign in (1, -1):
        of_sign = sign * around > 0
        if of_sign.any():
            value[of_sign] += sign * 4 * np.abs(around[of_sign]) / np.abs(around[of_sign]).max()
    value -= value.min()
    return value / value.max() * 255


def peaks_by_hand(heights):
    """Peaks of peaks, then three times a rule that drops some."""

    def of(sequence):
        runs = [sequence[0]]  # the last of equal neighbours stands for them
        for item in sequence[1:]:
            runs[-1:] = [item] if heights[item] == heights[runs[-1]] else [runs[-1], item]
        height = [-1, *(heights[place] for place in runs), -1]
        return [
            place for i, place in enumerate(runs, 1) if height[i - 1] < height[i] > height[i + 1]
        ]

    peaks = [p for p in of(of(range(256))) if heights[p] >= max(heights) / 20]
    for one in (
        lambda a, b: b - a < 15,
        lambda a, b: np.mean(heights[a + 1 : b]) > 0.75 * (heights[a] + heights[b]) / 2,
    ):
        i = 0
        while i + 1 < len(peaks):
            a, b = peaks[i], peaks[i + 1]
            if one(a, b):
                peaks.remove(a if heights[b] > heights[a] else b)
            else:
                i += 1
    return peaks


def equalised_by_hand(joined):
    """Each level's new value is where its rank among the piece's pixels puts it."""
    pixels = joined.ravel()
    heights = [int((pixels == level).sum()) for level in range(256)]
    peaks, cuts = peaks_by_hand(heights), []
    for a, b in itertools.pairwise(peaks):
        between = heights[a + 1 : b]
        cuts.append(a + 1 + between.index(min(between)))
    found = np.zeros_like(joined)
    begin = 0
    for end in [*cuts, 255]:
        inside = (joined >= begin) & (joined <= end)
        values = np.sort(joined[inside])
        for level in np.unique(values):
            upto, first = (values <= level).sum(), (values == values[0]).sum()
            share = (upto - first) / (len(values) - first) if len(values) > first else None
            new = level if share is None else begin + np.floor(share * (end - begin) + 0.5)
            found[joined == level] = new
        begin = end + 1
    return found, cuts


def bands(height=70, width=90):
    """Three kinds of tissue with noise: a histogram of three peaks."""
    rng = np.random.default_rng(3)
    means = np.repeat(
        [40, 120, 210], [height // 2, height // 4, height - height // 2 - height // 4]
    )
    return np.clip(rng.normal(means[:, None], 9, (height, width)), 0, 255).astype(np.uint8)


PICTURES = {
    "bands": bands(),
    "phantom": make_phantom(0, label=1).image[:120, :161],
    "noise": np.random.default_rng(0).integers(0, 256, (33, 57), dtype=np.uint8),
    "two values": np.tile(np.uint8([[0, 0, 0], [0, 9, 9]]), (5, 7)),
    "one bright pixel": np.pad(np.uint8([[255]]), ((3, 8), (4, 9))),
    "ramp": np.tile(np.arange(200, dtype=np.uint8), (17, 1)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_against_the_rules_pixel_by_pixel(name):
    image = PICTURES[name]
    joined = enhancement.joined_with_surroundings(image)
    exact = joined_by_scipy(image)
    # Rounded half up; sums in another order may differ where a value is a half.
    assert np.abs(joined - exact).max() <= 0.5 + 1e-9
    found = enhance(image)
    expected, cuts = equalised_by_hand(joined)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (np.uint8, image.shape)
    assert enhancement.valleys(np.bincount(joined.ravel(), minlength=256)) == cuts


def test_each_kind_of_tissue_is_spread_over_its_own_range():
    image = bands()
    joined = enhancement.joined_with_surroundings(image)
    low, high = enhancement.valleys(np.bincount(joined.ravel(), minlength=256))
    assert 40 < low < 120 < high < 210
    found = enhance(image)
    for begin, end in ((0, low), (low + 1, high), (high + 1, 255)):
        inside = (joined >= begin) & (joined <= end)
        values = found[inside]
        assert (values.min(), values.max()) == (begin, end)
        # Nearly uniform: quartiles of its ranks lie at quarters of its range.
        quarters = np.quantile(values, [0.25, 0.5, 0.75])
        np.testing.assert_allclose((quarters - begin) / (end - begin), [0.25, 0.5, 0.75], atol=0.06)
        assert values.std() > joined[inside].std()


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3)])
def test_a_picture_of_one_value_stays(value, shape):
    """However often it is done."""
    image = np.full(shape, value, np.uint8)
    np.testing.assert_array_equal(enhance(image), image)
    np.testing.assert_array_equal(enhance(enhance(image)), image)


def test_a_second_pass_is_another_picture():
    """Not idempotent, as equalisation with surroundings is not: pictures are enhanced once."""
    once = enhance(bands())
    assert (enhance(once) != once).any()


@pytest.mark.parametrize("name", PICTURES)
def test_turned_flipped_and_brighter_pictures(name):
    image = PICTURES[name]
    found = enhance(image)
    for change in (np.fliplr, np.flipud, np.transpose):
        np.testing.assert_array_equal(enhance(change(image)), change(found))
    if image.max() < 250:
        np.testing.assert_array_equal(enhance(image + np.uint8(5)), found)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 3)])
def test_narrow_pictures(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = enhance(image)
    assert (found.min(), found.max()) == (0, 255)


def test_the_input_is_enhanced_at_its_own_size_and_then_resized():
    image = PICTURES["phantom"]
    for resizing in preprocess.RESIZES:
        found = preprocess.to_input(image, 32, 48, resizing=resizing, enhancement="multi_peak")
        expected = preprocess.resize(enhance(image), 32, 48, method=resizing)
        np.testing.assert_array_equal(found, expected)
        plain = preprocess.to_input(image, 32, 48, resizing=resizing, enhancement="none")
        np.testing.assert_array_equal(plain, preprocess.resize(image, 32, 48, method=resizing))
        assert (plain != found).any()
