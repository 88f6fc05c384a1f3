"""How far a prediction can be trusted: calibrated probabilities, uncertainty, warnings.

Everything is fitted on validation images alone, one `FoldTrust` per fold; `assess` applies it to
the outputs of an ensemble, whose members are folds and, within a fold, the flipped and turned
versions of the image. Fitted are

* a temperature for the class logits (Guo et al. 2017, ICML),
* a threshold for conformal prediction sets (Sadinle et al. 2019, JASA),
* the probability of a lesion, from the mask's probability mass and the members' agreement on it,
* the probabilities that the class and the mask are wrong, from four signs of doubt (`Doubt`), and
  above which value of their union a case earns a warning.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy

from mtbus_jax import runfolder, types
from mtbus_jax.errors import UserError
from mtbus_jax.metrics import calibration

TRUST = "trust.json"
# Prediction sets may miss the true class this often.
ERROR_RATE = 0.1
# Share of the validation images that would have earned a warning.
WARNING_SHARE = 0.2
# A mask with less Dice than this counts as wrong.
WRONG_DICE = 0.5


class Logistic(NamedTuple):
    """sigmoid(offset + weights · signs); no weight is negative.

    Each sign speaks for the outcome or not at all: with 68 validation images, a free regression
    would turn signs that say nearly the same against each other.
    """

    offset: float
    weights: tuple[float, ...]

    def __call__(self, signs: np.ndarray) -> np.ndarray:
        """``(n, signs)`` → ``(n,)`` probability."""
        return scipy.special.expit(self.offset + signs @ np.array(self.weights))


class Presence(NamedTuple):
    """Whether there is a lesion, judged by the mask alone.

    Attributes:
      model: probability q of a lesion from two signs: how concentrated the mask's probability mass
        is, Σ p²/Σ p, and how far the members agree on the mask.
      prior: share of validation images with a lesion.
    """

    model: Logistic
    prior: float

    def __call__(self, mean_probability: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
        """``(n, height, width)`` mean tumour probability, ``(n,)`` disagreement → ``(n,)`` q."""
        return self.model(mask_signs(mean_probability, disagreement))


class Doubt(NamedTuple):
    """Four signs of doubt, each ``(n,)`` float in [0, 1], 0 where it cannot be had.

    Attributes:
      class_doubt: 1 − the highest calibrated class probability.
      class_disagreement: mean total variation distance of the members from their mean.
      mask_disagreement: see `calibration.mask_disagreement`.
      conflict: |q − (1 − c_normal)|: mask and class differ on whether there is a lesion.
    """

    class_doubt: np.ndarray
    class_disagreement: np.ndarray
    mask_disagreement: np.ndarray
    conflict: np.ndarray


@dataclasses.dataclass(frozen=True)
class FoldTrust:
    """What was fitted on the validation images of one fold.

    Attributes:
      temperature: of the class logits; 1 without the classification task.
      conformal_threshold: least probability of a class in a prediction set.
      presence: see `Presence`.
      class_error: probability of a wrong class from the signs of `Doubt`.
      mask_error: probability of a mask with a Dice below `WRONG_DICE`, likewise.
      warning_threshold: uncertainty above which there is a warning.
      validation_images: it was fitted on.
    """

    temperature: float
    conformal_threshold: float
    presence: Presence
    class_error: Logistic
    mask_error: Logistic
    warning_threshold: float
    validation_images: int

    def uncertainty(self, doubt: Doubt) -> np.ndarray:
        """``(n,)`` probability that class or mask is wrong, as if independent of each other."""
        signs = np.stack(doubt, axis=-1)
        return 1 - (1 - self.class_error(signs)) * (1 - self.mask_error(signs))


# For a task that the network does not have: its error has a probability of practically 0.
_NEVER = Logistic(-50.0, (0.0,) * 4)
# By fold.
Trust = dict[int, FoldTrust]


class Assessment(NamedTuple):
    """What an ensemble says about n images; None for what the network does not compute.

    Attributes:
      probability: ``(n, height, width)`` float32, mean tumour probability.
      class_probability: ``(n, classes)`` calibrated, mean over members.
      presence: ``(n,)`` probability of a lesion, judged by the mask.
      lesion_odds: ``(n,)`` by how much the mask raises the odds of a lesion, see
        `refine.refine_probable`.
      uncertainty: ``(n,)`` in [0, 1], probability that the prediction is wrong.
      warning: ``(n,)`` bool.
      prediction_set: ``(n, classes)`` bool, holds the true class in 90 % of cases.
    """

    probability: np.ndarray | None
    class_probability: np.ndarray | None
    presence: np.ndarray | None
    lesion_odds: np.ndarray | None
    uncertainty: np.ndarray
    warning: np.ndarray
    prediction_set: np.ndarray | None


def read(workdir: Path) -> Trust | None:
    """What was fitted for a run, or None if nothing was.

    Raises:
      UserError: if the file is broken.
    """
    path = workdir / TRUST
    if not path.exists():
        return None
    try:
        return {
            int(fold): FoldTrust(
                **{
                    **values,
                    "presence": Presence(_logistic(values["presence"][0]), values["presence"][1]),
                    "class_error": _logistic(values["class_error"]),
                    "mask_error": _logistic(values["mask_error"]),
                }
            )
            for fold, values in runfolder.read_json(path)["folds"].items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is broken ({type(error).__name__}). Run main.py --mode=evaluate --config=… "
            "--workdir=… on the run folder to write it again."
        ) from None


def assess(
    probability: np.ndarray | None, class_logits: np.ndarray | None, trust: Trust, folds: list[int]
) -> Assessment:
    """Joins the members of an ensemble and says how far the result can be trusted.

    Args:
      probability: ``(members, n, height, width)`` tumour probabilities, or None.
      class_logits: ``(members, n, classes)``, or None.
      trust: of the run.
      folds: fold of each group of members; members come fold by fold, equally many of each.
    """
    mean = disagreement = None
    if probability is not None:
        mean = probability.mean(axis=0)
        disagreement = calibration.mask_disagreement(probability)
    return join(mean, disagreement, class_logits, trust, folds)


def join(
    mean_probability: np.ndarray | None,
    disagreement: np.ndarray | None,
    class_logits: np.ndarray | None,
    trust: Trust,
    folds: list[int],
) -> Assessment:
    """`assess` where the members' masks are already joined.

    Args:
      mean_probability: ``(n, height, width)``, or None.
      disagreement: ``(n,)`` of `calibration.mask_disagreement`, or None.
      class_logits: ``(members, n, classes)``, or None.
      trust: of the run.
      folds: see `assess`.
    """
    fitted = [trust[fold] for fold in folds]
    members = None
    if class_logits is not None:
        temperature = np.repeat([f.temperature for f in fitted], len(class_logits) // len(folds))
        members = scipy.special.softmax(class_logits / temperature[:, None, None], axis=-1)
    presence = lesion_odds = None
    if mean_probability is not None:
        presence = np.mean([f.presence(mean_probability, disagreement) for f in fitted], axis=0)
        prior = np.mean([f.presence.prior for f in fitted])
        lesion_odds = presence / (1 - presence) * (1 - prior) / prior
    doubt = signs_of_doubt(members, disagreement, presence)
    uncertainty = np.mean([f.uncertainty(doubt) for f in fitted], axis=0)
    class_probability = prediction_set = None
    if members is not None:
        class_probability = members.mean(axis=0)
        # The lowest of the folds' thresholds gives the largest set: rather too large than wrong.
        threshold = min(f.conformal_threshold for f in fitted)
        prediction_set = calibration.prediction_sets(class_probability, threshold)
    warning = uncertainty > np.mean([f.warning_threshold for f in fitted])
    return Assessment(
        mean_probability,
        class_probability,
        presence,
        lesion_odds,
        uncertainty,
        warning,
        prediction_set,
    )


def signs_of_doubt(
    members: np.ndarray | None, disagreement: np.ndarray | None, presence: np.ndarray | None
) -> Doubt:
    """The four signs of doubt.

    Args:
      members: ``(members, n, classes)`` calibrated class probabilities, or None.
      disagreement: ``(n,)`` of the masks, or None.
      presence: ``(n,)`` probability of a lesion judged by the mask, or None.
    """
    count = len(disagreement) if members is None else members.shape[1]
    class_doubt = class_disagreement = conflict = np.zeros(count)
    if members is not None:
        mean = members.mean(axis=0)
        class_doubt = 1 - mean.max(axis=-1)
        class_disagreement = np.abs(members - mean).sum(axis=-1).mean(axis=0) / 2
        if presence is not None:
            conflict = np.abs(presence - (1 - mean[:, types.NORMAL]))
    if disagreement is None:
        disagreement = np.zeros(count)
    return Doubt(class_doubt, class_disagreement, disagreement, conflict)


def mask_signs(mean_probability: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
    """``(n, 2)``: concentration Σ p²/Σ p of the mask's probability mass, and 1 − disagreement."""
    flat = mean_probability.reshape(len(mean_probability), -1).astype(float)
    mass = flat.sum(axis=-1)
    return np.stack([(flat**2).sum(axis=-1) / np.maximum(mass, 1e-9), 1 - disagreement], axis=-1)


