"""The train state and its changes outside the steps, as pure functions on device arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mtbus_jax.training.schedule import (
    AVERAGE,
    BEST,
    LAST,
    PLATEAU,
    Plateau,
    PlateauSchedule,
    is_better,
)


class Standing(NamedTuple):
    """What the host reads of a state after an epoch: scalars of `TrainState` by the same names."""

    epoch: jax.Array
    plateau: Plateau
    loss_weights: Mapping[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes; saved and restored as a whole.

    Attributes:
      step: optimiser steps done, int32.
      total_steps: optimiser steps of the whole training, int32, for a schedule that ends there.
      epoch: epochs done, int32.
      params: trainable parameters.
      batch_stats: running statistics of batch-normalised networks, else empty.
      opt_state: Adam's moments.
      plateau: learning-rate schedule and early stopping.
      best_params: parameters to be tested, see `schedule.KEPT`.
      best_batch_stats: running statistics to be tested with them.
      loss_weights: learned p of each task's loss, see `losses.initial_weights`; empty if fixed.
      loss_moments: Adam's moments of these, if there are any.
    """

    step: jax.Array
    total_steps: jax.Array
    epoch: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Plateau
    best_params: Any
    best_batch_stats: Any
    # No leaves if weights are fixed: checkpoints are then as in earlier versions.
    loss_weights: Any = flax.struct.field(default_factory=dict)
    loss_moments: Any = ()

    @property
    def variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes, at the current step."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def standing(self) -> Standing:
        """Epochs done, the schedule and the learned weights of the losses."""
        return Standing(self.epoch, self.plateau, self.loss_weights)

    @property
    def best_variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes, with the weights to be tested."""
        return {"params": self.best_params, "batch_stats": self.best_batch_stats}


def create(
    variables: dict[str, Any],
    *,
    optimizer: optax.GradientTransformation,
    schedule: PlateauSchedule,
    loss_weights: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """A fresh state.

    Args:
      variables: initial variables of the network, see `models.init`.
      optimizer: from `make_optimizer`.
      schedule: the plateau schedule.
      loss_weights: from `losses.initial_weights`; None for fixed ones.
    """
    loss_weights = dict(loss_weights or {})
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        total_steps=jnp.ones((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        plateau=Plateau(
            learning_rate=jnp.asarray(schedule.learning_rate, jnp.float32),
            best_loss=jnp.asarray(jnp.inf, jnp.float32),
            best_epoch=jnp.zeros((), jnp.int32),
            since_best=jnp.zeros((), jnp.int32),
            reference_loss=jnp.asarray(jnp.inf, jnp.float32),
            since_drop=jnp.zeros((), jnp.int32),
        ),
        # Copies, because the step's donated buffers must not be shared.
        best_params=jax.tree.map(jnp.copy, params),
        best_batch_stats=jax.tree.map(jnp.copy, batch_stats),
        loss_weights=loss_weights,
        loss_moments=optimizer.init(loss_weights) if loss_weights else (),
    )


def averaged(state: TrainState, schedule: PlateauSchedule) -> TrainState:
    """The state after a step, with its weights added to the running average if that is kept.

    Exponential moving average (Polyak and Juditsky 1992, in the form of Tarvainen and Valpola
    2017): after step t, average ← d·average + (1 − d)·weights, d = min(decay, (1 + t)/(10 + t)),
    so that the first weights are soon forgotten. Running statistics are averaged in the same way.

    Args:
      state: after the step, ``state.step`` = t.
      schedule: says whether, and with which decay.
    """
    if schedule.keep != AVERAGE:
        return state
    decay = jnp.minimum(schedule.average_decay, (1 + state.step) / (10 + state.step))

    def mean(average, current):
        return jax.tree.map(lambda a, c: a + (1 - decay) * (c - a), average, current)

    return state.replace(
        best_params=mean(state.best_params, state.params),
        best_batch_stats=mean(state.best_batch_stats, state.batch_stats),
    )


def validated(state: TrainState, schedule: PlateauSchedule) -> dict[str, Any]:
    """The weights that an epoch is judged by: the current ones, or their average if it is kept."""
    return state.best_variables if schedule.keep == AVERAGE else state.variables


def end_epoch(state: TrainState, loss: jax.Array, schedule: PlateauSchedule) -> TrainState:
    """Closes an epoch: keeps its weights if they are the better ones, and moves the schedule on.

    Args:
      state: after the epoch's last step.
      loss: validation loss of the epoch, scalar.
      schedule: the plateau schedule.
    """
    old = state.plateau
    epoch = state.epoch + 1
    better = is_better(loss, old.best_loss)
    since_best = jnp.where(better, 0, old.since_best + 1)
    improved = loss < old.reference_loss * (1 - schedule.threshold)
    since_drop = jnp.where(improved, 0, old.since_drop + 1)
    drop = (since_drop > schedule.patience) & (schedule.course == PLATEAU)
    reduced = jnp.maximum(old.learning_rate * schedule.factor, schedule.min_learning_rate)
    # A learning rate below the floor from the start stays as it is.
    reduced = jnp.minimum(reduced, old.learning_rate)
    plateau = Plateau(
        learning_rate=jnp.where(drop, reduced, old.learning_rate),
        best_loss=jnp.where(better, loss, old.best_loss),
        best_epoch=jnp.where(better, epoch, old.best_epoch),
        since_best=since_best,
        reference_loss=jnp.where(improved, loss, old.reference_loss),
        since_drop=jnp.where(drop, 0, since_drop),
    )

    def keep(best, current):
        if schedule.keep == AVERAGE:  # each step updates it
            return best
        kept = better | (schedule.keep == LAST)
        return jax.tree.map(lambda b, c: jnp.where(kept, c, b), best, current)

    return state.replace(
        epoch=epoch,
        plateau=plateau,
        best_params=keep(state.best_params, state.params),
        best_batch_stats=keep(state.best_batch_stats, state.batch_stats),
    )


def kept_epoch(state: TrainState | Standing, schedule: PlateauSchedule) -> int:
    """Epoch of the weights to be tested, 0 before there are any (reads the device)."""
    return int(state.plateau.best_epoch if schedule.keep == BEST else state.epoch)


def is_finished(state: TrainState | Standing, schedule: PlateauSchedule, epochs: int) -> bool:
    """Whether training is over: all epochs done, or early stopping (reads the device)."""
    return int(state.epoch) >= epochs or int(state.plateau.since_best) > schedule.stop_patience
