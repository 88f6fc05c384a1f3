"""Refining, metrics, resizing and mask merging, against formulas of other libraries and by hand."""

import fractions
import math

import numpy as np
import pytest
import scipy.spatial.distance
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtbus_jax import refine, types
from mtbus_jax.images import preprocess
from mtbus_jax.metrics import calibration, classification, segmentation

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 13))


@st.composite
def mask_pairs(draw):
    shape = draw(SHAPES)
    filled = st.sampled_from([0.0, 0.1, 0.5, 1.0])
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    return tuple(rng.random(shape) < draw(filled) for _ in range(2))


@given(mask_pairs())
def test_overlap_metrics(pair):
    """Against scikit-learn, pixels being cases; with its own word for what is undefined."""
    truth, prediction = pair
    flat = truth.ravel(), prediction.ravel()
    empty = not truth.any() and not prediction.any()
    f1 = sklearn.metrics.f1_score(*flat, zero_division=1.0)
    assert segmentation.dice(*pair) == pytest.approx(f1, abs=1e-12)
    wanted = 1.0 if empty else sklearn.metrics.jaccard_score(*flat, zero_division=0.0)
    assert segmentation.jaccard(*pair) == pytest.approx(wanted, abs=1e-12)
    options = {"zero_division": np.nan, "labels": [True], "average": None}
    for ours, theirs in (
        (segmentation.recall, sklearn.metrics.recall_score),
        (segmentation.precision, sklearn.metrics.precision_score),
    ):
        np.testing.assert_allclose(ours(*pair), theirs(*flat, **options)[0], atol=1e-12)
    options["labels"] = [False]
    wanted = sklearn.metrics.recall_score(*flat, **options)[0]
    np.testing.assert_allclose(segmentation.specificity(*pair), wanted, atol=1e-12)
    assert segmentation.dice(*pair) == segmentation.dice(*reversed(pair))


def boundary(mask):
    """Pixels with one of four neighbours outside of the mask, or of the picture."""
    return [
        (row, col)
        for row, col in np.argwhere(mask)
        if any(
            not (0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c])
            for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
        )
    ]


@given(mask_pairs())
def test_distances(pair):
    """Against all pairs of points."""
    names = ("hausdorff", "hausdorff95", "average_surface_distance")
    found = {name: getattr(segmentation, name)(*pair) for name in names}
    if not pair[0].any() or not pair[1].any():
        wanted = np.nan if pair[0].any() or pair[1].any() else 0.0
        np.testing.assert_array_equal(list(found.values()), [wanted] * 3)
        return
    points = [np.argwhere(mask) for mask in pair]
    wanted = max(
        scipy.spatial.distance.directed_hausdorff(*points)[0],
        scipy.spatial.distance.directed_hausdorff(*reversed(points))[0],
    )
    assert found["hausdorff"] == pytest.approx(wanted)
    between = scipy.spatial.distance.cdist(*(boundary(mask) for mask in pair))
    directed = between.min(axis=1), between.min(axis=0)
    wanted = max(np.percentile(each, 95) for each in directed)
    assert found["hausdorff95"] == pytest.approx(wanted)
    assert found["average_surface_distance"] == pytest.approx(np.concatenate(directed).mean())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_classification(pairs):
    """F1 and accuracy by counting."""
    label, predicted = np.array(pairs).T
    matrix = classification.confusion_matrix(label, predicted)
    counts = [[sum(pair == (i, j) for pair in pairs) for j in range(3)] for i in range(3)]
    assert matrix.tolist() == counts
    f1 = []
    for code in range(3):
        right = counts[code][code]
        wrong = sum(counts[code]) + sum(row[code] for row in counts) - 2 * right
        f1.append(2 * right / (2 * right + wrong) if right + wrong else np.nan)
    np.testing.assert_allclose(classification.f1_per_class(label, predicted), f1)
    weights = [sum(row) for row in counts]
    wanted = sum(w * f for w, f in zip(weights, f1, strict=True) if w) / len(pairs)
    assert classification.f1_weighted(label, predicted) == pytest.approx(wanted)
    assert classification.accuracy(label, predicted) == sum(a == b for a, b in pairs) / len(pairs)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(3, 30), st.just(3)), elements=st.floats(0.01, 1)),
    st.floats(0.05, 0.5),
    st.data(),
)
def test_conformal_sets_hold_what_they_promise(scores, error_rate, data):
    """On the images that the threshold comes from, 1 − error_rate of the sets are right."""
    probability = scores / scores.sum(axis=1, keepdims=True)
    codes = st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores))
    label = np.array(data.draw(codes))
    threshold = calibration.conformal_threshold(probability, label, error_rate=error_rate)
    sets = calibration.prediction_sets(probability, threshold)
    held = sets[np.arange(len(label)), label].mean()
    assert held >= 1 - error_rate - 1e-12 or not math.isfinite(threshold)