def fit(
    mean_probability: np.ndarray | None,
    disagreement: np.ndarray | None,
    class_logits: np.ndarray | None,
    *,
    label: np.ndarray,
    has_lesion: np.ndarray,
    wrong_class: np.ndarray,
    wrong_mask: np.ndarray,
) -> FoldTrust:
    """Fits everything on validation images.

    Args:
      mean_probability: ``(n, height, width)``, or None without the segmentation task.
      disagreement: ``(n,)`` of the masks, or None likewise.
      class_logits: ``(members, n, classes)``, or None without the classification task.
      label: ``(n,)`` true class codes.
      has_lesion: ``(n,)`` bool, whether the true mask holds a pixel.
      wrong_class: ``(n,)`` bool; False everywhere without the classification task.
      wrong_mask: ``(n,)`` bool; False everywhere without the segmentation task.
    """
    temperature, threshold, members = 1.0, 0.0, None
    # Laplace's rule keeps the prior off 0 and 1.
    prior = (has_lesion.sum() + 1) / (len(has_lesion) + 2)
    presence_model, presence = Presence(Logistic(0.0, (0.0, 0.0)), float(prior)), None
    if class_logits is not None:
        temperature = calibration.fit_temperature(class_logits, label)
        members = scipy.special.softmax(class_logits / temperature, axis=-1)
        threshold = calibration.conformal_threshold(
            members.mean(axis=0), label, error_rate=ERROR_RATE
        )
    if mean_probability is not None:
        signs = mask_signs(mean_probability, disagreement)
        presence_model = presence_model._replace(model=_fit_logistic(signs, has_lesion))
        presence = presence_model(mean_probability, disagreement)
    doubt = signs_of_doubt(members, disagreement, presence)
    models = {
        name: _fit_logistic(np.stack(doubt, axis=-1), outcome) if made else _NEVER
        for name, outcome, made in (
            ("class_error", wrong_class, class_logits is not None),
            ("mask_error", wrong_mask, mean_probability is not None),
        )
    }
    fitted = FoldTrust(
        temperature=temperature,
        conformal_threshold=threshold,
        presence=presence_model,
        warning_threshold=1.0,
        validation_images=len(label),
        **models,
    )
    cut = float(np.quantile(fitted.uncertainty(doubt), 1 - WARNING_SHARE))
    return dataclasses.replace(fitted, warning_threshold=cut)


def _logistic(values: list) -> Logistic:
    return Logistic(float(values[0]), tuple(map(float, values[1])))


def _fit_logistic(signs: np.ndarray, outcome: np.ndarray) -> Logistic:
    """Most likely weights ≥ 0, with a ridge of 1/2 on the weights of standardised signs."""
    centre, scale = signs.mean(axis=0), signs.std(axis=0)
    used = scale > 1e-9  # a sign that never varies says nothing
    if outcome.all() or not outcome.any() or not used.any():
        share = (outcome.sum() + 1) / (len(outcome) + 2)  # Laplace's rule
        return Logistic(float(scipy.special.logit(share)), (0.0,) * len(scale))
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
    return Logistic(float(found[0] - weights @ centre), tuple(weights.tolist()))
