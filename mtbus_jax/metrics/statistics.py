"""Paired comparisons of two configurations, a and b, over the same test images.

Each image gives one pair of values, so the tests see only how an image changed from b to a, not how
hard it is. The value is a metric such as Dice, or whether the class was right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

DICE, CORRECT = "dice", "correct"


class PairedTest(NamedTuple):
    """Result of a two-sided test on pairs; all but ``n`` are NaN where there is no pair.

    Attributes:
      statistic: the test's own statistic.
      p_value: two-sided, in [0, 1].
      effect: size of the effect, positive where a is larger or more often right; its scale is the
        test's own.
      n: number of images compared, including those on which a and b are equal.
    """

    statistic: float
    p_value: float
    effect: float
    n: int


_NO_PAIRS = PairedTest(np.nan, np.nan, np.nan, 0)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two configurations, a and b, compared in one measure over the images that both have.

    Attributes:
      a: name of the first configuration.
      b: name of the second.
      measure: `DICE`, or `CORRECT` for whether the class was right.
      images: number of images compared.
      mean_a: mean of the measure for a over these images; for `CORRECT` the accuracy.
      mean_b: the same for b.
      low: lower end of the 95 % interval of the difference a − b, from a bootstrap within strata.
      high: its upper end.
      effect: rank-biserial correlation for Dice, Cohen's g with a sign for classes; positive
        where a is better.
      p_value: of Wilcoxon's signed-rank or McNemar's exact test, two-sided.
      p_holm: p-value corrected for all tests reported together, see `corrected`; NaN until then.
    """

    a: str
    b: str
    measure: str
    images: int
    mean_a: float
    mean_b: float
    low: float
    high: float
    effect: float
    p_value: float
    p_holm: float = np.nan

    @property
    def difference(self) -> float:
        """Mean of a − b."""
        return self.mean_a - self.mean_b


