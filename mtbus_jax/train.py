"""Training of one fold: the loop over epochs."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from mtbus_jax import parallel, splits, steps, types
from mtbus_jax import state as state_lib
from mtbus_jax.checkpoint import Checkpoints
from mtbus_jax.errors import UserError
from mtbus_jax.inference import Evaluator, make_batches, resident_dataset
from mtbus_jax.logbook import Logbook, TrainingProgress
from mtbus_jax.setup import Setup, fold_keys


def epoch_order(index: np.ndarray, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """``index`` shuffled for one epoch, a function of its arguments alone."""
    return np.random.default_rng([seed, fold, epoch]).permutation(index)


def train_fold(
    config: config_dict.ConfigDict,
    cases: types.Cases,
    split: splits.Split,
    *,
    fold: int,
    directory: Path,
    origin: dict[str, str],
) -> None:
    """Trains one fold, or continues where it was; leaves checkpoints and ``metrics.jsonl``.

    Args:
      config: of the run.
      cases: the dataset.
      split: indices of this fold.
      fold: its number, part of every seed.
      directory: the fold's folder.
      origin: fingerprints of data and split, see `Checkpoints`.

    Raises:
      UserError: for a bad configuration, a checkpoint of other data, or a loss that is no longer
        finite.
    """
    setup = Setup.from_config(config)
    state = setup.init_state(config, fold)
    if parallel.is_primary():
        directory.mkdir(parents=True, exist_ok=True)
    with Checkpoints(directory / "checkpoints", origin) as checkpoints:
        state = checkpoints.restore_latest(state) or state
        if state_lib.is_finished(state, setup.schedule, config.train.epochs):
            return
        state = parallel.replicate(state, setup.devices)
        loop = _FoldLoop(config, setup, cases, split, fold)
        first_epoch = int(state.epoch)
        logbook = Logbook(directory, resume_epoch=first_epoch, tensorboard=config.log.tensorboard)
        progress = TrainingProgress(
            fold=fold,
            epochs=config.train.epochs,
            steps=loop.step_count,
            first_epoch=first_epoch,
            shown=config.log.progress,
        )
        last_save = time.monotonic()
        with logbook, progress:
            if first_epoch:
                progress.note(f"fold {fold}: going on after epoch {first_epoch}")
            for epoch in range(first_epoch + 1, config.train.epochs + 1):
                state, row = loop.run_epoch(state, epoch, progress)
                logbook.write(row)
                progress.epoch_line(row)
                finished = state_lib.is_finished(state, setup.schedule, config.train.epochs)
                due = time.monotonic() - last_save >= config.train.checkpoint_seconds
                if finished or due:
                    checkpoints.save(state)
                    last_save = time.monotonic()
                if finished:
                    break


class _FoldLoop:
    """The compiled programs of one fold and the order of its images."""

    def __init__(
        self,
        config: config_dict.ConfigDict,
        setup: Setup,
        cases: types.Cases,
        split: splits.Split,
        fold: int,
    ):
        self._config, self._setup, self._fold = config, setup, fold
        self._validation = split.validation
        self._train = split.train
        if config.train.oversample:
            rule = config.train.oversample_rule
            self._train = splits.oversample(split.train, cases.label, rule=rule)
        self._data = resident_dataset(cases, setup.devices)
        self._key = fold_keys(config.seed, fold)[1]
        self.step_count = math.ceil(len(self._train) / config.train.batch_size)
        self._chunk = config.train.steps_per_call or parallel.default_steps_per_call(
            self.step_count
        )
        program = functools.partial(
            steps.train_steps,
            module=setup.module,
            optimizer=setup.optimizer,
            augmented=config.train.augment,
            axis_name=parallel.AXIS,
            loss=setup.loss,
        )
        self._train_program = parallel.pmap_train(program, setup.devices)
        self._end_epoch = jax.jit(
            functools.partial(state_lib.end_epoch, schedule=setup.schedule), donate_argnums=0
        )
        self._evaluator = Evaluator(
            setup,
            self._data,
            batch_size=config.eval.batch_size,
            steps_per_call=config.train.steps_per_call,
        )

    def run_epoch(
        self, state: state_lib.TrainState, epoch: int, progress: TrainingProgress
    ) -> tuple[state_lib.TrainState, dict[str, float]]:
        """One epoch of training and its validation; returns the new state and the logbook's row."""
        started = time.monotonic()
        devices = self._setup.devices
        order = epoch_order(self._train, seed=self._config.seed, fold=self._fold, epoch=epoch)
        batches, valid = make_batches(order, self._config.train.batch_size)
        totals = parallel.replicate(steps.Totals.zero(), devices)
        for start in range(0, self.step_count, self._chunk):
            part = slice(start, start + self._chunk)
            index = parallel.spread(batches[part], len(devices))
            real = parallel.spread(valid[part], len(devices))
            state, totals = self._train_program(state, totals, self._data, index, real, self._key)
            progress.advance(len(batches[part]), epoch, totals)
        train_means = totals.means()
        validation_means, _ = self._evaluator(state.variables, self._validation)
        losses = train_means["loss"], validation_means["loss"]
        if not all(map(math.isfinite, losses)):
            raise UserError(
                f"fold {self._fold}, epoch {epoch}: the loss is no longer finite (training "
                f"{losses[0]}, validation {losses[1]}). The last checkpoint is kept; start over in "
                "another --workdir with a lower --config.train.learning_rate."
            )
        learning_rate = float(state.plateau.learning_rate)
        state = self._end_epoch(state, jnp.float32(validation_means["loss"]))
        row = {
            "epoch": epoch,
            **{f"train_{k}": v for k, v in train_means.items()},
            **{f"validation_{k}": v for k, v in validation_means.items()},
            "learning_rate": learning_rate,
            "best_epoch": int(state.plateau.best_epoch),
            "seconds": time.monotonic() - started,
        }
        return state, row
