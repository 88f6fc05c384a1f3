"""Schedules of the learning rate, and early stopping, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Which weights of a training are kept: those of the lowest validation loss, of the last epoch, or
# their running average over the steps.
BEST, LAST, AVERAGE = "best", "last", "average"
KEPT = (BEST, LAST, AVERAGE)
# What steers the learning rate: a validation loss that no longer falls; or the step alone, along
# half a cosine from the initial learning rate to 0 or to a share of it; or the epoch alone.
PLATEAU, COSINE, DECAY = "plateau", "cosine", "decay"
COURSES = (PLATEAU, COSINE, DECAY)


class PlateauSchedule(NamedTuple):
    """Reduce-on-plateau with early stopping, as in the released code of Aumente-Maestro et al.

    The learning rate follows PyTorch's `ReduceLROnPlateau`. An epoch is bad if its validation loss
    is not below ``(1 - threshold)`` times the lowest one that counted as an improvement; after
    ``patience + 1`` bad epochs in a row the rate is lowered. Best weights and early stopping
    compare strictly, without the threshold; after ``stop_patience + 1`` epochs in a row without a
    new best loss, training ends.

    Attributes:
      learning_rate: initial learning rate.
      factor: what the learning rate is multiplied by.
      patience: bad epochs in a row that do not yet lower the learning rate.
      threshold: relative improvement below which an epoch is bad for the learning rate.
      min_learning_rate: the learning rate is not lowered below this.
      stop_patience: epochs in a row without a new best loss that do not yet end training.
      keep: one of `KEPT`.
      average_decay: with the average, the share of it that each step keeps.
      course: one of `COURSES`; only with the plateau does the learning rate depend on the loss.
      warmup: with the cosine, share of all steps in which the learning rate rises from 0.
      floor: with the cosine, where it ends, as a share of the initial learning rate.
      decay: with the decay, what the learning rate is multiplied by.
      decay_epochs: with the decay, number of epochs between two such steps.
    """

    learning_rate: float = 1e-4
    factor: float = 0.5
    patience: int = 20
    threshold: float = 1e-4
    min_learning_rate: float = 1e-6
    stop_patience: int = 50
    keep: str = BEST
    average_decay: float = 0.99
    course: str = PLATEAU
    warmup: float = 0.0
    floor: float = 0.0
    decay: float = 0.9
    decay_epochs: int = 20


class Plateau(NamedTuple):
    """The state of the schedule; scalars, so that it can be checkpointed.

    Attributes:
      learning_rate: of the next epoch.
      best_loss: lowest validation loss so far, ∞ before the first epoch.
      best_epoch: the epoch (from 1) that reached it, 0 before the first epoch.
      since_best: epochs since then.
      reference_loss: lowest validation loss that was an improvement by the schedule's threshold.
      since_drop: bad epochs since then or since the last reduction.
    """

    learning_rate: jax.Array
    best_loss: jax.Array
    best_epoch: jax.Array
    since_best: jax.Array
    reference_loss: jax.Array
    since_drop: jax.Array


def learning_rate(
    schedule: PlateauSchedule,
    plateau_rate: jax.Array | float,
    *,
    step: jax.Array | int,
    total_steps: jax.Array | int,
    epoch: jax.Array | int = 0,
) -> jax.Array | float:
    """The learning rate of one optimiser step, scalar.

    Args:
      schedule: says how it is determined.
      plateau_rate: the rate of the plateau schedule, see `Plateau.learning_rate`; on the other
        courses it stays the initial one.
      step: steps done before this one.
      total_steps: of the whole training.
      epoch: epochs done before this step.
    """
    if schedule.course == PLATEAU:
        return plateau_rate
    if schedule.course == DECAY:
        return plateau_rate * schedule.decay ** (epoch // schedule.decay_epochs)
    rising = (step + 1) / jnp.maximum(schedule.warmup * total_steps, 1)
    falling = jnp.clip((step / total_steps - schedule.warmup) / (1 - schedule.warmup), 0, 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * falling))
    return plateau_rate * jnp.minimum(rising, schedule.floor + (1 - schedule.floor) * cosine)


def is_better(loss: jax.Array, best: jax.Array) -> jax.Array:
    """Whether ``loss`` is a new best: strictly lower, so a tie keeps the earlier epoch."""
    return loss < best
