"""The train state and the plateau schedule that steers it, as pure functions on device arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

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

    The learning rate follows PyTorch's `ReduceLROnPlateau`: an epoch is bad if its validation loss
    is not below ``(1 - threshold)`` times the lowest one that counted as an improvement, and the
    bad epoch number ``patience + 1`` in a row lowers the rate. Best weights and early stopping
    compare strictly, without the threshold: the bad epoch number ``stop_patience + 1`` in a row
    ends the training.

    Attributes:
      learning_rate: initial learning rate.
      factor: what the learning rate is multiplied by.
      patience: bad epochs in a row that leave the learning rate as it is.
      threshold: relative improvement below which an epoch is bad for the learning rate.
      min_learning_rate: the learning rate is not lowered below this.
      stop_patience: epochs in a row without a new best loss that do not end training.
      keep: one of `KEPT`.
      average_decay: with the average, share of it that a step leaves as it is.
      course: one of `COURSES`; only with the plateau does the learning rate depend on the loss.
      warmup: with the cosine, share of all steps in which the learning rate rises from 0.
      floor: with the cosine, where it ends, as a share of the initial learning rate.
      decay: with the decay, what the learning rate is multiplied by.
      decay_epochs: with the decay, how many epochs lie between two multiplications.
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
    """Where the schedule stands; scalars, so that it can be checkpointed and vmapped.

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


class Standing(NamedTuple):
    """What the host reads of a state after an epoch: scalars of `TrainState` by the same names."""

    epoch: jax.Array
    plateau: Plateau


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
      best_params: parameters to be tested, see `KEPT`.
      best_batch_stats: running statistics to be tested with them.
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

    @property
    def variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes, at the current step."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def standing(self) -> Standing:
        """Epochs done and the schedule."""
        return Standing(self.epoch, self.plateau)

    @property
    def best_variables(self) -> dict[str, Any]:
        """What ``module.apply`` takes, to be tested."""
        return {"params": self.best_params, "batch_stats": self.best_batch_stats}


def make_optimizer(
    *,
    b1: float,
    b2: float,
    epsilon: float,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    clip_norm: float = 0.0,
    encoder_rate: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Adam, or AdamW, without its learning rate, which `learning_rate` gives for each step.

    Its ``update`` takes a further argument, ``applies``, a boolean scalar: where it is false the
    directions are zero and the moments stay.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      epsilon: added to the root of the latter.
      weight_decay: decoupled decay (Loshchilov and Hutter 2019, AdamW) of arrays with two axes or
        more, in units of the learning rate; 0 is Adam.
      l2: coupled decay: so much of every array is added to its gradient, before that is clipped, as
        PyTorch's Adam does with its ``weight_decay``.
      clip_norm: gradients are scaled down to this norm over all arrays; 0 leaves them.
      encoder_rate: learning rate of the submodule ``encoder``, relative to the others'.
    """

    def scaled(path, direction):
        of_encoder = encoder_rate != 1 and getattr(path[0], "key", None) == "encoder"
        return encoder_rate * direction if of_encoder else direction

    def update(gradients, moments, params=None, *, applies=True):
        if l2:
            gradients = jax.tree.map(lambda g, p: g + l2 * p, gradients, params)
        if clip_norm:
            norm = optax.tree.norm(gradients)
            factor = clip_norm / jnp.maximum(norm, clip_norm)
            gradients = jax.tree.map(lambda g: g * factor, gradients)
        after = optax.ScaleByAdamState(
            count=optax.safe_increment(moments.count),
            mu=optax.tree.update_moment(gradients, moments.mu, b1, 1),
            nu=optax.tree.update_moment(gradients, moments.nu, b2, 2),
        )
        # The directions are computed from the moments that are kept, after `where`: from those
        # before it, XLA's CPU backend needs copies of all the old ones.
        after = where(applies, after, moments)
        mean = optax.tree.bias_correction(after.mu, b1, after.count)
        square = optax.tree.bias_correction(after.nu, b2, after.count)
        directions = jax.tree.map(
            lambda m, s: jnp.where(applies, m / (jnp.sqrt(s) + epsilon), 0), mean, square
        )
        if weight_decay:
            directions = jax.tree.map(
                lambda d, p: d + jnp.where(applies, weight_decay, 0) * p if p.ndim > 1 else d,
                directions,
                params,
            )
        return jax.tree.map_with_path(scaled, directions), after

    def init(params):
        return optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon).init(params)

    return optax.GradientTransformationExtraArgs(init, update)


def where(condition: jax.Array | bool, tree: Any, otherwise: Any) -> Any:
    """``tree`` if ``condition`` holds, else ``otherwise``, a tree of the same shapes."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), tree, otherwise)


def create(
    variables: dict[str, Any],
    *,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: PlateauSchedule,
) -> TrainState:
    """A fresh state.

    Args:
      variables: initial variables of the network, see `models.init`.
      optimizer: from `make_optimizer`.
      schedule: the plateau schedule.
    """
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
    )


def learning_rate(
    schedule: PlateauSchedule,
    plateau_rate: jax.Array | float,
    *,
    step: jax.Array | int,
    total_steps: jax.Array | int,
    epoch: jax.Array | int = 0,
) -> jax.Array | float:
    """The learning rate of one optimiser step, a scalar.

    Args:
      schedule: says what steers it.
      plateau_rate: where the plateau schedule stands, see `Plateau.learning_rate`; on the other
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


def averaged(
    state: TrainState, schedule: PlateauSchedule, *, applies: jax.Array | bool = True
) -> TrainState:
    """The state after a step, with its weights taken into the average, if that is what is kept.

    Exponential moving average (Polyak and Juditsky 1992, in the form of Tarvainen and Valpola
    2017): after step t, average ← d·average + (1 − d)·weights, d = min(decay, (1 + t)/(10 + t)),
    so that the first weights are soon forgotten. Running statistics are averaged in the same way.

    Args:
      state: after the step, ``state.step`` = t.
      schedule: says whether, and with which decay.
      applies: boolean scalar; where it is false the average stays.
    """
    if schedule.keep != AVERAGE:
        return state
    decay = jnp.minimum(schedule.average_decay, (1 + state.step) / (10 + state.step))
    share = jnp.where(applies, 1 - decay, 0)

    def mean(average, current):
        return jax.tree.map(lambda a, c: a + share * (c - a), average, current)

    return state.replace(
        best_params=mean(state.best_params, state.params),
        best_batch_stats=mean(state.best_batch_stats, state.batch_stats),
    )


def validated(state: TrainState, schedule: PlateauSchedule) -> dict[str, Any]:
    """The weights that an epoch is judged by: the current ones, or their average if it is kept."""
    return state.best_variables if schedule.keep == AVERAGE else state.variables


def is_better(loss: jax.Array, best: jax.Array) -> jax.Array:
    """Whether ``loss`` is a new best: strictly lower, so a tie keeps the earlier epoch."""
    return loss < best


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
        if schedule.keep == AVERAGE:  # the steps see to it
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
