"""Reliability of predicted probabilities: temperature, calibration error, conformal sets.

All functions use NumPy. Most take class logits or probabilities of n images. Temperatures and
thresholds are fitted on validation images and then applied to others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

# A temperature outside this range means uninformative logits or too few images.
_TEMPERATURES = (0.05, 20.0)


def fit_temperature(class_logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature T that maximises the likelihood of softmax(logits / T) on these images.

    Guo et al. 2017 (ICML), section 4.2. For an ensemble, T maximises the likelihood of the mean of
    the members' distributions, because averaging already lowers the confidence.

    Args:
      class_logits: ``(n, classes)`` float, or ``(members, n, classes)``.
      label: ``(n,)`` integers.

    Returns:
      T in [0.05, 20]; above 1 where the network is overconfident.

    Raises:
      ValueError: for no image, or shapes that do not fit.
    """
    members = class_logits[None] if class_logits.ndim == 2 else class_logits
    _check(members[0], label)
    true_class = label[None, :, None]

    def negative_log_likelihood(log_temperature: float) -> float:
        log_p = scipy.special.log_softmax(members / np.exp(log_temperature), axis=-1)
        log_true = np.take_along_axis(log_p, true_class, axis=-1)
        return -scipy.special.logsumexp(log_true, axis=0).mean()

    bounds = np.log(_TEMPERATURES)
    found = scipy.optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


class Reliability(NamedTuple):
    """Stated confidence against accuracy in bins of equal width; empty bins have NaN means.

    Attributes:
      edges: ``(bins + 1,)`` bin edges of the confidence.
      confidence: ``(bins,)`` mean stated probability of the predicted class.
      accuracy: ``(bins,)`` share predicted correctly.
      count: ``(bins,)`` number of images.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability(probability: np.ndarray, label: np.ndarray, *, bins: int = 10) -> Reliability:
    """The reliability diagram of the predicted (most probable) class.

    Args:
      probability: ``(n, classes)``, rows that sum to 1.
      label: ``(n,)`` integers.
      bins: number of bins between 0 and 1.

    Raises:
      ValueError: for no image, or shapes that do not fit.
    """
    _check(probability, label)
    confidence = probability.max(axis=-1)
    correct = probability.argmax(axis=-1) == label
    edges = np.linspace(0, 1, bins + 1)
    # Bins are (lower, upper], as in Guo et al. 2017.
    position = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(position, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(position, confidence, minlength=bins) / count
        accuracy = np.bincount(position, correct, minlength=bins) / count
    return Reliability(edges, mean_confidence, accuracy, count)


def expected_calibration_error(
    probability: np.ndarray, label: np.ndarray, *, bins: int = 10
) -> float:
    """Mean gap between confidence and accuracy over bins, weighted by images.

    Guo et al. 2017 (ICML), equation 3.

    Args:
      probability: ``(n, classes)``, rows that sum to 1.
      label: ``(n,)`` integers.
      bins: number of bins of equal width.

    Returns:
      A value in [0, 1]; 0 means calibrated.
    """
    table = reliability(probability, label, bins=bins)
    filled = table.count > 0
    gap = np.abs(table.confidence - table.accuracy)[filled]
    return float((gap * table.count[filled]).sum() / table.count.sum())


def conformal_threshold(probability: np.ndarray, label: np.ndarray, *, error_rate: float) -> float:
    """The smallest probability with which a class belongs to a prediction set.

    Split conformal prediction with the score 1 − p(true class) (Sadinle et al. 2019, JASA): for
    images exchangeable with these, the set of all classes with at least this probability misses
    the true class with a probability of at most ``error_rate``.

    Args:
      probability: ``(n, classes)`` of images that were not trained on.
      label: ``(n,)`` integers.
      error_rate: between 0 and 1.

    Returns:
      In [0, 1]; 0 (every class in every set) if n is too small for the error rate.

    Raises:
      ValueError: for an error rate out of range, no image, or shapes that do not fit.
    """
    _check(probability, label)
    if not 0 < error_rate < 1:
        raise ValueError(f"error_rate={error_rate} must lie between 0 and 1")
    score = np.sort(1 - probability[np.arange(len(label)), label])
    rank = int(np.ceil((len(score) + 1) * (1 - error_rate)))
    return 0.0 if rank > len(score) else float(1 - score[rank - 1])


def prediction_sets(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes are in each image's prediction set.

    Args:
      probability: ``(n, classes)``.
      threshold: from `conformal_threshold`.

    Returns:
      ``(n, classes)`` bool. A set is empty if no class reaches the threshold.
    """
    # Some ulps of slack, in float64: 1 − (1 − p) may lie above p.
    return probability >= threshold - 1e-9


def mask_disagreement(probability: np.ndarray) -> np.ndarray:
    """How much the members of an ensemble disagree about each mask.

    1 − mean Dice between each member's mask and the mask of the mean probability; two empty masks
    agree.

    Args:
      probability: ``(members, n, height, width)``, tumour probabilities.

    Returns:
      ``(n,)`` float in [0, 1]; 0 where all members have the same mask.
    """
    joint = probability.mean(axis=0) > 0.5
    total = np.zeros(len(joint))
    for member in probability > 0.5:  # one at a time: a 50-member stack of masks is large
        overlap = (member & joint).sum(axis=(1, 2))
        size = member.sum(axis=(1, 2)) + joint.sum(axis=(1, 2))
        total += np.where(size == 0, 1.0, 2 * overlap / np.maximum(size, 1))
    return 1 - total / len(probability)


class RiskCoverage(NamedTuple):
    """Mean error of the images that are kept when the most uncertain are left out.

    Attributes:
      coverage: ``(n,)`` share of images kept, 1/n … 1.
      risk: ``(n,)`` mean error of the images kept.
    """

    coverage: np.ndarray
    risk: np.ndarray

    def at(self, coverage: float) -> float:
        """Risk at a share of images kept (rounded up to a whole number of images)."""
        n = len(self.risk)
        kept = min(max(int(np.ceil(coverage * n - 1e-9)), 1), n)
        return float(self.risk[kept - 1])


def risk_coverage(error: np.ndarray, uncertainty: np.ndarray) -> RiskCoverage:
    """The risk-coverage curve (Geifman and El-Yaniv 2017, NeurIPS).

    Images of equal uncertainty all count with their mean error, so their order does not matter.

    Args:
      error: ``(n,)`` float, such as 1 for a wrong class, or 1 − Dice.
      uncertainty: ``(n,)`` float, larger is less certain.

    Raises:
      ValueError: for no image, or shapes that differ.
    """
    error, uncertainty = np.asarray(error, float), np.asarray(uncertainty, float)
    if error.ndim != 1 or error.shape != uncertainty.shape or not len(error):
        raise ValueError(f"error {error.shape} and uncertainty {uncertainty.shape}: give n of each")
    levels, position = np.unique(uncertainty, return_inverse=True)
    mean = np.bincount(position, error, minlength=len(levels)) / np.bincount(position)
    kept = np.arange(1, len(error) + 1)
    return RiskCoverage(kept / len(error), np.cumsum(mean[np.sort(position)]) / kept)


def _check(scores: np.ndarray, label: np.ndarray) -> None:
    if scores.ndim != 2 or label.shape != scores.shape[:1] or not len(label):
        raise ValueError(
            f"scores {scores.shape} and label {label.shape}: give (n, classes) and (n,), n > 0"
        )
