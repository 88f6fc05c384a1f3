"""Training of several folds: one after the other, or together in one device program.

``train.fold_mapping`` chooses. Together, folds go through their epochs in step: the longest one
sets the number of steps, the others end theirs with empty batches, which change nothing. Everything
that a fold computes depends on its own number alone, so it may be stopped in one mapping and
continued in another.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.training import folds_together, steps
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.evaluator import make_batches
from mtbus_jax.training.experiment import Setup
from mtbus_jax.training.fold import FoldLoop, FoldRun

SEQUENCE, VMAP, PMAP = MAPPINGS = ("sequence", "vmap", "pmap")


def check_mapping(
    config: config_dict.ConfigDict, folds: Sequence[int], *, resident: bool = True
) -> None:
    """Refuses a ``train.fold_mapping`` that does not exist or cannot be had here.

    Args:
      config: of the run.
      folds: that are to be trained now.
      resident: whether the dataset is, see `device_data`.

    Raises:
      UserError: for an unknown name; one of several processes; a dataset that is not resident; or
        pmap without a second device, or with batches that are to be spread over devices.
    """
    train = config.train
    if train.fold_mapping not in MAPPINGS:
        raise UserError(
            f"train.fold_mapping: {train.fold_mapping!r} is unknown. Known: {', '.join(MAPPINGS)}."
        )
    if train.fold_mapping != SEQUENCE and jax.process_count() > 1:
        raise UserError(
            f"train.fold_mapping={train.fold_mapping} trains folds together in one process, but "
            f"{jax.process_count()} were started. Use sequence, or a process for each fold."
        )
    if train.fold_mapping != SEQUENCE and len(folds) > 1 and not resident:
        why = "data.resident=False" if config.data.resident is False else "the dataset's size"
        raise UserError(
            f"train.fold_mapping={train.fold_mapping} needs the whole dataset on the device, but "
            f"{why} has it copied part by part. Use --config.train.fold_mapping=sequence."
        )
    if train.fold_mapping != PMAP or len(folds) == 1:
        return
    if train.devices > 1:
        raise UserError(
            f"train.devices={train.devices} spreads every batch over devices, while "
            "train.fold_mapping=pmap gives a fold one device. Leave out one of them; pmap takes "
            "every device that this process sees."
        )
    local = jax.local_devices()
    if len(local) == 1:
        raise UserError(
            f"train.fold_mapping=pmap gives each fold a device of its own, but there is only one "
            f"({local[0].platform}). Use --config.train.fold_mapping=vmap or sequence."
        )


def train_folds(
    config: config_dict.ConfigDict, setup: Setup, cases: types.Cases, runs: Sequence[FoldRun]
) -> Iterator[FoldRun]:
    """Trains folds, or continues them where they were, and yields each as it ends.

    vmap takes all of them at once; pmap as many as there are devices, and a fold that ends makes
    room for the next. A fold that has ended leaves the device program, which is compiled anew for
    the others: see `_loop_for`. The last one left is trained as if it were alone from the start.

    Args:
      config: of the run.
      setup: its objects.
      cases: the dataset.
      runs: the folds, not opened.

    Yields:
      The folds, closed, in the order in which they end.

    Raises:
      UserError: for a checkpoint of other data, or a loss that is no longer finite. Folds beside
        that one have then kept the epoch.
    """
    places = {SEQUENCE: 1, VMAP: len(runs), PMAP: len(jax.local_devices())}
    waiting = collections.deque(runs)
    active: dict[FoldRun, contextlib.ExitStack] = {}
    loop, loop_size = None, 0

    def trace_single(run: FoldRun) -> Callable[[], object]:
        nonlocal loop, loop_size
        if loop_size == 1:
            return lambda: None  # compiled for the fold before
        loop, loop_size = _loop_for(config, setup, cases, 1), 1
        return loop.trace_ahead(run)

    one_by_one = config.train.fold_mapping == SEQUENCE or len(runs) == 1
    with contextlib.ExitStack() as everything:
        while waiting or active:
            while waiting and len(active) < places[config.train.fold_mapping]:
                run = waiting.popleft()
                opened = everything.enter_context(contextlib.ExitStack())
                ahead = functools.partial(trace_single, run) if one_by_one else None
                beside = next(iter(active), None)
                opened.enter_context(run.open(beside, ahead=ahead))
                if run.finished:
                    opened.close()
                    yield run
                else:
                    active[run] = opened
            if active:
                if len(active) != loop_size:
                    loop, loop_size = _loop_for(config, setup, cases, len(active)), len(active)
                loop.train(*active)
            for run in [run for run in active if run.finished]:
                active.pop(run).close()
                yield run


def _loop_for(
    config: config_dict.ConfigDict, setup: Setup, cases: types.Cases, count: int
) -> FoldLoop | FoldsLoop:
    """The programs for ``count`` folds at once.

    A program of its own for each count, rather than one in which ended folds are masked: under vmap
    both sides of a branch are computed, so a masked fold would cost as much as before. Under pmap a
    branch could spare an idle device, but leaving it out does so without a second scheme. The price
    is compiling anew, at most once per fold that ends; against it stand all epochs to come, which
    are at least the rest of ``train.stop_patience`` since a fold's last improvement.
    """
    if count == 1:
        return FoldLoop(config, setup, cases)
    if config.train.fold_mapping == PMAP:
        placement = folds_together.FoldPerDevice(jax.local_devices()[:count])
    else:
        placement = folds_together.StackedFolds(setup.devices)
    return FoldsLoop(config, setup, cases, placement)


class FoldsLoop:
    """The device programs of several folds at once."""

    def __init__(
        self,
        config: config_dict.ConfigDict,
        setup: Setup,
        cases: types.Cases,
        placement: folds_together.StackedFolds | folds_together.FoldPerDevice,
    ):
        """Places the dataset and prepares the programs."""
        self._config, self._placement = config, placement
        self._data = placement.put_shared(steps.Dataset(cases.image, cases.mask, cases.label))
        self._train_program = placement.map_train(setup.train_steps(placement.axis_name))
        self._eval_program = placement.map_eval(setup.eval_steps(placement.axis_name))
        self._end_epoch = placement.map_states(
            functools.partial(state_lib.end_epoch, schedule=setup.schedule)
        )
        self._eval_batch = config.eval.batch_size * placement.batch_devices

    def train(self, *runs: FoldRun) -> None:
        """Trains open folds until at least one of them has ended.

        Raises:
          UserError: if a loss is no longer finite.
        """
        state = self._placement.put(folds_together.stack([run.state for run in runs]))
        keys = self._placement.put(jnp.stack([run.key for run in runs]))
        while not any(run.finished for run in runs):
            state = self._run_epoch(state, keys, runs)
        for run, own in zip(runs, folds_together.unstack(state), strict=True):
            run.state = own

    def _run_epoch(
        self, state: state_lib.TrainState, keys: jax.Array, runs: Sequence[FoldRun]
    ) -> state_lib.TrainState:
        """One epoch of each fold, and its validation."""
        started = time.monotonic()
        index, valid = stack_batches([run.next_batches() for run in runs])
        totals = self._placement.put(folds_together.stack([steps.Totals.zero()] * len(runs)))
        for part in self._parts(index.shape[1]):
            state, totals = self._train_program(
                state,
                totals,
                self._data,
                self._placement.spread(index[:, part]),
                self._placement.spread(valid[:, part]),
                keys,
            )
            for position, run in enumerate(runs):
                done = len(range(run.step_count)[part])
                run.advance(done, _OneOf(totals, position))
        train_means = _means(totals)
        validation_means = self._validate(state.variables, runs)
        losses = np.array([means["loss"] for means in validation_means], np.float32)
        state = self._end_epoch(state, self._placement.put(losses))
        standings = folds_together.unstack(state.standing)
        seconds = time.monotonic() - started
        whole = functools.cache(lambda: folds_together.unstack(state))
        failed = []
        for position, run in enumerate(runs):
            try:
                run.close_epoch(
                    standings[position],
                    train_means=train_means[position],
                    validation_means=validation_means[position],
                    seconds=seconds,
                    state=functools.partial(_on_device, whole, position),
                )
            except UserError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return state

    def _validate(self, variables: dict, runs: Sequence[FoldRun]) -> list[dict[str, float]]:
        """Means over each fold's validation images."""
        index, valid = stack_batches(
            [make_batches(run.validation, self._eval_batch) for run in runs]
        )
        totals = None
        for part in self._parts(index.shape[1]):
            sums, _ = self._eval_program(
                variables,
                self._data,
                self._placement.spread(index[:, part]),
                self._placement.spread(valid[:, part]),
            )
            totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
        return _means(totals)

    def _parts(self, step_count: int) -> Iterator[slice]:
        """The steps of each device program."""
        chunk = self._config.train.steps_per_call or parallel.default_steps_per_call(step_count)
        for start in range(0, step_count, chunk):
            yield slice(start, start + chunk)


def stack_batches(
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Batches of several folds side by side, shorter ones filled up with empty batches.

    Args:
      batches: of each fold, indices and valid as from `make_batches`, of any shape
        ``(steps, batch)``.

    Returns:
      ``(folds, most steps, largest batch)`` int32 indices and float32, 1 for real entries.
    """
    shape = np.max([index.shape for index, _ in batches], axis=0)

    def fill(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, new - old) for new, old in zip(shape, array.shape, strict=True)])

    index, valid = zip(*batches, strict=True)
    return np.stack([fill(a) for a in index]), np.stack([fill(a) for a in valid])


class _OneOf(NamedTuple):
    """One fold's sums among stacked ones; the device is read only when someone asks."""

    totals: steps.Totals
    position: int

    def means(self) -> dict[str, float]:
        return _means(self.totals)[self.position]


def _means(totals: steps.Totals) -> list[dict[str, float]]:
    """Means of each fold from stacked sums."""
    return [of_fold.means() for of_fold in folds_together.unstack(totals)]


def _on_device(whole: Callable[[], list[state_lib.TrainState]], position: int):
    """One fold's state as device arrays, as a checkpoint of a fold alone holds them."""
    return jax.tree.map(jnp.asarray, whole()[position])
