"""How far a prediction can be trusted: calibrated probabilities, uncertainty, warnings.

Everything is fitted on validation images only, one `FoldTrust` per fold. `assess` applies it to the
outputs of an ensemble, which has one member for each combination of fold, network and flipped or
turned version of the image. `judge` then says how doubtful an answer (mask and class) is. `fit`
fits

* a temperature for the class logits (Guo et al. 2017, ICML),
* a threshold for conformal prediction sets (Sadinle et al. 2019, JASA),
* the probability of a lesion, from how concentrated the mask's probability is and how far the
  members agree on it,
* the probabilities that the class and the mask are wrong, from five signs of doubt (`Doubt`), and
  the threshold on the probability that either is wrong, above which a case gets a warning.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy

from mtbus_jax import types
from mtbus_jax.metrics import calibration

# Share of cases in which the prediction set may miss the true class.
ERROR_RATE = 0.1
# Share of the validation images that get a warning.
WARNING_SHARE = 0.2
# A mask with a lower Dice than this counts as wrong.
WRONG_DICE = 0.5


class Logistic(NamedTuple):
    """sigmoid(offset + weights · signs); no weight is negative.

    More of a sign never lowers the probability. With only 68 validation images, an unconstrained
    regression would give weights of opposite sign to signs that say nearly the same.
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
    """Five signs of doubt about an answer, each ``(n,)`` float in [0, 1], 0 where there is none.

    Attributes:
      class_doubt: 1 − the calibrated probability of the answer's class.
      class_disagreement: mean total variation distance of the members from their mean.
      mask_disagreement: see `calibration.mask_disagreement`.
      conflict: |q − (1 − c_normal)|, how far mask and class differ on whether there is a lesion.
        c_normal is the probability of the class "no lesion", 0 if there is no such class.
      dice_doubt: 1 − `expected_dice` of the answer's mask.
    """

    class_doubt: np.ndarray
    class_disagreement: np.ndarray
    mask_disagreement: np.ndarray
    conflict: np.ndarray
    dice_doubt: np.ndarray


@dataclasses.dataclass(frozen=True)
class FoldTrust:
    """What was fitted on the validation images of one fold.

    Attributes:
      temperature: temperature of the class logits; 1 without the classification task.
      conformal_threshold: lowest probability that a class in a prediction set can have.
      presence: gives the probability of a lesion from the mask.
      class_error: probability of a wrong class from the signs of `Doubt`.
      mask_error: probability of a mask with a Dice below `WRONG_DICE`, from the same signs.
      warning_threshold: uncertainty above which there is a warning.
      validation_images: number of images it was fitted on.
    """

    temperature: float
    conformal_threshold: float
    presence: Presence
    class_error: Logistic
    mask_error: Logistic
    warning_threshold: float
    validation_images: int

    def uncertainty(self, doubt: Doubt) -> np.ndarray:
        """``(n,)`` probability that class or mask is wrong, the two taken as independent."""
        signs = np.stack(doubt, axis=-1)
        return 1 - (1 - self.class_error(signs)) * (1 - self.mask_error(signs))


# For a task that the network does not have: its error has a probability of practically 0.
NEVER = Logistic(-50.0, (0.0,) * len(Doubt._fields))
# By fold.
Trust = dict[int, FoldTrust]


class Assessment(NamedTuple):
    """What an ensemble says about n images; None for what the network does not compute.

    Attributes:
      probability: ``(n, height, width)`` float32, mean tumour probability.
      class_probability: ``(n, classes)`` calibrated probabilities, mean over members.
      presence: ``(n,)`` probability of a lesion, judged by the mask.
      lesion_odds: ``(n,)`` factor by which the mask multiplies the odds of a lesion, see
        `refine.refine_probable`.
      prediction_set: ``(n, classes)`` bool, made to hold the true class in at least 90 % of cases.
      class_disagreement: ``(n,)`` of the members, as in `Doubt`.
      mask_disagreement: ``(n,)`` of the members, as in `Doubt`.
      class_presence: ``(n,)`` probability of a lesion, judged by the class.
    """

    probability: np.ndarray | None
    class_probability: np.ndarray | None
    presence: np.ndarray | None = None
    lesion_odds: np.ndarray | None = None
    prediction_set: np.ndarray | None = None
    class_disagreement: np.ndarray | None = None
    mask_disagreement: np.ndarray | None = None
    class_presence: np.ndarray | None = None


class Judgement(NamedTuple):
    """How doubtful n answers are.

    Attributes:
      uncertainty: ``(n,)`` in [0, 1], probability that class or mask is wrong.
      warning: ``(n,)`` bool.
    """

    uncertainty: np.ndarray
    warning: np.ndarray


def assess(
    probability: np.ndarray | None,
    class_logits: np.ndarray | None,
    trust: Trust,
    folds: list[int],
    *,
    normal: int | None = types.NORMAL,
) -> Assessment:
    """Joins the members of an ensemble.

    Args:
      probability: ``(members, n, height, width)`` tumour probabilities, or None.
      class_logits: ``(members, n, classes)``, or None.
      trust: what was fitted for the run.
      folds: fold of each group of members. Members come fold by fold, the same number per fold.
      normal: code of the class "no lesion", None if there is none.
    """
    mean = disagreement = None
    if probability is not None:
        mean = probability.mean(axis=0)
        disagreement = calibration.mask_disagreement(probability)
    return join(mean, disagreement, class_logits, trust, folds, normal=normal)


