"""Segmentation metrics against scikit-learn, scikit-image and brute force; every empty case."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from mtbus_jax.metrics import segmentation as seg

HEIGHT, WIDTH = 20, 33
NAN = float("nan")


def blank():
    return np.zeros((HEIGHT, WIDTH), bool)


def box(top, left, bottom, right):
    mask = blank()
    mask[top:bottom, left:right] = True
    return mask


def ellipse(row, col, half_rows, half_cols, shape=(HEIGHT, WIDTH)):
    rows, cols = np.indices(shape)
    return ((rows - row) / half_rows) ** 2 + ((cols - col) / half_cols) ** 2 <= 1


def pairs():
    rng = np.random.default_rng(0)
    result = [
        (ellipse(9, 14, 6, 9), ellipse(10, 17, 5, 11)),
        (ellipse(9, 14, 6, 9), ellipse(4, 28, 3, 4)),  # apart
        (ellipse(9, 14, 6, 9), ellipse(9, 14, 2, 3)),  # one inside the other
        (box(0, 0, 7, 12), box(3, 5, 20, 33)),  # at the image's edge
        (ellipse(9, 14, 6, 9) ^ ellipse(9, 14, 3, 4), ellipse(9, 14, 6, 9)),  # with a hole
    ]
    for density in (0.004, 0.05, 0.5, 0.97):
        result.append(tuple(rng.random((2, HEIGHT, WIDTH)) < density))
    one, other = blank(), blank()
    one[2, 3] = other[17, 30] = True
    result.append((one, other))
    return result


PAIRS = pairs()


def boundary(mask):
    """Pixels with a 4-neighbour outside the mask, by looking at each; the frame is outside."""
    rows, cols = mask.shape
    result = np.zeros_like(mask)
    for r in range(rows):
        for c in range(cols):
            around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
            inside = [0 <= i < rows and 0 <= j < cols and mask[i, j] for i, j in around]
            result[r, c] = mask[r, c] and not all(inside)
    return result


def directed(a, b):
    """Distance of each pixel of ``a`` to the nearest of ``b``, and back, by all pairs."""
    distances = cdist(np.argwhere(a), np.argwhere(b))
    return distances.min(axis=1), distances.min(axis=0)


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_overlap_equals_scikit_learn(truth, prediction):
    y, p = truth.ravel(), prediction.ravel()
    assert seg.dice(truth, prediction) == pytest.approx(sklearn.metrics.f1_score(y, p))
    assert seg.jaccard(truth, prediction) == pytest.approx(sklearn.metrics.jaccard_score(y, p))
    assert seg.recall(truth, prediction) == pytest.approx(sklearn.metrics.recall_score(y, p))
    assert seg.precision(truth, prediction) == pytest.approx(sklearn.metrics.precision_score(y, p))
    specificity = sklearn.metrics.recall_score(~y, ~p)
    assert seg.specificity(truth, prediction) == pytest.approx(specificity)


def test_overlap_by_hand():
    # 4×6 truth and 3×8 prediction share 2×5: TP 10, FP 14, FN 14, TN 660 − 38.
    truth, prediction = box(2, 3, 6, 9), box(4, 4, 7, 12)
    assert seg.dice(truth, prediction) == pytest.approx(20 / 48)
    assert seg.jaccard(truth, prediction) == pytest.approx(10 / 38)
    assert seg.recall(truth, prediction) == pytest.approx(10 / 24)
    assert seg.precision(truth, prediction) == pytest.approx(10 / 24)
    assert seg.specificity(truth, prediction) == pytest.approx(622 / 636)
    # Recall and precision apart: prediction within truth.
    assert seg.recall(truth, box(2, 3, 4, 9)) == pytest.approx(0.5)
    assert seg.precision(truth, box(2, 3, 4, 9)) == 1


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_hausdorff_equals_scikit_image_and_brute_force(truth, prediction):
    found = seg.hausdorff(truth, prediction)
    assert found == pytest.approx(hausdorff_distance(truth, prediction))
    assert found == pytest.approx(max(d.max() for d in directed(truth, prediction)))


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_surface_distances_equal_brute_force(truth, prediction):
    there, back = directed(boundary(truth), boundary(prediction))
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert seg.hausdorff95(truth, prediction) == pytest.approx(expected)
    expected = (there.sum() + back.sum()) / (len(there) + len(back))
    assert seg.average_surface_distance(truth, prediction) == pytest.approx(expected)


def test_distances_by_hand():
    one, other = blank(), blank()
    one[2, 3] = other[5, 7] = True
    for metric in (seg.hausdorff, seg.hausdorff95, seg.average_surface_distance):
        assert metric(one, other) == 5  # 3 rows and 4 columns
    # Two bars of 1 row and of 1 row + a far pixel: of 11 distances ten are 0 and one is 9.
    truth, prediction = box(4, 2, 5, 12), box(4, 2, 5, 12)
    prediction[13, 2] = True
    assert seg.hausdorff(truth, prediction) == 9
    assert seg.hausdorff95(truth, prediction) == pytest.approx(4.5)  # rank 9.5 of 0 … 10
    assert seg.average_surface_distance(truth, prediction) == pytest.approx(9 / 21)


def test_distance_of_a_hole_counts_pixels_not_outlines():
    # The whole pixel sets: a filled hole of half-width 4 is up to 4 px away from the ring.
    truth, prediction = box(2, 3, 17, 24) & ~box(6, 9, 13, 16), box(2, 3, 17, 24)
    assert seg.hausdorff(truth, prediction) == 4


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_symmetric_metrics(truth, prediction):
    for name in ("dice", "jaccard", "hausdorff", "hausdorff95", "average_surface_distance"):
        metric = seg.METRICS[name]
        assert metric(truth, prediction) == pytest.approx(metric(prediction, truth))


def test_a_perfect_mask():
    mask = ellipse(9, 14, 6, 9)
    found = {name: metric(mask, mask) for name, metric in seg.METRICS.items()}
    distances = ("hausdorff", "hausdorff95", "average_surface_distance", "legacy_hausdorff")
    assert found == {name: 0.0 if name in distances else 1.0 for name in seg.METRICS}


# The prediction of one pixel leaves 659 of 660 pixels true negatives.
EMPTY_RULES = {
    # name: (both empty, only truth empty, only prediction empty)
    "dice": (1, 0, 0),
    "jaccard": (1, 0, 0),
    "hausdorff": (0, NAN, NAN),
    "hausdorff95": (0, NAN, NAN),
    "average_surface_distance": (0, NAN, NAN),
    "recall": (NAN, NAN, 0),
    "precision": (NAN, 0, NAN),
    "specificity": (1, 659 / 660, 1),
    "legacy_recall": (NAN, NAN, NAN),
    "legacy_precision": (NAN, NAN, NAN),
    "legacy_hausdorff": (0, None, None),  # see below
}


def one_pixel():
    mask = blank()
    mask[7, 30] = True
    return mask


@pytest.mark.parametrize("name", seg.METRICS)
def test_empty_masks(name):
    cases = [(blank(), blank()), (blank(), one_pixel()), (one_pixel(), blank())]
    for (truth, prediction), expected in zip(cases, EMPTY_RULES[name], strict=True):
        if expected is not None:
            found = seg.METRICS[name](truth, prediction)
            np.testing.assert_equal(float(found), float(expected))


def test_legacy_hausdorff_of_one_empty_mask_is_undefined_as_released():
    found = seg.legacy_hausdorff(blank(), one_pixel()), seg.legacy_hausdorff(one_pixel(), blank())
    np.testing.assert_array_equal(found, [NAN, NAN])


def test_specificity_is_undefined_where_the_truth_fills_the_image():
    full = np.ones((HEIGHT, WIDTH), bool)
    assert np.isnan(seg.specificity(full, one_pixel()))
    assert seg.specificity(one_pixel(), full) == 0


def test_a_missed_lesion_counts_0_unless_legacy():
    truth, prediction = box(2, 3, 6, 9), box(10, 20, 12, 25)  # no pixel in common
    assert (seg.recall(truth, prediction), seg.precision(truth, prediction)) == (0, 0)
    assert np.isnan(seg.legacy_recall(truth, prediction))
    assert np.isnan(seg.legacy_precision(truth, prediction))


@pytest.mark.parametrize(("truth", "prediction"), PAIRS[:5:2])
def test_legacy_recall_and_precision_equal_the_plain_ones_on_a_hit(truth, prediction):
    y, p = truth.ravel(), prediction.ravel()
    assert seg.legacy_recall(truth, prediction) == pytest.approx(sklearn.metrics.recall_score(y, p))
    expected = sklearn.metrics.precision_score(y, p)
    assert seg.legacy_precision(truth, prediction) == pytest.approx(expected)


def test_legacy_hausdorff_takes_rows_for_points_by_hand():
    # Row 0 is 1111 against 1100, the other rows are 0000: √2 each way. In pixels it is 2.
    truth, prediction = np.zeros((2, 3, 4), bool)
    truth[0], prediction[0, :2] = True, True
    assert seg.legacy_hausdorff(truth, prediction) == pytest.approx(np.sqrt(2))
    assert seg.hausdorff(truth, prediction) == 2


def test_legacy_hausdorff_is_blind_to_a_vertical_shift():
    truth, prediction = box(2, 3, 6, 9), box(12, 3, 16, 9)
    assert seg.legacy_hausdorff(truth, prediction) == 0
    assert seg.hausdorff(truth, prediction) == 10


def test_legacy_hausdorff_of_two_ellipses():
    # One ellipse, moved by 5 rows and 4 columns: √41 = 6.40 px, √8 = 2.83 with rows as points.
    truth = ellipse(28, 28, 6, 10, (56, 64))
    prediction = ellipse(33, 32, 6, 10, (56, 64))
    assert seg.hausdorff(truth, prediction) == pytest.approx(np.sqrt(41))
    assert seg.legacy_hausdorff(truth, prediction) == pytest.approx(np.sqrt(8))


@pytest.mark.parametrize(("truth", "prediction"), PAIRS)
def test_legacy_hausdorff_equals_brute_force_over_rows(truth, prediction):
    distances = cdist(truth.astype(float), prediction.astype(float))
    expected = max(distances.min(axis=0).max(), distances.min(axis=1).max())
    assert seg.legacy_hausdorff(truth, prediction) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name",
    list(seg.METRICS),
)
def test_other_types_and_shapes_are_refused(name):
    metric, mask = seg.METRICS[name], one_pixel()
    with pytest.raises(TypeError, match="boolean"):
        metric(mask.astype(np.uint8), blank().astype(np.uint8))
    with pytest.raises(ValueError, match="2-D"):
        metric(mask[..., None], mask[..., None])
    with pytest.raises(ValueError, match="equal in shape"):
        metric(mask, mask.T)


def test_masks_are_not_changed():
    truth, prediction = (mask.copy() for mask in PAIRS[0])
    for metric in seg.METRICS.values():
        metric(truth, prediction)
    np.testing.assert_array_equal(truth, PAIRS[0][0])
    np.testing.assert_array_equal(prediction, PAIRS[0][1])
