"""The allowed values of configuration fields: one table, checked before anything is compiled."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from mtbus_jax import augment, losses, oversampling, splits
from mtbus_jax.errors import UserError
from mtbus_jax.images import enhancement, preprocess
from mtbus_jax.training import schedule

# None leaves everything in the parameters' type, which is float32.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}

_MANY = 1_000_000


class Range(NamedTuple):
    """Numbers that a field may be; never NaN, infinity, True or False.

    Attributes:
      low: the smallest.
      high: the largest.
      what: what the field is, for messages; "" if its name says so.
      above: whether ``low`` itself is left out.
      below: whether ``high`` itself is left out.
      whole: whether it has to be a whole number.
    """

    low: float
    high: float
    what: str = ""
    above: bool = False
    below: bool = False
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is a number that lies in it."""
        kind = numbers.Integral if self.whole else numbers.Real
        return (
            isinstance(value, kind)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (value > self.low if self.above else value >= self.low)
            and (value < self.high if self.below else value <= self.high)
        )

    def __str__(self) -> str:
        """The range as text."""
        start = "greater than" if self.above else "from"
        kind = "a whole number " if self.whole else ""
        return f"{kind}{start} {_shown(self.low)} to {'less than ' * self.below}{_shown(self.high)}"


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _whole(low: int, high: int, what: str = "") -> Range:
    return Range(low, high, what, whole=True)


_SHARE = Range(0, 1, "a share")
_SHARE_BELOW_1 = Range(0, 1, "a share", below=True)
_SECONDS = Range(0, 1e9, "seconds")

RANGES = {
    "seed": _whole(0, 2**31 - 1),
    "data.fold_count": _whole(2, 1000),
    "model.width": _whole(1, 1024, "feature maps"),
    "loss.weight": Range(0, 1, "λ, the share of the segmentation loss"),
    "loss.gamma": Range(0, 100),
    "loss.class_weights": Range(0, 1e6, "weights, one per class"),
    "loss.dice_smoothing": Range(0, 1e6, "pixels", above=True),
    "loss.cross_entropy": Range(0, 1e6),
    "loss.lossnet": Range(0, 1e6),
    "loss.label_smoothing": _SHARE_BELOW_1,
    "loss.reconstruction": Range(0, 1e6),
    "train.elastic": _SHARE,
    "train.speckle": _SHARE,
    "train.mixup": Range(0, 100, "α of a Beta distribution"),
    "train.small_share": _SHARE_BELOW_1,
    "train.small_scale": Range(0, 1, "a share of the sides", above=True, below=True),
    "train.epochs": _whole(1, _MANY),
    "train.batch_size": _whole(1, 65_536, "images"),
    "train.learning_rate": Range(0, 1e38, above=True),
    "train.adam_b1": _SHARE_BELOW_1,
    "train.adam_b2": _SHARE_BELOW_1,
    "train.adam_epsilon": Range(0, 1, above=True),
    "train.weight_decay": Range(0, 1e3),
    "train.l2": Range(0, 1e3),
    "train.clip_norm": Range(0, 1e9),
    "train.encoder_rate": _SHARE,
    "train.warmup": _SHARE_BELOW_1,
    "train.cosine_floor": _SHARE,
    "train.decay_factor": Range(0, 1, "a share", above=True),
    "train.decay_epochs": _whole(1, _MANY, "epochs"),
    "train.plateau_factor": Range(0, 1, "a share", above=True),
    "train.plateau_patience": _whole(0, _MANY, "epochs"),
    "train.plateau_threshold": Range(0, 1, "a share of the loss", below=True),
    "train.min_learning_rate": Range(0, 1e3),
    "train.stop_patience": _whole(0, _MANY, "epochs"),
    "train.average_decay": Range(
        0, 1, "the share of the average that a step leaves as it is", below=True
    ),
    "train.devices": _whole(0, 65_536, "0 takes as many as divide the batch"),
    "train.steps_per_call": _whole(0, _MANY, "0 chooses"),
    "train.checkpoint_seconds": _SECONDS,
    "eval.batch_size": _whole(1, 65_536, "images"),
}

CHOICES = {
    "data.split": splits.SPLITS,
    "data.resize": preprocess.RESIZES,
    "data.enhancement": enhancement.ENHANCEMENTS,
    "loss.weighting": losses.WEIGHTINGS,
    "loss.dice": losses.DICE,
    "train.oversample_rule": oversampling.REPLICATION_RULES,
    "train.augmentation": tuple(augment.METHODS),
    "train.rotation_fill": augment.FILLS,
    "train.keep": schedule.KEPT,
    "train.course": schedule.COURSES,
    "train.compute_dtype": tuple(COMPUTE_DTYPES),
}
# Sides of an image in pixels; the largest is far beyond what a network here can hold.
IMAGE_SIDES = _whole(1, 4096, "height and width in pixels")


def check(flat: Mapping[str, Any]) -> None:
    """Refuses a value that is out of its range or not one of its choices.

    Args:
      flat: a configuration by field, see `run_folder.flatten`. None, which stands for a network's
        own default, is not checked.

    Raises:
      UserError: for the first such field, with what it may be.
    """
    for field, allowed in RANGES.items():
        value = flat.get(field)
        several = value if isinstance(value, list | tuple) else [value]  # seeds of an ensemble
        if value is not None and not all(map(allowed.holds, several)):
            what = f"{allowed.what}, " if allowed.what else ""
            raise UserError(f"{field}={value}: give {what}{allowed}.")
    for field, known in CHOICES.items():
        if flat.get(field, known[0]) not in known:
            raise UserError(f"{field}: {flat[field]!r} is unknown. Known: {', '.join(known)}.")
    size = tuple(flat.get("data.image_size", (1, 1)))
    if len(size) != 2 or not all(IMAGE_SIDES.holds(side) for side in size):
        raise UserError(f"data.image_size={size}: give {IMAGE_SIDES.what}, {IMAGE_SIDES}.")
