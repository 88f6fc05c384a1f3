"""Classification metrics by hand, absent classes included."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from mtbus_jax.metrics import classification as cls

LABEL = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])
# Rows are the truth: 3 1 0 / 0 2 1 / 2 0 1.


def test_confusion_matrix_has_the_truth_in_rows():
    found = cls.confusion_matrix(LABEL, PREDICTED)
    assert found.tolist() == [[3, 1, 0], [0, 2, 1], [2, 0, 1]]
    # Absent classes keep their row and column.
    assert cls.confusion_matrix([1, 1], [1, 2]).tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_accuracy():
    assert cls.accuracy(LABEL, PREDICTED) == pytest.approx(0.6)
    assert cls.accuracy(LABEL, LABEL) == 1


def test_f1_by_hand():
    # 2TP/(2TP + FP + FN): 6/(6+2+1), 4/(4+1+1), 2/(2+1+2).
    found = cls.f1_per_class(LABEL, PREDICTED)
    np.testing.assert_allclose(found, [6 / 9, 4 / 6, 2 / 5])
    expected = 0.4 * 6 / 9 + 0.3 * 4 / 6 + 0.3 * 2 / 5
    assert cls.f1_weighted(LABEL, PREDICTED) == pytest.approx(expected)


def test_f1_of_a_class_neither_true_nor_predicted_is_undefined():
    label, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    np.testing.assert_allclose(cls.f1_per_class(label, predicted), [2 / 3, 2 / 3, np.nan])
    assert cls.f1_weighted(label, predicted) == pytest.approx(2 / 3)


def test_f1_of_a_class_never_predicted_is_0():
    label, predicted = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 0])
    np.testing.assert_allclose(cls.f1_per_class(label, predicted), [4 / 5, 1, 0])
    assert cls.f1_weighted(label, predicted) == pytest.approx((2 * 4 / 5 + 1 + 0) / 4)


def test_f1_of_a_class_predicted_but_not_true_is_0_and_has_no_weight():
    label, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    np.testing.assert_allclose(cls.f1_per_class(label, predicted), [2 / 3, 1, 0])
    assert cls.f1_weighted(label, predicted) == pytest.approx((2 * 2 / 3 + 2 * 1) / 4)


def test_f1_weighted_is_0_where_all_is_wrong():
    assert cls.f1_weighted(np.array([0, 0]), np.array([1, 2])) == 0


def pairwise_auc(is_class, score):
    """Share of (member, other) pairs in the right order, ties counting half."""
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(score[is_class], score[~is_class])]
    return float(np.mean(wins))


def test_auc_by_hand():
    label = np.array([0, 0, 1, 2])
    probability = np.array(
        [
            [0.7, 0.2, 0.1],
            [0.3, 0.3, 0.4],
            [0.3, 0.6, 0.1],
            [0.5, 0.1, 0.4],
        ]
    )
    # Benign: .7 beats .3 and .5; .3 ties with .3 and loses to .5. Normal: .4 ties with one of 3.
    np.testing.assert_allclose(cls.auc_one_vs_rest(label, probability), [2.5 / 4, 1, 2.5 / 3])


def test_auc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 40)
    probability = np.round(rng.dirichlet(np.ones(3), 40), 1)  # with ties
    expected = [pairwise_auc(label == code, probability[:, code]) for code in range(3)]
    np.testing.assert_allclose(cls.auc_one_vs_rest(label, probability), expected)


def test_auc_is_undefined_for_a_class_of_all_or_none():
    probability = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])
    found = cls.auc_one_vs_rest(np.array([0, 1, 1]), probability)
    np.testing.assert_allclose(found, [1, 1, np.nan])
    found = cls.auc_one_vs_rest(np.array([1, 1, 1]), probability)
    np.testing.assert_allclose(found, [np.nan] * 3)


def test_rates_against_scikit_learn():
    rng = np.random.default_rng(5)
    label, predicted = rng.integers(0, 3, (2, 60))
    found = cls.rates_one_vs_rest(label, predicted)
    for code in range(3):
        truth, called = label == code, predicted == code
        assert found.sensitivity[code] == pytest.approx(sk.recall_score(truth, called))
        assert found.specificity[code] == pytest.approx(sk.recall_score(~truth, ~called))
        assert found.precision[code] == pytest.approx(sk.precision_score(truth, called))


def test_of_two_classes_rates_and_areas_mirror_each_other():
    label, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 0])
    found = cls.rates_one_vs_rest(label, predicted, classes=2)
    np.testing.assert_allclose(found.sensitivity, [2 / 3, 1 / 2])
    np.testing.assert_allclose(found.specificity, [1 / 2, 2 / 3])
    np.testing.assert_allclose(found.precision, [2 / 3, 1 / 2])
    malignant = np.array([0.1, 0.6, 0.2, 0.7, 0.4])
    areas = cls.auc_one_vs_rest(label, np.stack([1 - malignant, malignant], axis=1))
    np.testing.assert_allclose(areas, sk.roc_auc_score(label, malignant))


def test_rates_of_classes_that_are_not_there():
    found = cls.rates_one_vs_rest(np.array([0, 0]), np.array([0, 1]))
    np.testing.assert_array_equal(found.sensitivity, [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.specificity, [np.nan, 0.5, 1])
    np.testing.assert_array_equal(found.precision, [1, 0, np.nan])


def test_of_no_image_every_figure_is_undefined():
    none = np.zeros(0, int)
    assert np.isnan(cls.accuracy(none, none))
    assert np.isnan(cls.f1_weighted(none, none))
    np.testing.assert_array_equal(cls.f1_per_class(none, none), [np.nan] * 3)
    for rates in cls.rates_one_vs_rest(none, none):
        np.testing.assert_array_equal(rates, [np.nan] * 3)
    areas = cls.auc_one_vs_rest(none, np.zeros((0, 3)))
    np.testing.assert_array_equal(areas, [np.nan] * 3)
    np.testing.assert_array_equal(cls.confusion_matrix(none, none), np.zeros((3, 3)))
