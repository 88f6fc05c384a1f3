"""Measures what a network costs on this machine: parameters, operations, time and memory.

A measurement is kept as ``costs/<row>.json`` beside the runs, with its machine and settings. Other
settings are measured again; to measure on another machine, remove the file.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mtbus_jax import data, files, models, types
from mtbus_jax.errors import UserError, reason, unwritable
from mtbus_jax.predict.program import Programs
from mtbus_jax.reproduce import estimate
from mtbus_jax.reproduce.league.entries import Entry
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.runtime import parallel
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.trained_folds import Member, Trained

BUSY = 1.5
_CALLS = 10
# Only the operations of this program are counted, so it is compiled quickly rather than well.
_COUNTED_ONLY = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one row.

    Attributes:
      parameters: number of scalars that are trained.
      gflop: 10⁹ floating-point operations of a forward pass of one image, a multiplication and an
        addition counted as two; see `count_operations`.
      train_images_per_second: in optimiser steps, without validation and checkpoints.
      predict_ms: milliseconds for a forward pass of one image by itself.
      train_memory_bytes: see `estimate.Step`.
      machine: the machine that measured time and memory.
      load: load of the machine in the minute before, in processes per core; 0 if unknown. Above
        `BUSY`, the machine did other work as well while times were measured.
      settings: the settings that the measurement belongs to.
    """

    parameters: int
    gflop: float
    train_images_per_second: float
    predict_ms: float
    train_memory_bytes: int
    machine: str
    load: float
    settings: dict[str, Any]


_TYPES = {"int": int, "float": float, "str": str, "dict[str, Any]": dict}
_FIELDS = {field.name: _TYPES[field.type] for field in dataclasses.fields(Cost)} | {"settings": {}}


def read(league: League, entry: Entry) -> Cost | None:
    """The measurement of a row, None if there is none with these settings.

    Raises:
      UserError: if its file is broken.
    """
    path = _path(league, entry)
    if not path.exists():
        return None
    content = files.read_json(path, _FIELDS, mend="Remove the file: it is measured again")
    cost = Cost(**{field.name: content[field.name] for field in dataclasses.fields(Cost)})
    return cost if cost.settings == _settings(league, entry) else None


def measure_missing(league: League, cases: types.Cases) -> dict[Entry, str]:
    """Measures the rows that are not measured yet; one that fails does not stop the others.

    Args:
      league: with rows that can be trained.
      cases: its images.

    Returns:
      What went wrong, by row.

    Raises:
      UserError: if a result cannot be written.
    """
    failures = {}
    for entry in league.trainable:
        if read(league, entry) is not None:
            continue
        print(f"measuring {entry.name}", flush=True)
        try:
            cost = measure(league, entry, cases)
        except Exception as error:  # a device without enough memory raises XLA's own
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            failures[entry] = f"{kind}{reason(error)}"
            continue
        finally:
            jax.clear_caches()
        path = _path(league, entry)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from None
        files.write_json(path, dataclasses.asdict(cost))
    return failures


def measure(league: League, entry: Entry, cases: types.Cases) -> Cost:
    """Measures a row on this machine; takes up to a minute or two, mostly to compile.

    Args:
      league: the league with the recipe.
      entry: the row.
      cases: images, of which one batch is used.

    Raises:
      UserError: for a value or weights that training would refuse as well.
    """
    config = data.resolve(league.config(entry, league.seeds[0]), cases)
    experiment = Experiment.from_config(config)
    variables = models.init(experiment.module, jax.random.key(0), (*config.data.image_size, 1))
    load = _load()
    operations = count_operations(experiment, variables)
    predict_seconds = _seconds_to_predict(experiment, variables, cases)
    step = estimate.measure_step(config, cases)
    return Cost(
        parameters=models.parameter_count(variables["params"]),
        gflop=operations / 1e9,
        train_images_per_second=config.train.batch_size / step.seconds,
        predict_ms=1e3 * predict_seconds,
        train_memory_bytes=step.memory_bytes,
        machine=_machine(experiment),
        load=load,
        settings=_settings(league, entry),
    )


def count_operations(experiment: Experiment, variables: dict[str, Any]) -> float:
    """Floating-point operations of a forward pass of one image, by XLA's cost analysis.

    Only the mask and the class are computed, not what training alone needs. The network is exported
    with a free batch size and compiled for a CPU, so that the count is the same on every machine:
    the replacements for convolutions that this library uses on a CPU are not in it. XLA counts only
    those products of a convolution that lie within the image.
    """
    (batch,) = export.symbolic_shape("batch")
    size = (*experiment.config.data.image_size, 1)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
        exported = export.export(jax.jit(_forward(experiment)), platforms=("cpu",))(
            shapes, jax.ShapeDtypeStruct((batch, *size), jnp.float32)
        )
        lowered = jax.jit(exported.call).lower(
            shapes, jax.ShapeDtypeStruct((1, *size), jnp.float32)
        )
        return float(lowered.compile(_COUNTED_ONLY).cost_analysis()["flops"])


def _forward(experiment: Experiment):
    def forward(variables, image):
        outputs = experiment.module.apply(variables, image, train=False)
        return outputs.segmentation[:1], outputs.class_logits

    return forward


def _seconds_to_predict(
    experiment: Experiment, variables: dict[str, Any], cases: types.Cases
) -> float:
    """Median time of a forward pass of one image by the program that `mtbus predict` uses."""
    network = Trained(experiment.config, experiment.module, (Member(0, variables),))
    program = Programs(network, 1).at_least(1)
    image = jax.device_put(cases.image[:1].astype(np.uint8))
    times = []
    for _ in range(1 + _CALLS):
        started = time.perf_counter()
        jax.block_until_ready(program.compiled(program.variables[0], image))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _load() -> float:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # not on every platform
        return 0.0


def _machine(experiment: Experiment) -> str:
    devices = ", ".join(map(parallel.in_words, experiment.devices))
    return f"{devices}; {os.cpu_count()} CPU cores; JAX {jax.__version__}"


def _settings(league: League, entry: Entry) -> dict[str, Any]:
    """The settings that a cost depends on, besides the machine; JSON types only."""
    config = league.config(entry, league.seeds[0])
    return {
        "model": {name: value for name, value in config.model.items() if value is not None},
        "tasks": list(config.tasks),
        "image_size": list(config.data.image_size),
        "batch_size": config.train.batch_size,
        "compute_dtype": config.train.compute_dtype,
        "augmentation": config.train.augmentation if config.train.augment else "",
    }


def _path(league: League, entry: Entry) -> Path:
    return league.workdir / "costs" / f"{league.stem}_{entry.name}.json"
