"""Estimates how long the unfinished part of a study takes on this machine, from a measured step."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import data, oversampling, splits, types
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.plan import Job
from mtbus_jax.runtime import parallel
from mtbus_jax.training import run_folder, run_splits
from mtbus_jax.training.device_data import place
from mtbus_jax.training.evaluator import make_batches
from mtbus_jax.training.experiment import Experiment, fold_keys
from mtbus_jax.training.totals import Totals

_CALLS = 5
_STEPS_PER_CALL = 20  # where a device program holds several


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one run still needs.

    Attributes:
      name: name of the run.
      finished: number of folds that are done.
      missing: number of folds that are not done.
      steps: optimiser steps of the missing folds, if none stops early.
      seconds_per_step: measured; NaN if nothing is missing.
    """

    name: str
    finished: int
    missing: int
    steps: int
    seconds_per_step: float

    @property
    def hours(self) -> float:
        """Hours of training."""
        return self.steps * self.seconds_per_step / 3600 if self.missing else 0.0


def estimate(jobs: list[Job]) -> list[Estimate]:
    """One estimate per run; writes nothing into the study's folder.

    Args:
      jobs: the jobs of all runs.

    Raises:
      UserError: for a bad value or missing data.
    """
    by_run: dict[str, list[Job]] = {}
    for job in jobs:
        by_run.setdefault(job.config.name, []).append(job)
    measured: dict[tuple, float] = {}
    result = []
    for name, of_run in by_run.items():
        missing = [job for job in of_run if not jobs_lib.is_finished(job)]
        finished = len(of_run) - len(missing)
        if not missing:
            result.append(Estimate(name, finished, 0, 0, math.nan))
            continue
        config = missing[0].config
        cases = data.load_configured(config)
        config = data.resolve(config, cases)
        drawing = run_splits.drawing(config.data)
        folds = run_splits.find_folds(missing[0].workdir, cases, **drawing)
        run_folder.check_folds(config.data.folds, len(folds))
        count = sum(_step_count(job, folds[job.fold], cases) for job in missing)
        key = (str(config.model.to_dict()), tuple(config.tasks))
        if key not in measured:
            measured[key] = seconds_per_step(config, cases)
            jax.clear_caches()
        result.append(Estimate(name, finished, len(missing), count, measured[key]))
    return result


def _step_count(job: Job, split: splits.Split, cases: types.Cases) -> int:
    train = split.train
    if job.config.train.oversample:
        train = oversampling.oversample(train, cases.label, rule=job.config.train.oversample_rule)
    epochs = max(job.config.train.epochs - jobs_lib.epochs_on_disk(job), 0)
    return math.ceil(len(train) / job.config.train.batch_size) * epochs


def seconds_per_step(config: config_dict.ConfigDict, cases: types.Cases) -> float:
    """Median time of an optimiser step as training does it, without compiling.

    Args:
      config: of a run.
      cases: its images.
    """
    return measure_step(config, cases).seconds


class Step(NamedTuple):
    """Time and memory of an optimiser step.

    Attributes:
      seconds: median, without compiling.
      memory_bytes: memory on one device by XLA's plan, for weights, moments, gradients, feature
        maps and the images of one batch; outputs that reuse inputs count once. The dataset comes
        on top.
    """

    seconds: float
    memory_bytes: int


def measure_step(config: config_dict.ConfigDict, cases: types.Cases) -> Step:
    """Compiles and times an optimiser step as training does it.

    Args:
      config: of a run.
      cases: its images.
    """
    experiment = Experiment.from_config(config)
    devices = experiment.devices
    batch = config.train.batch_size
    data = place(cases.take(np.arange(len(cases))[:batch]), devices)
    per_call = parallel.default_steps_per_call(_STEPS_PER_CALL)
    index, valid = make_batches(np.arange(per_call * batch) % len(data.label), batch)
    program = parallel.pmap_train(experiment.train_steps(parallel.AXIS), devices)
    state = parallel.replicate(experiment.init_state(0), devices)
    totals = parallel.replicate(Totals.zero(), devices)
    count = len(devices)
    inputs = data, parallel.spread(index, count), parallel.spread(valid, count)
    key = fold_keys(config.seed, 0)[1]
    compiled = program.lower(state, totals, *inputs, key).compile()
    times = []
    for _ in range(1 + _CALLS):
        started = time.perf_counter()
        state, totals = jax.block_until_ready(compiled(state, totals, *inputs, key))
        times.append((time.perf_counter() - started) / per_call)
    # The first call may wait for memory.
    return Step(statistics.median(times[1:]), _bytes(compiled.memory_analysis()))


def _bytes(planned) -> int:
    return (
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        + planned.temp_size_in_bytes
        - planned.alias_size_in_bytes
    )


def to_text(estimates: list[Estimate]) -> str:
    """The estimates as a table with a total."""
    width = max(len("total"), *(len(e.name) for e in estimates))
    lines = [f"{'run':<{width}}  finished  missing   s/step      hours"]
    for e in estimates:
        step = f"{e.seconds_per_step:8.4f}" if e.missing else " " * 8
        lines.append(f"{e.name:<{width}}  {e.finished:8}  {e.missing:7}  {step}  {e.hours:9.2f}")
    finished, missing = sum(e.finished for e in estimates), sum(e.missing for e in estimates)
    hours = sum(e.hours for e in estimates)
    lines.append(f"{'total':<{width}}  {finished:8}  {missing:7}  {'':8}  {hours:9.2f}")
    devices = sorted(set(map(parallel.in_words, jax.local_devices())))
    lines += [
        "",
        f"Measured on this machine ({', '.join(devices)}), one job at a time, without compiling",
        "and validation. Early stopping can make it less. Nothing was trained or written.",
    ]
    return "\n".join(lines)
