"""Paired tests against enumeration, closed forms, scipy and statsmodels; ties, zeros and NaN."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from mtbus_jax.metrics import statistics as st

NAN = float("nan")


def ranks_and_signs(difference):
    """Average ranks of the absolute differences by counting, and their signs."""
    size = np.abs(difference)
    below = (size[:, None] > size).sum(axis=1)
    same = (size[:, None] == size).sum(axis=1)
    return below + (same + 1) / 2, np.sign(difference)


def exact_p(difference):
    """Two-sided p of the rank sum by going through every choice of signs."""
    ranks, signs = ranks_and_signs(difference)
    ranks, signs = ranks[signs != 0], signs[signs != 0]
    observed = abs(signs @ ranks)
    sums = [abs(np.dot(s, ranks)) for s in itertools.product((-1, 1), repeat=len(ranks))]
    return float(np.mean(np.array(sums) >= observed - 1e-9))


def normal_p(difference):
    """Two-sided p from the mean and variance of the rank sum over random signs."""
    ranks, signs = ranks_and_signs(difference)
    ranks, signs = ranks[signs != 0], signs[signs != 0]
    z = (signs @ ranks) / math.sqrt(ranks @ ranks)
    return math.erfc(abs(z) / math.sqrt(2))


def test_wilcoxon_by_hand():
    # Differences 3, -1, 2, 5, -4 with ranks 3, 1, 2, 5, 4: W+ 10, W- 5.
    a, b = np.array([3.0, 0, 2, 5, 1]), np.array([0.0, 1, 0, 0, 5])
    found = st.wilcoxon_signed_rank(a, b)
    assert found.statistic == 5
    assert found.effect == pytest.approx(5 / 15)
    assert found.p_value == pytest.approx(exact_p(a - b))
    assert found.n == 5


def test_wilcoxon_with_zeros_and_ties_by_hand():
    # Differences 0, 0, 1, 1, -1, 3: ranks 1.5, 1.5, 4, 4, 4, 6; W+ 14, W- 4, zeros take 3 of 21.
    a, b = np.array([2.0, 2, 3, 1, 0, 4]), np.array([2.0, 2, 2, 0, 1, 1])
    found = st.wilcoxon_signed_rank(a, b)
    assert found.statistic == 4
    assert found.effect == pytest.approx(10 / 21)
    assert found.n == 6
    # Of the 16 signs of 4, 4, 4, 6 each side has 1 with a sum of 0 and 3 with a sum of 4.
    assert exact_p(a - b) == pytest.approx(8 / 16)
    assert found.p_value == pytest.approx(8 / 16)


@pytest.mark.parametrize("n", [4, 9, 12])
def test_wilcoxon_is_exact_in_small_samples(n):
    rng = np.random.default_rng(n)
    for b in (rng.normal(size=n), np.zeros(n)):
        a = np.round(rng.normal(0.4, 1, n), 1 if b.any() else 0)  # the second with zeros and ties
        assert st.wilcoxon_signed_rank(a, b).p_value == pytest.approx(exact_p(a - b))


def test_wilcoxon_is_normal_in_large_samples():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 8, (2, 90)) / 8.0
    assert (a == b).sum() > 5
    found = st.wilcoxon_signed_rank(a, b)
    assert found.p_value == pytest.approx(normal_p(a - b))
    ranks, signs = ranks_and_signs(a - b)
    assert found.effect == pytest.approx(signs @ ranks / ranks.sum())
    assert found.statistic == pytest.approx(min(ranks[signs > 0].sum(), ranks[signs < 0].sum()))


def test_wilcoxon_drops_pairs_with_a_nan():
    a = np.array([0.9, NAN, 0.7, 0.8, NAN, 0.3])
    b = np.array([0.5, 0.4, 0.8, NAN, NAN, 0.1])
    found = st.wilcoxon_signed_rank(a, b)
    assert found == st.wilcoxon_signed_rank(a[[0, 2, 5]], b[[0, 2, 5]])
    assert found.n == 3


def test_wilcoxon_changes_sign_with_the_order_of_a_and_b():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 30))
    a += 0.2
    one, other = st.wilcoxon_signed_rank(a, b), st.wilcoxon_signed_rank(b, a)
    assert one.effect > 0.2
    assert other.effect == pytest.approx(-one.effect)
    assert other.p_value == pytest.approx(one.p_value)


def test_wilcoxon_reaches_its_bounds():
    b, shift = np.arange(5.0), np.array([3.0, 1, 5, 2, 4])
    assert st.wilcoxon_signed_rank(b + shift, b).effect == 1
    assert st.wilcoxon_signed_rank(b - shift, b).effect == -1
    assert st.wilcoxon_signed_rank(b + shift, b).p_value == pytest.approx(2 / 32)


def test_wilcoxon_of_equal_values():
    values = np.array([0.3, 0.8, NAN, 1.0])
    assert st.wilcoxon_signed_rank(values, values) == (0, 1, 0, 3)


@pytest.mark.parametrize("test", [st.wilcoxon_signed_rank, st.mcnemar])
def test_no_pairs_are_undefined(test):
    none = np.zeros(0, bool if test is st.mcnemar else float)
    found = test(none, none)
    assert found.n == 0
    assert np.isnan(found[:3]).all()


def test_wilcoxon_of_nan_only_is_undefined():
    found = st.wilcoxon_signed_rank(np.array([NAN, 1.0]), np.array([0.5, NAN]))
    assert found.n == 0
    assert np.isnan(found[:3]).all()


def answers(both, only_a, only_b, neither):
    """Which of the images each configuration gets right, from the four counts, mixed up."""
    cells = [(True, True)] * both + [(True, False)] * only_a
    cells += [(False, True)] * only_b + [(False, False)] * neither
    return np.random.default_rng(0).permutation(np.array(cells, bool)).T


@pytest.mark.parametrize(
    "counts", [(50, 9, 2, 4), (0, 1, 0, 0), (10, 4, 4, 0), (3, 0, 7, 1), (80, 25, 41, 9)]
)
def test_mcnemar_equals_statsmodels(counts):
    mcnemar = pytest.importorskip("statsmodels.stats.contingency_tables").mcnemar
    both, only_a, only_b, neither = counts
    expected = mcnemar([[both, only_a], [only_b, neither]], exact=True)
    found = st.mcnemar(*answers(*counts))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.statistic == expected.statistic
    assert found.effect == pytest.approx(only_a / (only_a + only_b) - 0.5)
    assert found.n == sum(counts)


def test_mcnemar_by_hand():
    # Of 6 discordant images 5 are a's: 2 · (6 + 1) of the 2^6 outcomes are as far from 3.
    found = st.mcnemar(*answers(7, 5, 1, 2))
    assert found == (1, pytest.approx(14 / 64), pytest.approx(5 / 6 - 0.5), 15)


def test_mcnemar_without_a_discordant_image():
    assert st.mcnemar(*answers(6, 0, 0, 3)) == (0, 1, 0, 9)


def test_mcnemar_wants_booleans():
    with pytest.raises(TypeError, match="boolean, got int64 and bool"):
        st.mcnemar(np.array([0, 1]), np.array([False, True]))


def test_holm_by_hand():
    # Ascending .01, .02, .03, .3 times 4, 3, 2, 1; the third may not fall below the second.
    found = st.holm([0.03, 0.01, 0.3, 0.02])
    np.testing.assert_allclose(found, [0.06, 0.04, 0.3, 0.06])
    np.testing.assert_allclose(st.holm([0.6, 0.7]), [1, 1])


def test_holm_equals_statsmodels():
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 20):
        p_values = np.round(rng.random(size) ** 3, 2)  # with ties
        expected = multipletests(p_values, method="holm")[1]
        np.testing.assert_allclose(st.holm(p_values), expected)


def test_holm_leaves_nan_out():
    found = st.holm(np.array([NAN, 0.02, NAN, 0.01]))
    np.testing.assert_allclose(found, [NAN, 0.02, NAN, 0.02])
    assert np.isnan(st.holm([NAN, NAN])).all()
    assert st.holm([]).shape == (0,)


@pytest.mark.parametrize("p_values", [[0.5, 1.01], [-0.1, 0.2], [math.inf]])
def test_holm_wants_probabilities(p_values):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got"):
        st.holm(p_values)


def test_holm_wants_one_dimension():
    with pytest.raises(ValueError, match=r"1-D, got the shape \(1, 2\)"):
        st.holm([[0.1, 0.2]])


def test_bootstrap_equals_the_normal_approximation():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.8, 0.1, 400), rng.normal(0.75, 0.1, 400)
    difference = a - b
    error = difference.std() / math.sqrt(400)
    for level, z in ((0.95, 1.95996), (0.8, 1.28155)):
        expected = difference.mean() + np.array([-z, z]) * error
        found = st.bootstrap_mean_difference(a, b, level=level, resamples=20_000)
        np.testing.assert_allclose(found, expected, atol=0.06 * error)


def test_bootstrap_equals_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.beta(8, 1, 25), rng.beta(6, 1, 25)  # skewed, as Dice is
    reference = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=40_000,
        rng=np.random.default_rng(6),
    ).confidence_interval
    found = st.bootstrap_mean_difference(a, b, resamples=40_000)
    np.testing.assert_allclose(found, reference, atol=0.03 * (reference.high - reference.low))


def test_bootstrap_equals_the_binomial_distribution():
    """The mean of n zeros and ones, drawn again, is binomial over n: quantiles are exact."""
    a, b = np.repeat([1.0, 0.0], [7, 13]), np.zeros(20)
    expected = scipy.stats.binom.ppf([0.05, 0.95], 20, 7 / 20) / 20
    found = st.bootstrap_mean_difference(a, b, level=0.9)
    np.testing.assert_allclose(found, expected)


def test_bootstrap_within_strata_keeps_the_strata():
    # Folds far apart: between them there is no variance left, within them little.
    rng = np.random.default_rng(7)
    fold = rng.permutation(np.repeat([3, 0, 8], [60, 90, 50]))
    difference = 10.0 * fold + rng.normal(0, 1 + 0.2 * fold)
    zeros = np.zeros(200)
    variance = sum(difference[fold == f].var() * (fold == f).sum() for f in (0, 3, 8))
    error = math.sqrt(variance) / 200
    expected = difference.mean() + np.array([-1.95996, 1.95996]) * error
    found = st.bootstrap_mean_difference(difference, zeros, strata=fold, resamples=20_000)
    np.testing.assert_allclose(found, expected, atol=0.06 * error)
    wide = st.bootstrap_mean_difference(difference, zeros)
    assert wide[1] - wide[0] > 10 * (found[1] - found[0])


def test_bootstrap_strata_may_be_names():
    rng = np.random.default_rng(8)
    a, b = rng.random((2, 30))
    fold = np.repeat([0, 1, 2], 10)
    by_name = st.bootstrap_mean_difference(a, b, strata=np.array(["a", "b", "c"])[fold])
    assert by_name == st.bootstrap_mean_difference(a, b, strata=fold)


def test_bootstrap_draws_pairs():
    """Images of all kinds of difficulty but the same difference: no width."""
    b = np.random.default_rng(9).random(50)
    found = st.bootstrap_mean_difference(b + 0.25, b)
    np.testing.assert_allclose(found, 0.25, rtol=1e-12)


def test_a_comparison_leaves_pairs_with_a_nan_out_of_every_figure():
    a, b = np.array([0.5, np.nan, 0.7, 0.9]), np.array([0.4, 0.1, np.nan, 0.5])
    found = st.compare(st.DICE, ("a", "b"), a, b, strata=np.zeros(4, int))
    assert found.images == 2
    assert (found.mean_a, found.mean_b) == (pytest.approx(0.7), pytest.approx(0.45))


def test_bootstrap_drops_pairs_with_a_nan():
    rng = np.random.default_rng(10)
    a, b = rng.random((2, 40))
    fold = np.arange(40) % 4
    a[[3, 8]] = NAN
    b[[8, 20]] = NAN
    kept = np.setdiff1d(np.arange(40), [3, 8, 20])
    found = st.bootstrap_mean_difference(a, b, strata=fold, resamples=500)
    expected = st.bootstrap_mean_difference(a[kept], b[kept], strata=fold[kept], resamples=500)
    assert found == expected
    # A stratum that loses all its images.
    fold[:] = 0
    fold[[3, 8]] = 1
    assert np.isfinite(st.bootstrap_mean_difference(a, b, strata=fold, resamples=50)).all()


def test_bootstrap_is_a_function_of_the_seed():
    rng = np.random.default_rng(11)
    a, b = rng.random((2, 35))
    first = st.bootstrap_mean_difference(a, b, resamples=300)
    assert first == st.bootstrap_mean_difference(a, b, resamples=300, seed=0)
    assert first != st.bootstrap_mean_difference(a, b, resamples=300, seed=1)


def test_bootstrap_of_one_pair_and_of_none():
    one = st.bootstrap_mean_difference(np.array([0.75]), np.array([0.5]))
    assert one == (0.25, 0.25)
    assert np.isnan(st.bootstrap_mean_difference(np.array([NAN]), np.array([0.5]))).all()
    none = np.zeros(0)
    assert np.isnan(st.bootstrap_mean_difference(none, none, strata=none)).all()


def test_bootstrap_covers_the_true_mean():
    """In 300 studies of 60 images each, about 90 % of the intervals hold the true difference."""
    rng = np.random.default_rng(12)
    held = 0
    for seed in range(300):
        difficulty = rng.normal(0, 1, 60)
        a, b = difficulty + rng.normal(0.3, 0.5, 60), difficulty + rng.normal(0, 0.5, 60)
        low, high = st.bootstrap_mean_difference(a, b, level=0.9, resamples=500, seed=seed)
        held += low <= 0.3 <= high
    # Three standard errors of a share of 0.9 among 300 are 0.052.
    assert 0.848 < held / 300 < 0.952


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, NAN])
def test_bootstrap_wants_a_level_between_0_and_1(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        st.bootstrap_mean_difference(np.ones(3), np.zeros(3), level=level)


def test_bootstrap_wants_a_resample():
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        st.bootstrap_mean_difference(np.ones(3), np.zeros(3), resamples=0)


def test_bootstrap_wants_a_stratum_for_each_image():
    with pytest.raises(
        ValueError, match=r"strata must have the shape of a and b.* \(2,\) and \(3,\)"
    ):
        st.bootstrap_mean_difference(np.ones(3), np.zeros(3), strata=np.array([0, 1]))


@pytest.mark.parametrize(
    "compare", [st.wilcoxon_signed_rank, st.mcnemar, st.bootstrap_mean_difference]
)
@pytest.mark.parametrize(("shape_a", "shape_b"), [((3,), (4,)), ((1,), (4,)), ((2, 3), (2, 3))])
def test_shapes_must_be_alike(compare, shape_a, shape_b):
    kind = bool if compare is st.mcnemar else float
    with pytest.raises(ValueError, match="1-D and of the same images, got the shapes"):
        compare(np.ones(shape_a, kind), np.zeros(shape_b, kind))


@pytest.mark.parametrize("compare", [st.wilcoxon_signed_rank, st.bootstrap_mean_difference])
def test_infinite_values_are_refused(compare):
    with pytest.raises(ValueError, match="infinite"):
        compare(np.array([math.inf, 1]), np.array([0.0, 1]))