def compare(
    measure: str,
    names: tuple[str, str],
    a: np.ndarray,
    b: np.ndarray,
    *,
    strata: np.ndarray,
) -> Comparison:
    """Compares a with b by the test that fits the measure.

    Args:
      measure: `DICE` or `CORRECT`.
      names: of a and of b.
      a: ``(n,)``, one value per image: float for `DICE`, bool for `CORRECT`.
      b: ``(n,)``, of the same images in the same order.
      strata: ``(n,)``, the fold of each image; the bootstrap draws within folds.

    Raises:
      TypeError: if the values are not of the measure's type.
      ValueError: for an unknown measure, if the shapes differ or a value is infinite.
    """
    if measure not in (DICE, CORRECT):
        raise ValueError(f"measure={measure!r} is unknown. Known: {DICE}, {CORRECT}")
    test = (wilcoxon_signed_rank if measure == DICE else mcnemar)(a, b)
    a, b = np.asarray(a, float), np.asarray(b, float)
    low, high = bootstrap_mean_difference(a, b, strata=strata)
    kept = _differences(a, b)[1]
    mean_a, mean_b = (float(x[kept].mean()) if kept.any() else math.nan for x in (a, b))
    return Comparison(
        *names,
        measure=measure,
        images=test.n,
        mean_a=mean_a,
        mean_b=mean_b,
        low=low,
        high=high,
        effect=test.effect,
        p_value=test.p_value,
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with ``p_holm`` for all of them together."""
    adjusted = holm(np.array([each.p_value for each in comparisons]))
    return [
        dataclasses.replace(each, p_holm=float(p))
        for each, p in zip(comparisons, adjusted, strict=True)
    ]


def wilcoxon_signed_rank(a: np.ndarray, b: np.ndarray) -> PairedTest:
    """Wilcoxon's signed-rank test of the differences a - b.

    Zero differences are ranked and then left out of both rank sums (Pratt, "Remarks on zeros and
    ties in the Wilcoxon signed rank procedures", JASA 54, 1959). If they were dropped before
    ranking, images on which both configurations agree would not count. The p-value is exact up to
    50 pairs without zeros and ties and up to 13 with them, else from the normal approximation.

    The effect is the matched-pairs rank-biserial correlation, (W+ - W-) / (n (n + 1) / 2) with the
    rank sums W+ of the images larger in a and W- of those larger in b (Kerby, "The simple
    difference formula", Comprehensive Psychology 3, 2014). Zero differences draw it towards 0.

    Args:
      a: ``(n,)`` float, one value per image; NaN where undefined.
      b: ``(n,)`` float, of the same images in the same order.

    Returns:
      The smaller of W+ and W-, the p-value, the effect in [-1, 1], and the number of pairs
      without a NaN. Where all differences are zero the p-value is 1 and the effect 0.

    Raises:
      ValueError: if the shapes differ, are not 1-D, or a value is infinite.
    """
    difference = _differences(a, b)[0]
    n = len(difference)
    if n == 0:
        return _NO_PAIRS
    if not difference.any():
        return PairedTest(0.0, 1.0, 0.0, n)
    ranks = scipy.stats.rankdata(np.abs(difference))
    test = scipy.stats.wilcoxon(difference, zero_method="pratt", alternative="two-sided")
    effect = np.sum(np.sign(difference) * ranks) / (n * (n + 1) / 2)
    return PairedTest(float(test.statistic), float(test.pvalue), float(effect), n)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> PairedTest:
    """McNemar's exact test: is a right on half of the images that only one of a and b gets right?

    The effect is Cohen's g with a sign: the share of these discordant images that a gets right,
    minus 0.5 (Cohen, "Statistical Power Analysis", 2nd ed. 1988, chapter 5).

    Args:
      correct_a: ``(n,)`` bool, whether a classified the image correctly.
      correct_b: ``(n,)`` bool, of the same images in the same order.

    Returns:
      The smaller of the two discordant counts, the binomial p-value, the effect in [-0.5, 0.5], and
      the number of all images. Without a discordant image the p-value is 1 and the effect 0.

    Raises:
      TypeError: if an array is not boolean.
      ValueError: if the shapes differ or are not 1-D.
    """
    correct_a, correct_b = np.asarray(correct_a), np.asarray(correct_b)
    if correct_a.dtype != bool or correct_b.dtype != bool:
        raise TypeError(
            f"correct_a and correct_b must be boolean, got {correct_a.dtype} and {correct_b.dtype}"
        )
    _check_shapes(correct_a, correct_b)
    n = len(correct_a)
    if n == 0:
        return _NO_PAIRS
    only_a = int(np.count_nonzero(correct_a & ~correct_b))
    only_b = int(np.count_nonzero(correct_b & ~correct_a))
    discordant = only_a + only_b
    if discordant == 0:
        return PairedTest(0.0, 1.0, 0.0, n)
    p_value = scipy.stats.binomtest(only_a, discordant, 0.5, alternative="two-sided").pvalue
    return PairedTest(float(min(only_a, only_b)), float(p_value), only_a / discordant - 0.5, n)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number by the Holm–Bonferroni method.

    Rejecting where the result is at most 0.05 bounds the chance of any false rejection by 0.05. The
    k-th smallest of m is multiplied by m - k + 1, then raised to the result of the one before it
    and cut at 1 (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979).

    Args:
      p_values: ``(m,)`` float in [0, 1]; NaN for a test that could not be done, not counted in m.

    Returns:
      ``(m,)`` float64 in the order given, NaN where ``p_values`` is NaN.

    Raises:
      ValueError: if the array is not 1-D or a value lies outside [0, 1].
    """
    p_values = np.asarray(p_values, float)
    if p_values.ndim != 1:
        raise ValueError(f"p_values must be 1-D, got the shape {p_values.shape}")
    done = np.flatnonzero(~np.isnan(p_values))
    outside = p_values[done][(p_values[done] < 0) | (p_values[done] > 1)]
    if outside.size:
        raise ValueError(f"p-values lie in [0, 1], got {outside[0]:g}")
    ascending = done[np.argsort(p_values[done])]
    adjusted = np.full(len(p_values), np.nan)
    raised = p_values[ascending] * np.arange(len(done), 0, -1)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(raised), 1)
    return adjusted


def bootstrap_mean_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a - b over the images.

    Images are drawn with replacement, keeping their pairs; with ``strata``, each stratum is drawn
    separately and keeps its size. A stratum of one image is drawn as it is and adds no width.

    Args:
      a: ``(n,)`` float, one value per image; pairs with a NaN in either are dropped.
      b: ``(n,)`` float, of the same images in the same order.
      strata: ``(n,)``, equal for the images of a stratum, such as the fold of each image; None to
        draw from all images together.
      resamples: number of bootstrap samples, ≥ 1; memory is ``16 * resamples * n`` bytes for the
        largest stratum.
      level: coverage of the interval, between 0 and 1, both excluded.
      seed: seed of the draw, ≥ 0; the same seed gives the same interval.

    Returns:
      Lower and upper end, NaN where there is no pair.

    Raises:
      ValueError: if the shapes differ, are not 1-D, a value is infinite, or ``resamples`` or
        ``level`` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, both excluded, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    difference, kept = _differences(a, b)
    if strata is None:
        stratum = np.zeros(len(difference), int)
    else:
        strata = np.asarray(strata)
        if strata.shape != kept.shape:
            raise ValueError(
                f"strata must have the shape of a and b, got {strata.shape} and {kept.shape}"
            )
        stratum = np.unique(strata[kept], return_inverse=True)[1]
    if len(difference) == 0:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for code in range(stratum.max() + 1):
        values = difference[stratum == code]
        drawn = rng.integers(len(values), size=(resamples, len(values)))
        total += values[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(total / len(difference), [tail, 1 - tail])
    return float(low), float(high)


def _check_shapes(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"a and b must be 1-D and of the same images, got the shapes {a.shape} and {b.shape}"
        )


def _differences(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values a - b of the pairs without a NaN, and ``(n,)`` bool, which pairs these are."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    _check_shapes(a, b)
    if np.isinf(a).any() or np.isinf(b).any():
        raise ValueError("a and b must be finite, or NaN where undefined; got an infinite value")
    kept = ~(np.isnan(a) | np.isnan(b))
    return a[kept] - b[kept], kept
