"""The figures of the analysis against closed forms, hand counts and independent libraries."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_curve

from mtbus_jax.curate import analysis, groups, pipeline
from mtbus_jax.curate.geometry import Geometry


def pair(first, second, ssim, detail=0.9):
    return groups.Pair(first, second, ssim, 9.0, Geometry(detail, 1.0))


def findings(n=6, size=10):
    rng = np.random.default_rng(0)
    matrix = rng.uniform(0, 0.3, (n, n)).astype(np.float32)
    matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T + np.eye(n, dtype=np.float32)
    matrix[0, 1] = matrix[1, 0] = 0.9
    matrix[1, 2] = matrix[2, 1] = 0.7
    matrix[0, 2] = matrix[2, 0] = 0.5
    mask = np.zeros((n, size, size), bool)
    mask[0, :4] = mask[1, :4] = True  # IoU 1
    mask[2, :3] = True  # IoU 0.75 with both
    archive = pipeline.Archive(
        entries=[None] * n, small=np.zeros((n, size, size), np.uint8), mask=mask,
        has_mask=np.array([True, True, True, False, True, True][:n]),
        features=[], digest=[], marks=[], problems=[],
    )  # fmt: skip
    accepted = [pair(0, 1, 0.9), pair(1, 2, 0.7, detail=0.4)]
    others = [pair(0, 3, float(matrix[0, 3]), detail=0.05)]
    return pipeline.Findings(
        archive, matrix, accepted + others, accepted, groups.form_groups(n, accepted),
        "automatic rule", pipeline.Options(size=size),
    )  # fmt: skip


def test_a_group_counts_all_its_pairs_not_only_the_linking_ones():
    copies, others = analysis.split_ssim(findings())
    np.testing.assert_allclose(sorted(copies), [0.5, 0.7, 0.9], rtol=1e-6)
    assert len(others) == 15 - 3 and others.max() < 0.3


def test_without_a_matrix_only_measured_pairs_count():
    copies, others = analysis.split_ssim(dataclasses.replace(findings(), ssim=None))
    assert sorted(copies) == [0.7, 0.9] and len(others) == 1


def test_sample_and_lilliefors():
    values = stats.norm(0.1, 0.04).ppf((np.arange(500) + 0.5) / 500)
    sample = analysis.describe(values)
    assert sample.mean == pytest.approx(0.1) and sample.sd == pytest.approx(0.04, rel=0.01)
    assert (sample.low, sample.high) == pytest.approx(
        (0.1 - 2.576 * 0.04, 0.1 + 2.576 * 0.04), abs=0.004
    )
    assert sample.lilliefors[1] > 0.2
    skew = analysis.describe(np.random.default_rng(0).exponential(size=500))
    assert skew.lilliefors[1] <= 0.001
    # The statistic is Kolmogorov's distance to the fitted normal distribution.
    fitted = stats.kstest(values, stats.norm(values.mean(), values.std(ddof=1)).cdf)
    assert sample.lilliefors[0] == pytest.approx(fitted.statistic, abs=1e-6)


def test_tiny_and_empty_samples_give_nan_not_an_error():
    assert np.isnan(analysis.describe(np.array([])).mean)
    assert np.isnan(analysis.describe(np.array([0.5])).sd)
    assert np.isnan(analysis.describe(np.array([1.0, 1.0, 1.0, 1.0])).lilliefors[1])
    assert np.isnan(analysis.compare_ssim(np.array([]), np.array([0.1])).mann_whitney[1])


def test_the_threshold_is_the_upper_end_of_the_others():
    others = np.linspace(0, 1, 1001)
    result = analysis.compare_ssim(np.array([0.99, 1.0]), others)
    assert result.threshold == pytest.approx(0.995)
    # Of 2 · 1001 comparisons the copies win 990 + 1000 and tie 2.
    assert result.mann_whitney[0] == pytest.approx(990 + 1000 + 1)


def test_mask_agreement_by_hand():
    iou, table = analysis.mask_agreement(findings())
    assert sorted(iou) == [0.75, 0.75, 1.0]
    assert table["0.9 to 1"] == 1 and table["0.7 to 0.9"] == 2 and sum(table.values()) == 3


def test_masks_that_do_not_meet_are_a_class_of_their_own():
    found = findings()
    found.archive.mask[1] = False
    found.archive.mask[1, 9] = True
    _, table = analysis.mask_agreement(found)
    assert table["0"] == 2 and table["above 0 to 0.3"] == 0


def test_class_counts():
    rows = analysis.class_counts(["b", "b", "m", ""], np.array([True, False, True, False]))
    assert rows == [("b", 2, 1, 1), ("m", 1, 1, 0), ("unknown", 1, 0, 1)]


def test_precision_and_recall_equal_scikit_learn():
    rng = np.random.default_rng(2)
    positive = rng.random(80) < 0.4
    score = np.round(rng.random(80) + 0.5 * positive, 1)  # with ties
    threshold, precision, recall = analysis.precision_recall(score, positive)
    expected = precision_recall_curve(positive, score)
    np.testing.assert_allclose(threshold, expected[2][::-1])
    np.testing.assert_allclose(precision, expected[0][:-1][::-1])
    np.testing.assert_allclose(recall, expected[1][:-1][::-1])


def test_an_images_score_is_its_best_pairs():
    best = analysis.best_score(6, findings())
    assert best.tolist() == [0.9, 0.9, 0.4, 0.05, 0, 0]
    assert analysis.best_score(6, findings(), "ssim")[:3] == pytest.approx([0.9, 0.9, 0.7])
