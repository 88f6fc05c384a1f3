"""Calibration against closed forms, simulation and scikit-learn."""

import numpy as np
import pytest
import scipy.special
from sklearn.calibration import calibration_curve

from mtbus_jax.metrics import calibration


def drawn(n, *, temperature=1.0, seed=0, classes=3):
    """Logits whose softmax at ``temperature`` is the true distribution of the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)) * temperature
    p = scipy.special.softmax(logits / temperature, axis=-1)
    label = (rng.random((n, 1)) > p.cumsum(axis=-1)).sum(axis=-1)
    return logits, label


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature):
    logits, label = drawn(20_000, temperature=temperature)
    assert calibration.fit_temperature(logits, label) == pytest.approx(temperature, rel=0.03)


def test_temperature_of_two_classes_in_closed_form():
    # Three of four right at a margin of 5: sigmoid(5/T) = 3/4.
    logits = np.array([[5.0, 0.0]] * 4)
    label = np.array([0, 0, 0, 1])
    expected = 5 / np.log(3)
    assert calibration.fit_temperature(logits, label) == pytest.approx(expected, rel=1e-4)


def test_temperature_of_an_ensemble_makes_the_mean_most_likely():
    # Two members that contradict each other on one image of four: the mean there is 1/2 for any T,
    # and for the others as in the case before.
    one = np.array([[5.0, 0.0]] * 5)
    other = one.copy()
    other[4] = [0.0, 5.0]
    label = np.array([0, 0, 0, 1, 0])
    expected = 5 / np.log(3)
    found = calibration.fit_temperature(np.stack([one, other]), label)
    assert found == pytest.approx(expected, rel=1e-4)
    same = calibration.fit_temperature(np.stack([one, one]), label)
    assert same == pytest.approx(calibration.fit_temperature(one, label))


def test_temperature_stays_in_its_range_where_all_are_right_or_all_wrong():
    logits = np.array([[0.2, 0.0], [0.0, 0.3]])
    assert calibration.fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.05, rel=1e-3)
    assert calibration.fit_temperature(logits, np.array([1, 0])) == pytest.approx(20, rel=1e-3)


def test_reliability_of_two_classes_equals_scikit_learn():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 500)
    label = (rng.random(500) > p).astype(int)  # class 0 is the predicted one
    found = calibration.reliability(np.stack([p, 1 - p], axis=-1), label, bins=10)
    accuracy, confidence = calibration_curve(label == 0, p, n_bins=10)
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert found.count.sum() == 500
    assert np.isnan(found.accuracy[0])


def test_calibration_error_by_hand():
    p = np.array([[0.95, 0.05, 0.0], [0.92, 0.08, 0.0], [0.2, 0.55, 0.25], [0.3, 0.3, 0.4]])
    label = np.array([0, 1, 1, 2])
    # Bins (.9, 1]: .935 against 1/2; (.5, .6]: .55 against 1; (.3, .4]: .4 against 1.
    expected = (2 * 0.435 + 0.45 + 0.6) / 4
    assert calibration.expected_calibration_error(p, label) == pytest.approx(expected)


def test_calibration_error_of_true_probabilities_vanishes_and_grows_with_overconfidence():
    logits, label = drawn(50_000)
    honest = calibration.expected_calibration_error(scipy.special.softmax(logits, -1), label)
    bold = calibration.expected_calibration_error(scipy.special.softmax(4 * logits, -1), label)
    assert honest < 0.01
    assert bold > 0.1


def test_conformal_threshold_by_hand():
    p_true = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    probability = np.stack([p_true, 1 - p_true], axis=-1)
    label = np.zeros(9, int)
    # ⌈10 · 0.8⌉ = 8th smallest score of nine: 1 − 0.2.
    found = calibration.conformal_threshold(probability, label, error_rate=0.2)
    assert found == pytest.approx(0.2)
    sets = calibration.prediction_sets(probability, found)
    assert sets[:, 0].tolist() == [True] * 8 + [False]
    assert calibration.conformal_threshold(probability, label, error_rate=0.05) == 0


def test_conformal_sets_cover_as_promised():
    """Mean coverage over many calibration sets of 68, the size of a fold's validation set."""
    covered, sizes = [], []
    for seed in range(400):
        logits, label = drawn(68 + 200, seed=seed)
        p = scipy.special.softmax(3 * logits, axis=-1)  # overconfident: it must not matter
        threshold = calibration.conformal_threshold(p[:68], label[:68], error_rate=0.1)
        sets = calibration.prediction_sets(p[68:], threshold)
        covered.append(sets[np.arange(200), label[68:]].mean())
        sizes.append(sets.sum(axis=-1).mean())
    # Exactly between 1 − α and 1 − α + 1/(n + 1); the mean of 400 has a standard error of .002.
    assert 0.9 - 0.006 <= np.mean(covered) <= 0.9 + 1 / 69 + 0.006
    assert np.mean(sizes) < 2


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_error_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="error_rate"):
        calibration.conformal_threshold(np.ones((3, 2)) / 2, np.zeros(3, int), error_rate=rate)


def test_risk_coverage_by_hand():
    curve = calibration.risk_coverage([1, 0, 0, 1, 0], [0.9, 0.1, 0.2, 0.8, 0.3])
    np.testing.assert_allclose(curve.coverage, [0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(curve.risk, [0, 0, 0, 0.25, 0.4])
    assert curve.at(0.8) == 0.25
    assert curve.at(0.7) == 0.25
    assert curve.at(0.0) == 0
    assert curve.at(1.0) == pytest.approx(0.4)


def test_equal_uncertainties_share_their_error_whatever_their_order():
    error = np.array([1.0, 0.0, 0.0, 0.0])
    curves = [calibration.risk_coverage(e, np.zeros(4)).risk for e in (error, error[::-1])]
    np.testing.assert_allclose(curves, 0.25)


@pytest.mark.parametrize("call", ["fit_temperature", "reliability", "expected_calibration_error"])
def test_no_image_and_unfitting_shapes_are_refused(call):
    function = getattr(calibration, call)
    for p, label in [(np.zeros((0, 3)), np.zeros(0, int)), (np.zeros((2, 3)), np.zeros(3, int))]:
        with pytest.raises(ValueError, match="n > 0"):
            function(p, label)
    with pytest.raises(ValueError, match="give n of each"):
        calibration.risk_coverage([1.0, 0.0], [0.5])
