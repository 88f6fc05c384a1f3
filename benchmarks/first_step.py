"""What main.py does up to the first training steps, with the time of each part; for startup.py.

    python first_step.py CONFIG WORKDIR [width of the network]

Trains on phantoms. The last line of the output is JSON: readings of the monotonic clock by name,
the seconds that JAX spent on tracing, lowering, compiling and reading its cache, and the processor
seconds of all threads up to the end of the first step.
"""

from __future__ import annotations

import time

marks, processor = {"python": time.monotonic()}, {}

import collections  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
from absl import logging  # noqa: E402

from mtbus_jax import data  # noqa: E402
from mtbus_jax.runtime import backend  # noqa: E402
from mtbus_jax.training import device_data, fold, run_folder, run_splits  # noqa: E402
from mtbus_jax.training.evaluator import Evaluator  # noqa: E402
from mtbus_jax.training.experiment import Experiment  # noqa: E402

STEPS = 3
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
    "/jax/compilation_cache/cache_retrieval_time_sec": "read_cache",
}


class _Stop(Exception):
    """Enough steps."""


class MarkedRun(fold.FoldRun):
    """A fold that marks the end of its first steps and stops then."""

    def next_batches(self):
        """Marks that everything is ready for the first step."""
        marks["state"] = time.monotonic()
        self._done = 0
        return super().next_batches()

    def advance(self, step_count: int, totals) -> None:
        """Waits for the step and marks its end."""
        jax.block_until_ready(totals)
        self._done += step_count
        marks[f"step_{self._done}"] = time.monotonic()
        processor.setdefault("first_step", time.process_time())
        if self._done >= STEPS:
            raise _Stop


def main() -> None:
    """Runs the parts of `crossval.train_and_evaluate` up to the first steps."""
    marks["import"] = time.monotonic()
    spent = collections.Counter()

    def listen(event: str, seconds: float, **_) -> None:
        if event in EVENTS:
            spent[EVENTS[event]] += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    logging.set_verbosity(logging.WARNING)
    path, workdir = Path(sys.argv[1]), Path(sys.argv[2])
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    config.data.name = "phantom"
    config.log.progress = False
    if len(sys.argv) > 3:
        config.model.width = int(sys.argv[3])
    backend.prepare_for_training()
    experiment = Experiment.from_config(config)
    marks["setup"] = time.monotonic()
    cases = data.load_configured(config)
    marks["data"] = time.monotonic()
    parts = run_splits.find_folds(workdir, cases, config.data.split)
    run_folder.open_run(workdir, config)
    directory = run_folder.fold_dir(workdir, 0)
    run = MarkedRun(experiment, cases, parts[0], fold=0, directory=directory, origin={})
    try:
        placed = device_data.place(cases, experiment.devices)
        loop = fold.FoldLoop(experiment, placed, Evaluator(experiment, placed))
        with run.open():
            loop.train(run)
    except _Stop:
        print(json.dumps({"marks": marks, "spent": spent, "processor": processor}), flush=True)


if __name__ == "__main__":
    main()
