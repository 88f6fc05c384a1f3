"""What the training loop costs beyond its steps.

    python benchmarks/loop.py
    python benchmarks/loop.py --networks=unetpp:24:128:2 --rounds=9

Each round trains one epoch by the library's own loop (`train.FoldLoop`), makes as many calls of the
compiled train program alone, and evaluates the validation images alone. All run in one process, and
the epoch comes first and last in turn, so that a busy machine slows all of them equally. It prints
the median milliseconds per step, and the medians and quartiles of two ratios taken round by round:
epoch over steps, and epoch over steps and validation. The second ratio shows the cost of the loop
itself: shuffling, dispatch, sums, schedule, log file. TensorBoard, the display and checkpoints are
off; with --checkpoints every epoch writes one.

A network is name:width:pixels:batch; the images are phantoms, seven in eight of them for training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import side_by_side

from configs import base
from mtbus_jax import splits, types
from mtbus_jax.images.phantom import make_phantoms
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.runtime import backend, parallel
from mtbus_jax.training import device_data, steps
from mtbus_jax.training.evaluator import Evaluator, make_batches
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.fold import FoldLoop, FoldRun

WARM_UP = 2  # rounds, which compile; the last round is left out too, as it ends with a checkpoint


class TimedRun(FoldRun):
    """A fold that times its epochs, and other work before or after each."""

    def beside(self, work: dict[str, Callable[[], None]]) -> None:
        """Sets the other work, by name; call before training."""
        self._work = work
        self.seconds = {name: [] for name in ("epoch", *work)}

    def next_batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts the clock of the epoch."""
        if self.epochs_done % 2 == 0:
            self._time_work()
        self._started = time.perf_counter()
        return super().next_batches()

    def close_epoch(self, *args, **kwargs) -> None:
        """Stops the clock."""
        super().close_epoch(*args, **kwargs)
        self.seconds["epoch"].append(time.perf_counter() - self._started)
        if self.epochs_done % 2 == 0:
            self._time_work()

    def _time_work(self) -> None:
        for name, work in self._work.items():
            started = time.perf_counter()
            work()
            self.seconds[name].append(time.perf_counter() - started)


def make_cases(count: int, size: int) -> types.Cases:
    """Phantoms as a dataset."""
    phantoms = list(make_phantoms(count, seed=0))
    masks = [np.any([*p.masks, np.zeros(p.image.shape, bool)], axis=0) for p in phantoms]
    uid = np.array([p.uid for p in phantoms])
    return types.Cases(
        name="phantom",
        uid=uid,
        image=np.stack([resize_nearest(p.image, size, size) for p in phantoms])[..., None],
        mask=np.stack([resize_nearest(m, size, size) for m in masks])[..., None].astype(np.uint8),
        label=np.array([p.label for p in phantoms], np.int32),
        original_size=np.array([p.image.shape for p in phantoms], np.int32),
        group=uid.copy(),
        test_fold=np.zeros(count, np.int32),
    )


def measure(network: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per round of an epoch, of its steps alone and of its validation alone."""
    name, *numbers = network.split(":")
    width, size, batch = map(int, numbers)
    config = base.get_config()
    config.model.name = name
    config.model.width = width
    config.data.image_size = (size, size)
    config.log.progress = config.log.tensorboard = False
    config.train.update(
        {"batch_size": batch, "epochs": options.rounds + WARM_UP + 1, "oversample": False}
    )
    config.train.checkpoint_seconds = 0.0 if options.checkpoints else 1e9
    experiment = Experiment.from_config(config)
    cases = make_cases(options.images, size)
    shuffled = np.random.default_rng(0).permutation(options.images)
    held = options.images // 8
    split = splits.Split(train=shuffled[held:], validation=shuffled[:held], test=shuffled[:0])

    devices = experiment.devices
    data = device_data.place(cases, devices)
    train = parallel.pmap_train(experiment.train_steps(parallel.AXIS), devices)
    evaluator = Evaluator(experiment, data)
    batches, valid = make_batches(split.train, batch)
    chunk = parallel.default_steps_per_call(len(batches))
    calls = [
        tuple(
            parallel.spread(array[start : start + chunk], len(devices))
            for array in (batches, valid)
        )
        for start in range(0, len(batches), chunk)
    ]
    key = jax.random.key(0)
    state = parallel.replicate(experiment.init_state(0), devices)
    totals = parallel.replicate(steps.Totals.zero(), devices)

    def steps_alone() -> None:
        nonlocal state, totals
        for index, real in calls:
            state, totals = train(state, totals, data, index, real, key)
        jax.block_until_ready(state)

    with tempfile.TemporaryDirectory() as folder:
        run = TimedRun(experiment, cases, split, fold=0, directory=Path(folder), origin={})
        run.beside(
            {
                "steps": steps_alone,
                "validation": lambda: evaluator(state.variables, split.validation),
            }
        )
        with run.open():
            FoldLoop(experiment, data, evaluator).train(run)
    report(network, run.seconds, step_count=len(batches))
    return run.seconds


def report(network: str, seconds: dict[str, list[float]], *, step_count: int) -> None:
    """Prints one line."""
    rounds = list(
        zip(*(seconds[n][WARM_UP:-1] for n in ("epoch", "steps", "validation")), strict=True)
    )
    epoch, alone, validation = (
        1e3 * statistics.median(each) / step_count for each in zip(*rounds, strict=True)
    )
    over_steps = _ratio([e / s for e, s, _ in rounds])
    over_both = _ratio([e / (s + v) for e, s, v in rounds])
    print(
        f"{network:<16}{step_count:>6}{epoch:>10.2f}{alone:>10.2f}{validation:>12.2f}"
        f"   {over_steps:<22}{over_both}",
        flush=True,
    )


def _ratio(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def main() -> None:
    """Measures each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--networks", default="unet:4:32:4,unet:16:64:2", help="name:width:pixels:batch, …"
    )
    parser.add_argument("--images", type=int, default=64, help="of the dataset")
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--checkpoints", action="store_true", help="write one every epoch")
    parser.add_argument("--json", default="", help="write the results here")
    options = parser.parse_args()
    backend.prepare_for_training()
    print(f"{'':<16}{'steps':>6}{'ms per step of':>32}   epoch over (quartiles)")
    print(f"{'network':<16}{'':>6}{'epoch':>10}{'steps':>10}{'validation':>12}", end="")
    print(f"   {'steps':<22}steps and validation", flush=True)
    seconds = {network: measure(network, options) for network in options.networks.split(",")}
    if options.json:
        side_by_side.write(options.json, {"seconds": seconds})


if __name__ == "__main__":
    main()
