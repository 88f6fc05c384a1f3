"""Training of one fold: its state on the host, and the loop over its epochs."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax import oversampling, splits, types
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel, stopping
from mtbus_jax.training import device_data, divergence, programs, progressive, run_folder, steps
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.evaluator import Evaluator, make_batches
from mtbus_jax.training.experiment import Experiment, fold_keys
from mtbus_jax.training.logbook import Logbook, TrainingProgress
from mtbus_jax.training.totals import Totals


def epoch_order(index: np.ndarray, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """``index`` shuffled for one epoch; depends on the arguments alone."""
    return np.random.default_rng([seed, fold, epoch]).permutation(index)


class FoldRun:
    """One fold as the host sees it: order of its images, checkpoints, logbook, progress.

    Attributes:
      fold: its number.
      key: PRNG key of its training.
      validation: ``(b,)`` indices of its validation images.
      step_count: optimiser steps per epoch.
      state: the whole state while the fold is open, unfinished and not being trained by a loop.
      standing: epochs done and the schedule, up to date on the host at the end of each epoch.
      trained_now: whether it was not finished when it was opened.
    """

    def __init__(
        self,
        experiment: Experiment,
        cases: types.Cases,
        split: splits.Split,
        *,
        fold: int,
        directory: Path,
        origin: dict[str, str],
        start: Callable[[state_lib.TrainState], state_lib.TrainState] | None = None,
    ):
        """Chooses the images; reads and writes nothing.

        Args:
          experiment: of the run.
          cases: the dataset.
          split: indices of this fold.
          fold: its number, part of every seed.
          directory: the fold's folder.
          origin: fingerprints of data and split, see `Checkpoints`.
          start: turns a fresh state into the one to begin with.
        """
        config = experiment.config
        self._experiment, self._config = experiment, config
        self._directory, self._origin, self._start = directory, origin, start
        self._train, self._uid = split.train, cases.uid
        if config.train.oversample:
            rule = config.train.oversample_rule
            self._train = oversampling.oversample(split.train, cases.label, rule=rule)
        self.fold = fold
        self.key = fold_keys(config.seed, fold)[1]
        self.validation = split.validation
        self.step_count = math.ceil(len(self._train) / config.train.batch_size)
        self.state: state_lib.TrainState | None = None
        self.standing: state_lib.Standing | None = None
        self.trained_now = False

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Restores the state, or makes a fresh one, and opens the fold's files for the block.

        Raises:
          UserError: for a checkpoint of other data, if all of them are damaged, or for weights
            that are not finite.
        """
        if parallel.is_primary():
            self._directory.mkdir(parents=True, exist_ok=True)
        with Checkpoints(self._directory / "checkpoints", self._origin) as self._checkpoints:
            if self._checkpoints.has_latest():
                self.state = self._checkpoints.restore_latest(self._experiment.abstract_state())
            else:
                self.state = self._experiment.init_state(self.fold)
                if self._start is not None:
                    self.state = self._start(self.state)
            divergence.check_weights(self.fold, self.state.variables)
            total = self._config.train.epochs * self.step_count
            self.state = self.state.replace(total_steps=jnp.int32(total))
            self.standing = jax.device_get(self.state.standing)
            self._checkpoints.save_best(self.state, self._tested_epoch(self.standing))
            self.trained_now = not self.finished
            if self.finished:
                self.state = None
                yield
                return
            if parallel.is_primary():  # so that the folder shows it in training
                (self._directory / run_folder.TRAINED).unlink(missing_ok=True)
            done = self.epochs_done
            logbook = Logbook(
                self._directory, resume_epoch=done, tensorboard=self._config.log.tensorboard
            )
            progress = TrainingProgress(
                fold=self.fold,
                epochs=self._config.train.epochs,
                steps=self.step_count,
                first_epoch=done,
                shown=self._config.log.progress,
            )
            with logbook as self._logbook, progress as self._progress:
                if done:
                    progress.note(f"fold {self.fold}: continuing after epoch {done}")
                self._last_save = time.monotonic()
                yield
        self.state = None  # its memory is free for the folds that follow

    @property
    def epochs_done(self) -> int:
        """Epochs done, including those of earlier starts."""
        return int(self.standing.epoch)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or training has stopped early."""
        return state_lib.is_finished(
            self.standing, self._experiment.schedule, self._config.train.epochs
        )

    def next_batches(self) -> tuple[np.ndarray, np.ndarray]:
        """The batches of the coming epoch, see `make_batches`."""
        order = epoch_order(
            self._train, seed=self._config.seed, fold=self.fold, epoch=self.epochs_done + 1
        )
        return make_batches(order, self._config.train.batch_size)

    def _not_finite(self, epoch: int, losses: dict[str, float], finite_steps: int) -> UserError:
        index, valid = self.next_batches()
        bad = finite_steps < len(index)
        last = range(finite_steps, max(finite_steps - 2, -1), -1) if bad else ()
        return divergence.not_finite(
            f"fold {self.fold}, epoch {epoch}",
            losses,
            step=finite_steps + 1 if bad else 0,
            batches=[self._uid[index[step][valid[step] > 0]].tolist() for step in last],
            learning_rate=self._first_rate(),
        )

    def advance(self, step_count: int, totals) -> None:
        """Updates the display; ``totals`` are the epoch's sums so far, read only if shown."""
        self._progress.advance(step_count, self.epochs_done + 1, totals)

    def _tested_epoch(self, standing: state_lib.Standing) -> int:
        return state_lib.kept_epoch(standing, self._experiment.schedule)

    def _first_rate(self) -> float:
        """Learning rate of the first step of the epoch that is being trained."""
        rate = schedule_lib.learning_rate(
            self._experiment.schedule,
            self.standing.plateau.learning_rate,
            step=self.epochs_done * self.step_count,
            total_steps=self._config.train.epochs * self.step_count,
            epoch=self.epochs_done,
        )
        return float(rate)

    def close_epoch(
        self,
        standing: state_lib.Standing,
        *,
        train_means: dict[str, float],
        validation_means: dict[str, float],
        finite_steps: int,
        seconds: float,
        state: Callable[[], state_lib.TrainState],
    ) -> None:
        """Records an epoch: its line, and a checkpoint where one is due.

        Args:
          standing: after `state.end_epoch`.
          train_means: see `Totals.means`.
          validation_means: see `Totals.means`; empty without validation images.
          finite_steps: see `Totals`.
          seconds: that the epoch took.
          state: gives the whole state after the epoch; called only to save it.

        Raises:
          UserError: if a loss is no longer finite; then nothing is written.
          Stopped: if SIGTERM has come; then the epoch is saved.
        """
        epoch = self.epochs_done + 1
        means = {"training": train_means, "validation": validation_means}
        losses = {name: each["loss"] for name, each in means.items() if each}
        if not all(map(math.isfinite, losses.values())):
            raise self._not_finite(epoch, losses, finite_steps)
        row = {
            "epoch": epoch,
            **{f"train_{k}": v for k, v in train_means.items()},
            **{f"validation_{k}": v for k, v in validation_means.items()},
            "learning_rate": self._first_rate(),
            "best_epoch": int(standing.plateau.best_epoch),
            "tested_epoch": self._tested_epoch(standing),
            **{f"{task}_weight": 0.5 / float(p) ** 2 for task, p in standing.loss_weights.items()},
            "seconds": seconds,
        }
        self.standing = standing
        self._logbook.write(row)
        self._progress.epoch_line(row)
        due = time.monotonic() - self._last_save >= self._config.train.checkpoint_seconds
        # An epoch too long to finish after SIGTERM is lost, so the one before it must be on disk.
        due |= seconds > stopping.GRACE_SECONDS
        saved = self.finished or due
        if saved:
            self._checkpoints.save(state(), row["tested_epoch"])
            self._last_save = time.monotonic()
        # After saving, because this asks the other processes, one of which may be gone.
        if stopping.asked():
            if not saved:
                self._checkpoints.save(state(), row["tested_epoch"])
            raise stopping.stopped()


