"""Fits `trust` to predictions for validation images and their ground truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy

from mtbus_jax import types
from mtbus_jax.evaluation import trust
from mtbus_jax.metrics import calibration


def fit(
    mean_probability: np.ndarray | None,
    disagreement: np.ndarray | None,
    class_logits: np.ndarray | None,
    *,
    mask: np.ndarray | None,
    class_id: np.ndarray | None,
    label: np.ndarray,
    has_lesion: np.ndarray,
    wrong_class: np.ndarray,
    wrong_mask: np.ndarray,
    normal: int | None = types.NORMAL,
) -> trust.FoldTrust:
    """Fits everything on validation images.

    Args:
      mean_probability: ``(n, height, width)``, or None without the segmentation task.
      disagreement: ``(n,)`` disagreement of the members' masks, or None without that task.
      class_logits: ``(members, n, classes)``, or None without the classification task.
      mask: ``(n, height, width)`` bool, the answers' masks, after refining if there is any; None
        without the segmentation task.
      class_id: ``(n,)`` the answers' classes; None without the classification task.
      label: ``(n,)`` true class codes.
      has_lesion: ``(n,)`` bool, whether the true mask has any lesion pixel.
      wrong_class: ``(n,)`` bool; False everywhere without the classification task.
      wrong_mask: ``(n,)`` bool; False everywhere without the segmentation task.
      normal: code of the class "no lesion", None if there is none.
    """
    temperature, threshold, mean, between, presence = 1.0, 0.0, None, None, None
    # Laplace's rule keeps the prior off 0 and 1.
    prior = (has_lesion.sum() + 1) / (len(has_lesion) + 2)
    presence_model = trust.Presence(trust.Logistic(0.0, (0.0, 0.0)), float(prior))
    if class_logits is not None:
        # `trust.assess` divides by float64 temperatures; the threshold must use the same type.
        class_logits = np.asarray(class_logits, np.float64)
        temperature = calibration.fit_temperature(class_logits, label)
        mean, between = trust.join_classes(
            scipy.special.softmax(class_logits / temperature, axis=-1)
        )
        threshold = calibration.conformal_threshold(mean, label, error_rate=trust.ERROR_RATE)
    if mean_probability is not None:
        signs = trust.mask_signs(mean_probability, disagreement)
        presence_model = presence_model._replace(model=fit_logistic(signs, has_lesion))
        presence = presence_model(mean_probability, disagreement)
    assessed = trust.Assessment(
        mean_probability,
        mean,
        presence,
        class_disagreement=between,
        mask_disagreement=disagreement,
        class_presence=None if mean is None else trust.lesion_by_class(mean, normal),
    )
    doubt = trust.signs_of_doubt(assessed, mask, class_id)
    models = {
        name: fit_logistic(np.stack(doubt, axis=-1), outcome) if made else trust.NEVER
        for name, outcome, made in (
            ("class_error", wrong_class, class_logits is not None),
            ("mask_error", wrong_mask, mean_probability is not None),
        )
    }
    fitted = trust.FoldTrust(
        temperature=temperature,
        conformal_threshold=threshold,
        presence=presence_model,
        warning_threshold=1.0,
        validation_images=len(label),
        **models,
    )
    cut = float(np.quantile(fitted.uncertainty(doubt), 1 - trust.WARNING_SHARE))
    return dataclasses.replace(fitted, warning_threshold=cut)


def fit_logistic(signs: np.ndarray, outcome: np.ndarray) -> trust.Logistic:
    """Fits a logistic curve with weights ≥ 0 by maximum likelihood with a ridge penalty.

    The penalty is 1/2 of the sum of the squared weights of the standardised signs.

    Args:
      signs: ``(n, signs)`` float.
      outcome: ``(n,)`` bool.

    Returns:
      The curve, for signs that are not standardised. If the outcome is always the same or no sign
      varies, all weights are 0 and the curve's value is the outcome's share by Laplace's rule.
    """
    outcome = np.asarray(outcome, bool)
    centre, scale = signs.mean(axis=0), signs.std(axis=0)
    used = scale > 1e-9  # a sign that never varies says nothing
    if outcome.all() or not outcome.any() or not used.any():
        share = (outcome.sum() + 1) / (len(outcome) + 2)  # Laplace's rule
        return trust.Logistic(float(scipy.special.logit(share)), (0.0,) * len(scale))
    inputs = (signs[:, used] - centre[used]) / scale[used]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        offset, weights = parameters[0], parameters[1:]
        score = offset + inputs @ weights
        miss = scipy.special.expit(score) - outcome
        value = np.logaddexp(0, score).sum() - score[outcome].sum() + weights @ weights / 2
        return value, np.concatenate([[miss.sum()], inputs.T @ miss + weights])

    bounds = [(None, None)] + [(0, None)] * inputs.shape[1]
    found = scipy.optimize.minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds).x
    weights = np.zeros(len(scale))
    weights[used] = found[1:] / scale[used]
    return trust.Logistic(float(found[0] - weights @ centre), tuple(weights.tolist()))
