"""The figures of §4.2 of Aumente-Maestro et al. 2025: do copies and other pairs differ in SSIM?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.diagnostic import lilliefors

from mtbus_jax.curate.groups import Group, mask_iou
from mtbus_jax.curate.pipeline import Findings

# Lower ends of the bins of the mask-agreement table, and their labels.
_AGREEMENT = (
    (0.9, "0.9 to 1"),
    (0.7, "0.7 to 0.9"),
    (0.5, "0.5 to 0.7"),
    (0.3, "0.3 to 0.5"),
    (1e-9, "above 0 to 0.3"),
    (0.0, "0"),
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Summary of one set of values.

    Attributes:
      n: number of values.
      mean: arithmetic mean.
      sd: standard deviation (n - 1).
      low: lower end of the central 99 %.
      high: upper end of the central 99 %.
      lilliefors: statistic and p value of Lilliefors' test of normality (p ≥ 0.001); NaN for fewer
        than 4 values.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    lilliefors: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SsimComparison:
    """SSIM of copies against all other pairs.

    Attributes:
      copies: summary of the pairs inside groups.
      others: summary of all other pairs.
      threshold: upper end of the others' central 99 %.
      mann_whitney: U of the copies and two-sided p value; NaN if either set is empty.
    """

    copies: Sample
    others: Sample
    threshold: float
    mann_whitney: tuple[float, float]


def describe(values: np.ndarray) -> Sample:
    """Summary of ``(n,)`` values."""
    if not len(values):
        return Sample(0, *[float("nan")] * 4, (float("nan"), float("nan")))
    low, high = np.percentile(values, [0.5, 99.5])
    normality = (float("nan"), float("nan"))
    if len(values) >= 4 and np.ptp(values) > 0:
        statistic, p = lilliefors(values, dist="norm", pvalmethod="table")
        normality = float(statistic), float(p)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Sample(len(values), float(values.mean()), sd, float(low), float(high), normality)


def inside_groups(groups: Sequence[Group]) -> np.ndarray:
    """Every pair of members of one group: ``(m, 2)`` indices, first < second."""
    pairs = [(a, b) for g in groups for k, a in enumerate(g.members) for b in g.members[k + 1 :]]
    return np.array(pairs, np.int64).reshape(-1, 2)


def split_ssim(findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """SSIM of the pairs inside groups, and of all other measured pairs."""
    inside = inside_groups(findings.groups)
    if findings.ssim is not None:
        n = len(findings.ssim)
        upper = np.triu(np.ones((n, n), bool), 1)
        upper[inside[:, 0], inside[:, 1]] = False
        return findings.ssim[inside[:, 0], inside[:, 1]], findings.ssim[upper]
    within = {tuple(pair) for pair in inside.tolist()}
    copies = [p.ssim for p in findings.pairs if (p.first, p.second) in within]
    others = [p.ssim for p in findings.pairs if (p.first, p.second) not in within]
    return np.array(copies), np.array(others)


def compare_ssim(copies: np.ndarray, others: np.ndarray) -> SsimComparison:
    """Both samples, the threshold between them and the Mann–Whitney test."""
    test = (float("nan"), float("nan"))
    if len(copies) and len(others):
        u, p = stats.mannwhitneyu(copies, others, alternative="two-sided")
        test = float(u), float(p)
    first, second = describe(copies), describe(others)
    return SsimComparison(first, second, second.high, test)


def mask_agreement(findings: Findings) -> tuple[np.ndarray, dict[str, int]]:
    """IoU of the masks of every pair inside a group whose images both have a mask.

    The masks are compared as the network sees them, at ``options.size``; two empty ones agree.

    Returns:
      ``(m,)`` IoU, and the number of pairs in each bin of the table.
    """
    archive = findings.archive
    pairs = [p for p in inside_groups(findings.groups) if archive.has_mask[p].all()]
    iou = np.array([mask_iou(archive.mask[a], archive.mask[b]) for a, b in pairs])
    table, upper = {}, np.inf
    for lower, name in _AGREEMENT:
        table[name] = int(((iou >= lower) & (iou < upper)).sum())
        upper = lower
    return iou, table


def class_counts(label: Sequence[str], grouped: np.ndarray) -> list[tuple[str, int, int, int]]:
    """Per class: number of images, how many are in groups, and how many remain without those.

    Args:
      label: ``(n,)`` class names.
      grouped: ``(n,)`` bool, whether the image is in a group.
    """
    label = np.asarray([name or "unknown" for name in label])
    return [
        (
            str(name),
            int(total),
            int((grouped & (label == name)).sum()),
            int((~grouped & (label == name)).sum()),
        )
        for name, total in zip(*np.unique(label, return_counts=True), strict=True)
    ]


def precision_recall(
    score: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of "score ≥ threshold" at every threshold.

    Args:
      score: ``(n,)``, per image the best score of its candidate pairs.
      positive: ``(n,)`` bool, the images that are known to have a copy.

    Returns:
      Thresholds (descending), precision, recall, one entry for each distinct score.
    """
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return score[order][last], hits[last] / (last + 1), hits[last] / max(1, positive.sum())


def best_score(n: int, findings: Findings, measure: str = "score") -> np.ndarray:
    """Per image, the highest value of a measure (``score`` or ``ssim``) over its pairs."""
    best = np.zeros(n)
    if measure == "ssim" and findings.ssim is not None:
        return (findings.ssim - 2 * np.eye(n)).max(1)
    for pair in findings.pairs:
        for index in (pair.first, pair.second):
            best[index] = max(best[index], getattr(pair, measure))
    return best