class FoldLoop:
    """The device programs of one fold at a time; compiled once for all folds given to it."""

    def __init__(self, experiment: Experiment, data: steps.Dataset, evaluator: Evaluator):
        """Prepares the programs.

        Args:
          experiment: of the run.
          data: the dataset, from `device_data.place`.
          evaluator: of the same dataset.
        """
        self._experiment, self._devices = experiment, experiment.devices
        self._data, self._evaluator = data, evaluator
        self._programs = programs.TrainPrograms(experiment, data)
        self._end_epoch = jax.jit(
            functools.partial(state_lib.end_epoch, schedule=experiment.schedule), donate_argnums=0
        )

    def train(self, run: FoldRun) -> None:
        """Trains an open fold to its end.

        Raises:
          UserError: if a loss is no longer finite.
          Stopped: if SIGTERM has come, after the last epoch that could be done in time.
        """
        state = parallel.replicate(run.state, self._devices)
        with stopping.deferred():
            while not run.finished:
                state = self._run_epoch(state, run)
        run.state = state

    def _run_epoch(self, state: state_lib.TrainState, run: FoldRun) -> state_lib.TrainState:
        """One epoch of training and its validation."""
        started = time.monotonic()
        totals = parallel.replicate(Totals.zero(), self._devices)
        done, first, first_done = 0, 0, started
        size = progressive.size(self._experiment.config, run.epochs_done)
        for part in device_data.parts(
            *run.next_batches(),
            steps_per_call=self._experiment.config.train.steps_per_call,
            device_count=len(self._devices),
        ):
            program = self._programs.get(part, run.key, size)
            state, totals = program.call(state, totals, self._data, part.index, part.valid, run.key)
            run.advance(part.step_count, totals)
            done += part.step_count
            if not first:  # the first call may include compiling the program
                first, first_done = done, time.monotonic()
            seconds_a_step = (time.monotonic() - first_done) / max(done - first, 1)
            stopping.check(seconds_a_step * (run.step_count - done))
        train_means = totals.means()
        validation_means = {}
        if len(run.validation):
            validation_means, _ = self._evaluator(
                state_lib.validated(state, self._experiment.schedule), run.validation
            )
        # Without validation images the training loss steers the schedule.
        loss = (validation_means or train_means)["loss"]
        state = self._end_epoch(state, jnp.float32(loss))
        run.close_epoch(
            jax.device_get(state.standing),
            train_means=train_means,
            validation_means=validation_means,
            finite_steps=int(totals.finite),
            seconds=time.monotonic() - started,
            state=lambda: state,
        )
        return state


def train_folds(loop: FoldLoop, runs: Sequence[FoldRun]) -> Iterator[FoldRun]:
    """Trains folds one after the other, or continues them where they were.

    Args:
      loop: of the run.
      runs: the folds, not opened.

    Yields:
      Each fold as it ends, closed.

    Raises:
      UserError: for a checkpoint of other data, or a loss that is no longer finite.
    """
    for run in runs:
        with run.open():
            if not run.finished:
                loop.train(run)
        yield run