@given(
    hnp.arrays(bool, st.tuples(st.just(4), st.integers(1, 4), st.integers(1, 5))),
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-5, 5, width=32)),
    st.sampled_from([0, 1, 2, None]),
)
def test_refining(mask, logits, normal):
    """Picture by picture, by the two rules; afterwards the pair never contradicts itself twice."""
    new_mask, new_class = (np.asarray(each) for each in refine.refine(mask, logits, normal=normal))
    for index in range(len(mask)):
        class_id = int(np.argmax(logits[index]))
        wanted_mask, wanted_class = mask[index], class_id
        if normal is not None:
            wanted_mask = np.zeros_like(mask[index]) if class_id == normal else mask[index]
            wanted_class = class_id if mask[index].any() else normal
        np.testing.assert_array_equal(new_mask[index], wanted_mask)
        assert new_class[index] == wanted_class
    if normal is not None:
        contradicts = (new_class != normal) & ~new_mask.any(axis=(1, 2))
        # Both rules look at the pair as it was: a mask that class "normal" has emptied keeps its
        # class, and a class that an empty mask has made normal its mask.
        assert not contradicts.any()
    before = np.asarray(refine.incoherent(mask, np.argmax(logits, axis=-1), normal=normal))
    changed = (new_mask != mask).any(axis=(1, 2)) | (new_class != np.argmax(logits, axis=-1))
    if normal is not None:
        np.testing.assert_array_equal(changed, before)


@given(
    hnp.arrays(np.uint8, SHAPES),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_nearest_resizing(image, height, width):
    """⌊i · (1 / (target / source))⌋ in Python's own doubles, pixel by pixel."""
    found = preprocess.resize(image, height, width, method="nearest")
    assert found.shape == (height, width)
    source = image.shape
    for row in range(height):
        for col in range(width):
            from_row = min(math.floor(row * (1.0 / (height / source[0]))), source[0] - 1)
            from_col = min(math.floor(col * (1.0 / (width / source[1]))), source[1] - 1)
            assert found[row, col] == image[from_row, from_col]


def overlaps(source, target, index):
    """(pixel, part of the target pixel ``index`` that it covers)."""
    low, high = (fractions.Fraction(i * source, target) for i in (index, index + 1))
    for pixel in range(source):
        if (common := min(high, pixel + 1) - max(low, pixel)) > 0:
            yield pixel, common / (high - low)


@given(hnp.arrays(np.uint8, SHAPES), st.integers(1, 8), st.integers(1, 8))
def test_resizing_by_area(image, height, width):
    """The mean over the covered area in fractions, rounded half up."""
    found = preprocess.resize(image, height, width, method="area")
    for row in range(height):
        for col in range(width):
            mean = sum(
                int(image[r, c]) * share * part
                for r, share in overlaps(image.shape[0], height, row)
                for c, part in overlaps(image.shape[1], width, col)
            )
            assert found[row, col] == math.floor(mean + fractions.Fraction(1, 2))


@st.composite
def mask_files(draw):
    """Masks of one picture as files hold them, and what is lesion in each."""
    shape = draw(SHAPES)
    files, truths = [], []
    for _ in range(draw(st.integers(1, 4))):
        truth = draw(hnp.arrays(bool, shape))
        value = draw(st.sampled_from([1, 7, 255]))
        file = truth.astype(np.uint8) * np.uint8(value)
        form = draw(st.sampled_from(["grey", "bool", "rgb", "rgba"]))
        if form == "bool":
            file = truth
        elif form != "grey":
            channels = [file if each == draw(st.integers(0, 2)) else file * 0 for each in range(3)]
            channels[draw(st.integers(0, 2))] = file
            file = np.stack(channels, axis=-1)
            if form == "rgba":
                file = np.concatenate([file, np.full((*shape, 1), 255, np.uint8)], axis=-1)
        files.append(file)
        truths.append(truth)
    return files, truths


@given(mask_files())
def test_mask_merging(made):
    files, truths = made
    # A file of one value that is not black is lesion all over, as `lesion_of` says.
    merged = preprocess.merge_masks(files)
    np.testing.assert_array_equal(merged, np.any(truths, axis=0))
    np.testing.assert_array_equal(preprocess.merge_masks(files[::-1]), merged)
    np.testing.assert_array_equal(preprocess.merge_masks([*files, files[0]]), merged)


@given(SHAPES, st.integers(0, 1))
def test_masks_of_two_sizes_are_refused(shape, axis):
    other = list(shape)
    other[axis] += 1
    with pytest.raises(ValueError, match="differ in size"):
        preprocess.merge_masks([np.zeros(shape, np.uint8), np.zeros(other, np.uint8)])


def test_classes_are_those_that_the_tests_assume():
    assert len(types.CLASS_NAMES) == 3
