"""Training of several folds: one after the other, stacked by vmap, or one per device by pmap.

    python benchmarks/folds.py --devices=2 --folds=2 --image_size=32,32 --width=4 --batch_size=4
    python benchmarks/folds.py --folds=4 --image_size=128,128 --width=24 --batch_size=2  # a GPU

Random images; the steps are those of training, with augmentation, without validation. All mappings
run in one process and take turns, so that a busy machine slows all of them alike; a round trains
every fold for --steps steps under each mapping. Printed are images per second over all folds, the
median of the rounds and their range, and the ratio to the sequence within each round (median and
range). The first call of each mapping, which compiles, is reported apart. --devices=N makes N
devices out of a CPU and has no effect on a GPU; pmap is left out where there are fewer than two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mappings", default="sequence,vmap,pmap", help="any of these three")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="to make out of a CPU")
    parser.add_argument("--model", default="unetpp")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--image_size", default="64,64", help="height,width in pixels")
    parser.add_argument("--batch_size", type=int, default=4, help="images per step and fold")
    parser.add_argument("--steps", type=int, default=4, help="per fold and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=64, help="in the resident dataset")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def make_rounds(arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """For each mapping a function that trains every fold for ``--steps`` steps and waits."""
    # JAX counts its devices when it is imported.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from configs import base
    from mtbus_jax.runtime import parallel
    from mtbus_jax.training import folds_together, steps
    from mtbus_jax.training.experiment import Setup, fold_keys

    config = base.get_config()
    config.model.name, config.model.width = arguments.model, arguments.width
    config.data.image_size = tuple(int(side) for side in arguments.image_size.split(","))
    config.train.batch_size, config.train.devices = arguments.batch_size, 1
    setup = Setup.from_config(config)
    count, images = arguments.folds, arguments.images
    rng = np.random.default_rng(0)
    shape = (images, *config.data.image_size, 1)
    data = steps.Dataset(
        rng.integers(0, 256, shape, np.uint8),
        rng.integers(0, 2, shape, np.uint8),
        rng.integers(0, 3, images, np.int32),
    )
    index = rng.integers(0, images, (count, arguments.steps, arguments.batch_size), np.int32)
    valid = np.ones(index.shape, np.float32)
    states = jax.device_get([setup.init_state(config, fold) for fold in range(count)])
    totals = jax.device_get([steps.Totals.zero()] * count)
    keys = [fold_keys(config.seed, fold)[1] for fold in range(count)]
    chunk = parallel.default_steps_per_call(arguments.steps)
    parts = [slice(s, s + chunk) for s in range(0, arguments.steps, chunk)]

    def sequence() -> Callable[[], None]:
        devices = setup.devices
        train = parallel.pmap_train(setup.train_steps(parallel.AXIS), devices)
        resident = parallel.replicate(data, devices)
        carried = [parallel.replicate(pair, devices) for pair in zip(states, totals, strict=True)]

        def run() -> None:
            for fold in range(count):
                for part in parts:
                    inputs = (parallel.spread(a[fold, part], 1) for a in (index, valid))
                    carried[fold] = train(*carried[fold], resident, *inputs, keys[fold])
            jax.block_until_ready(carried)

        return run

    def together(placement, folds: range) -> Callable[[], None]:
        train = placement.map_train(setup.train_steps(placement.axis_name))
        resident = placement.put_shared(data)
        carried = [
            placement.put(folds_together.stack([trees[f] for f in folds]))
            for trees in (states, totals)
        ]
        own_keys = placement.put(jnp.stack([keys[f] for f in folds]))

        def run() -> None:
            for part in parts:
                inputs = (
                    placement.spread(a[folds.start : folds.stop, part]) for a in (index, valid)
                )
                carried[:] = train(*carried, resident, *inputs, own_keys)
            jax.block_until_ready(carried)

        return run

    def vmap() -> Callable[[], None]:
        return together(folds_together.StackedFolds(setup.devices), range(count))

    def pmap() -> Callable[[], None]:
        devices = jax.local_devices()
        groups = [
            range(start, min(start + len(devices), count))
            for start in range(0, count, len(devices))
        ]
        runs = [
            together(folds_together.FoldPerDevice(devices[: len(group)]), group) for group in groups
        ]
        return lambda: [run() for run in runs]

    makers = {"sequence": sequence, "vmap": vmap, "pmap": pmap}
    wanted = arguments.mappings.split(",")
    if len(jax.local_devices()) < 2 and "pmap" in wanted:
        print("pmap is left out: one device only")
        wanted.remove("pmap")
    return {name: makers[name]() for name in wanted}


def measure(arguments: argparse.Namespace) -> dict:
    """Images per second of each mapping and its ratio to the sequence, per round."""
    import jax

    rounds = make_rounds(arguments)
    first, seconds = {}, {name: [] for name in rounds}
    for name, run in rounds.items():
        started = time.perf_counter()
        run()
        first[name] = time.perf_counter() - started
        run()  # buffers are where they stay from now on
    for _ in range(arguments.rounds):
        for name, run in rounds.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    images = arguments.folds * arguments.steps * arguments.batch_size
    result = {
        "arguments": {k: str(v) for k, v in vars(arguments).items()},
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.local_devices()],
        "machine": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "jax": jax.__version__,
        "mappings": {},
    }
    for name, times in seconds.items():
        rates = [images / t for t in times]
        ratios = [base / t for base, t in zip(seconds.get("sequence", times), times, strict=True)]
        result["mappings"][name] = {
            "first_call_seconds": first[name],
            "images_per_second": statistics.median(rates),
            "images_per_second_range": [min(rates), max(rates)],
            "ratio_to_sequence": statistics.median(ratios),
            "ratio_to_sequence_range": [min(ratios), max(ratios)],
        }
    return result


def main() -> None:
    """Measures, prints a table, writes the JSON file."""
    arguments = parse()
    if arguments.devices > 1:
        flag = f"--xla_force_host_platform_device_count={arguments.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    result = measure(arguments)
    print(f"{result['machine']}, {', '.join(result['devices'])}, jax {result['jax']}")
    print("| mapping | images/s | range | ratio to sequence | range | first call (s) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, found in result["mappings"].items():
        low, high = found["images_per_second_range"]
        ratio_low, ratio_high = found["ratio_to_sequence_range"]
        print(
            f"| {name} | {found['images_per_second']:.1f} | {low:.1f} to {high:.1f} "
            f"| {found['ratio_to_sequence']:.2f} | {ratio_low:.2f} to {ratio_high:.2f} "
            f"| {found['first_call_seconds']:.1f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