def join(
    mean_probability: np.ndarray | None,
    disagreement: np.ndarray | None,
    class_logits: np.ndarray | None,
    trust: Trust,
    folds: list[int],
    *,
    normal: int | None = types.NORMAL,
) -> Assessment:
    """Like `assess`, for masks that are already averaged over the members.

    Args:
      mean_probability: ``(n, height, width)`` mean tumour probability, or None.
      disagreement: ``(n,)`` from `calibration.mask_disagreement`, or None.
      class_logits: ``(members, n, classes)``, or None.
      trust: what was fitted for the run.
      folds: fold of each group of members. Members come fold by fold, the same number per fold.
      normal: code of the class "no lesion", None if there is none.
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
    class_probability = prediction_set = class_disagreement = class_presence = None
    if members is not None:
        class_probability, class_disagreement = join_classes(members)
        class_presence = lesion_by_class(class_probability, normal)
        # The lowest threshold of the folds gives the largest set: too large is better than wrong.
        threshold = min(f.conformal_threshold for f in fitted)
        prediction_set = calibration.prediction_sets(class_probability, threshold)
    return Assessment(
        mean_probability,
        class_probability,
        presence,
        lesion_odds,
        prediction_set,
        class_disagreement=class_disagreement,
        mask_disagreement=disagreement,
        class_presence=class_presence,
    )


def lesion_by_class(class_probability: np.ndarray, normal: int | None) -> np.ndarray:
    """``(n, classes)`` → ``(n,)`` probability of a lesion; 1 where no class means "no lesion"."""
    if normal is None:
        return np.ones(len(class_probability))
    return 1 - class_probability[:, normal]


def join_classes(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(members, n, classes)`` probabilities → their mean, and the members' disagreement."""
    mean = members.mean(axis=0)
    return mean, np.abs(members - mean).sum(axis=-1).mean(axis=0) / 2


def judge(
    assessed: Assessment,
    mask: np.ndarray | None,
    class_id: np.ndarray | None,
    trust: Trust,
    folds: list[int],
) -> Judgement:
    """Says how doubtful the answers are that were derived from an assessment.

    Args:
      assessed: what the members say about the images, from `assess`.
      mask: ``(n, height, width)`` bool, the answers' masks, after refining if there is any; None
        without the segmentation task.
      class_id: ``(n,)`` the answers' classes; None without the classification task.
      trust: what was fitted for the run.
      folds: the ensemble's folds.
    """
    fitted = [trust[fold] for fold in folds]
    doubt = signs_of_doubt(assessed, mask, class_id)
    uncertainty = np.mean([f.uncertainty(doubt) for f in fitted], axis=0)
    warning = uncertainty > np.mean([f.warning_threshold for f in fitted])
    return Judgement(uncertainty, warning)


def signs_of_doubt(
    assessed: Assessment, mask: np.ndarray | None, class_id: np.ndarray | None
) -> Doubt:
    """The signs of doubt about answers; for the arguments see `judge`."""
    none = np.zeros(len(mask) if class_id is None else len(class_id))
    doubt = Doubt(*[none] * len(Doubt._fields))
    if mask is not None:
        expected = expected_dice(assessed.probability, mask, assessed.presence)
        doubt = doubt._replace(
            mask_disagreement=assessed.mask_disagreement, dice_doubt=1 - expected
        )
    if class_id is not None:
        said = np.take_along_axis(assessed.class_probability, class_id[:, None], axis=-1)[:, 0]
        doubt = doubt._replace(class_doubt=1 - said, class_disagreement=assessed.class_disagreement)
    if mask is not None and class_id is not None:
        doubt = doubt._replace(conflict=np.abs(assessed.presence - assessed.class_presence))
    return doubt


def expected_dice(probability: np.ndarray, mask: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """The Dice to expect for a mask m, given the probabilities: q · 2 Σ p m / (Σ p + Σ m).

    For an empty mask it is 1 − q, since its Dice is 1 if there is no lesion. For other masks, the
    ratio of expectations approximates the expectation of the ratio.

    Args:
      probability: ``(n, height, width)``, tumour probability p.
      mask: ``(n, height, width)`` bool, m.
      presence: ``(n,)`` probability q that there is a lesion.

    Returns:
      ``(n,)`` in [0, 1].
    """
    p, m = (a.reshape(len(mask), -1).astype(float) for a in (probability, mask))
    overlap = 2 * (p * m).sum(axis=-1) / np.maximum((p + m).sum(axis=-1), 1e-9)
    return np.where(m.any(axis=-1), presence * overlap, 1 - presence)


def mask_signs(mean_probability: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
    """``(n, 2)``: concentration Σ p²/Σ p of the mask's probability mass, and 1 − disagreement."""
    flat = mean_probability.reshape(len(mean_probability), -1).astype(float)
    mass = flat.sum(axis=-1)
    return np.stack([(flat**2).sum(axis=-1) / np.maximum(mass, 1e-9), 1 - disagreement], axis=-1)
