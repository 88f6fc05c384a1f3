"""ACSNet's metrics against hand values and direct NumPy and SciPy computations."""

import math

import numpy as np
import pytest
import scipy.spatial
from PIL import Image

from mtbus_jax.images.preprocess import lesion_of
from mtbus_jax.metrics import acsnet, segmentation

SHAPE = (24, 37)
EMPTY = np.zeros(SHAPE, bool)


def blob(seed: int) -> np.ndarray:
    """An irregular mask without regard to the edges."""
    rng = np.random.default_rng(seed)
    row, col = np.indices(SHAPE)
    centre = rng.uniform((6, 8), (18, 28))
    radius = 5 + rng.normal(0, 0.8, SHAPE)
    return np.hypot(row - centre[0], col - centre[1]) < radius


def box(rows: slice, cols: slice) -> np.ndarray:
    mask = EMPTY.copy()
    mask[rows, cols] = True
    return mask


@pytest.mark.parametrize("size", [(24, 37), (12, 20), (9, 7), (40, 50)])
def test_soft_mask_by_the_triangle_filter(size):
    """Each output pixel is the mean under a triangle as wide as the shrinking, at least 1 pixel."""

    def weights(source, target):
        scale = source / target
        reach = max(scale, 1.0)
        centre = (np.arange(target) + 0.5) * scale
        distance = np.abs(np.arange(source) + 0.5 - centre[:, None]) / reach
        found = np.clip(1 - distance, 0, None)
        return found / found.sum(axis=1, keepdims=True)

    mask = blob(1)
    expected = weights(SHAPE[0], size[0]) @ mask @ weights(SHAPE[1], size[1]).T
    found = acsnet.soft_mask(mask, *size)
    assert found.shape == size
    np.testing.assert_allclose(found, expected, atol=1.5 / 255)  # 8 bits after each direction
    if size == SHAPE:
        np.testing.assert_array_equal(found, mask)


def test_soft_borders_by_hand():
    # Lesion of 2×3 pixels, half a pixel of border left and right of it.
    truth = np.zeros(SHAPE)
    truth[4:6, 10:13] = 1
    truth[4:6, [9, 13]] = 0.5
    # Finds 4 of its 6 pixels, all of the border, and 3 pixels beyond.
    prediction = box(slice(4, 6), slice(11, 14))
    prediction[8, 0:3] = True
    assert prediction.sum() == 9
    assert acsnet.legacy_soft_border_dice(truth, prediction) == pytest.approx(8 / (8 + 2 + 3))
    assert acsnet.legacy_soft_border_jaccard(truth, prediction) == pytest.approx(4 / (4 + 2 + 3))


def test_without_borders_they_are_the_usual_ones():
    for seed in range(5):
        truth, prediction = blob(seed), blob(seed + 50)
        soft = truth.astype(float)
        assert acsnet.legacy_soft_border_dice(soft, prediction) == pytest.approx(
            segmentation.dice(truth, prediction)
        )
        assert acsnet.legacy_soft_border_jaccard(soft, prediction) == pytest.approx(
            segmentation.jaccard(truth, prediction)
        )


def test_borders_against_counting():
    for seed in range(5):
        soft = acsnet.soft_mask(np.kron(blob(seed), np.ones((3, 3), bool)), *SHAPE)
        prediction = blob(seed + 50)
        counted = [(t, p) for t, p in zip(soft.flat, prediction.flat, strict=True) if t in (0, 1)]
        assert 0 < len(counted) < soft.size
        hit = sum(t == 1 and p for t, p in counted)
        wrong = sum(bool(t) != p for t, p in counted)
        found = acsnet.legacy_soft_border_dice(soft, prediction)
        assert found == pytest.approx(2 * hit / (2 * hit + wrong))


def test_errors_at_the_outline_are_not_seen():
    """What makes the published figures too high: a mask a pixel too large is perfect."""
    soft = acsnet.soft_mask(np.kron(blob(2), np.ones((3, 3), bool)), 60, 90)
    too_large = soft > 0
    assert segmentation.dice(soft > 0.5, too_large) < 0.97
    assert acsnet.legacy_soft_border_dice(soft, too_large) == 1


def boundary_points(mask: np.ndarray) -> np.ndarray:
    """Pixels with one of four neighbours outside, the outside of the image included."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def test_directed_distance_against_all_pairs():
    for seed in range(5):
        truth, prediction = blob(seed), blob(seed + 50)
        pairs = scipy.spatial.distance.cdist(boundary_points(prediction), boundary_points(truth))
        found = acsnet.legacy_directed_surface_distance(truth, prediction)
        assert found == pytest.approx(pairs.min(axis=1).mean())
        both = np.concatenate([pairs.min(axis=1), pairs.min(axis=0)])
        assert segmentation.average_surface_distance(truth, prediction) == pytest.approx(
            both.mean()
        )


def test_distances_go_one_way():
    truth, part = box(slice(4, 5), slice(5, 25)), box(slice(4, 5), slice(5, 10))
    assert acsnet.legacy_directed_surface_distance(truth, part) == 0
    # The other way: of 20 pixels 15 lie 1 to 15 pixels beyond the part.
    assert acsnet.legacy_directed_surface_distance(part, truth) == pytest.approx(120 / 20)


def test_hausdorff95_is_the_usual_one_but_for_empty_masks():
    truth, prediction = blob(3), blob(4)
    usual = segmentation.hausdorff95(truth, prediction)
    assert usual > 0
    assert acsnet.legacy_hausdorff95(truth, prediction) == usual


@pytest.mark.parametrize(
    ("truth", "prediction"), [(EMPTY, EMPTY), (EMPTY, blob(0)), (blob(0), EMPTY)]
)
def test_empty_masks(truth, prediction):
    assert acsnet.legacy_hausdorff95(truth, prediction) == 0
    assert acsnet.legacy_directed_surface_distance(truth, prediction) == 0
    for metric in (acsnet.legacy_soft_border_dice, acsnet.legacy_soft_border_jaccard):
        found = metric(truth.astype(float), prediction)
        if truth.any() or prediction.any():
            assert found == 0
        else:
            assert math.isnan(found)
    # All border, and nothing predicted elsewhere.
    assert math.isnan(acsnet.legacy_soft_border_dice(truth * 0.5 + EMPTY, truth))


def test_other_types_and_shapes_are_refused():
    with pytest.raises(TypeError, match="floating"):
        acsnet.legacy_soft_border_dice(EMPTY, EMPTY)
    with pytest.raises(TypeError, match="boolean"):
        acsnet.legacy_soft_border_jaccard(EMPTY.astype(float), EMPTY.astype(float))
    with pytest.raises(ValueError, match="alike"):
        acsnet.legacy_soft_border_dice(EMPTY.astype(float), EMPTY.T)
    with pytest.raises(TypeError, match="boolean"):
        acsnet.legacy_directed_surface_distance(EMPTY.astype(float), EMPTY)


@pytest.mark.real
def test_a_seventh_of_the_lesions_of_busi_is_border(real_data_dir):
    shares = []
    for name in ("benign", "malignant"):
        paths = sorted((real_data_dir / "Dataset_BUSI_with_GT" / name).glob("*_mask.png"))
        for path in paths[::5]:
            with Image.open(path) as picture:
                soft = acsnet.soft_mask(lesion_of(np.array(picture.convert("L")))[0], 256, 256)
            shares.append(np.count_nonzero((soft > 0) & (soft < 1)) / soft.sum())
    assert len(shares) > 100
    assert 0.12 < np.mean(shares) < 0.17
