"""Images/s and memory of training against batch, image size and number of images.

    python benchmarks/growth.py --batch=1,2,8,32 --size=64
    python benchmarks/growth.py --size=64,128,256 --batch=2
    python benchmarks/growth.py --images=450,50000 --size=64

Every combination of the lists is a point, measured in a fresh process, so that its peak memory is
its own. Images and masks are random arrays, so 50,000 of them cost no more to make than to hold. A
point trains as the main job does, including augmentation. The order of the epoch is drawn over all
images, but only its first steps are run. The first program, which compiles, is timed separately.

Memory: the largest resident set of the process and, if the device reports it, the largest amount in
use on the device. The process also holds the dataset on the host. A point that fails for
lack of memory is reported as such; --limit_gib limits the process's address space.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time

import side_by_side

_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "MemoryError", "bad_alloc")
_KILLED = (-9, 137)  # exit codes of a process that the kernel killed, as it does for memory


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", default="2", help="images per step")
    parser.add_argument("--size", default="64", help="height and width, pixels")
    parser.add_argument("--images", default="450", help="in the dataset")
    parser.add_argument("--model", default="unetpp")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--programs", type=int, default=5, help="timed, of --steps_per_call steps")
    parser.add_argument("--steps_per_call", type=int, default=0, help="0: 1 on a CPU, else 50")
    parser.add_argument("--limit_gib", type=float, default=0, help="of address space; 0: none")
    parser.add_argument("--json", default="", help="write the results here")
    parser.add_argument("--point", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, *, batch: int, size: int, images: int) -> dict:
    """Trains a few steps and returns seconds, images/s and memory; call it once per process."""
    if options.limit_gib:
        limit = int(options.limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import jax
    import numpy as np

    from configs import base
    from mtbus_jax import types
    from mtbus_jax.runtime import parallel, program_cache
    from mtbus_jax.training import device_data, steps
    from mtbus_jax.training.evaluator import make_batches
    from mtbus_jax.training.experiment import Experiment, fold_keys
    from mtbus_jax.training.fold import epoch_order

    program_cache.open_cache()
    config = base.get_config()
    config.model.name, config.model.width = options.model, options.width
    config.data.image_size = (size, size)
    config.train.batch_size, config.train.devices = batch, 1
    rng = np.random.default_rng(0)
    shape = (images, size, size, 1)
    names = np.arange(images).astype(str)
    cases = types.Cases(
        name="random",
        uid=names,
        image=rng.integers(0, 256, shape, np.uint8),
        mask=rng.integers(0, 2, shape, np.uint8),
        label=rng.integers(0, 3, images, np.int32),
        original_size=np.full((images, 2), size, np.int32),
        group=names,
        test_fold=np.full(images, types.NO_FOLD, np.int32),
    )
    experiment = Experiment.from_config(config)
    devices = experiment.devices
    placed = device_data.place(cases, devices)
    program = parallel.pmap_train(experiment.train_steps(parallel.AXIS), devices)
    state = parallel.replicate(experiment.init_state(0), devices)
    totals = parallel.replicate(steps.Totals.zero(), devices)
    key = fold_keys(config.seed, 0)[1]
    per_call = options.steps_per_call or parallel.default_steps_per_call(50)
    order = epoch_order(np.arange(images), seed=config.seed, fold=0, epoch=1)
    needed = (1 + options.programs) * per_call * batch
    batches, valid = make_batches(np.resize(order, needed), batch)
    seconds = []
    parts = device_data.parts(batches, valid, steps_per_call=per_call, device_count=1)
    started = time.perf_counter()
    for part in parts:
        jax.block_until_ready(totals)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        state, totals = program(state, totals, placed, part.index, part.valid, key)
    jax.block_until_ready(totals)
    seconds.append(time.perf_counter() - started)
    first, seconds = seconds[1], seconds[2:]  # seconds[0]: gathering of the first part
    device = devices[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "images_per_second": per_call * batch / statistics.median(seconds),
        "seconds": seconds,
        "first_seconds": first,
        "steps_per_call": per_call,
        "dataset_bytes": cases.image.nbytes + cases.mask.nbytes,
        # The kernel counts in kibibytes.
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peak_bytes": peak,
        "device": parallel.in_words(device),
        "jax": jax.__version__,
    }


def run_point(options: argparse.Namespace, point: dict) -> dict:
    """Measures one point in a process of its own; running out of memory there is a result.

    Raises:
      SystemExit: if it fails for another reason.
    """
    command = [sys.executable, *sys.argv, f"--point={json.dumps(point)}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return point | json.loads(done.stdout.splitlines()[-1])
    if done.returncode in _KILLED or any(word in done.stderr for word in _OUT_OF_MEMORY):
        return point | {"failed": "out of memory"}
    raise SystemExit(f"{point} failed:\n{done.stderr}")


def row(found: dict) -> str:
    """One line of the table."""
    cells = [str(found[name]) for name in ("batch", "size", "images")]
    if "failed" in found:
        return "| " + " | ".join([*cells, found["failed"], "", "", "", ""]) + " |"
    speeds = [found["steps_per_call"] * found["batch"] / s for s in found["seconds"]]
    device = found["device_peak_bytes"]
    cells += [
        f"{found['images_per_second']:.3g}",
        f"{min(speeds):.3g} to {max(speeds):.3g}",
        f"{found['first_seconds']:.1f}",
        f"{found['host_peak_bytes'] / 2**20:.0f}",
        "" if device is None else f"{device / 2**20:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measures all points, prints the table, writes the JSON file."""
    options = parse()
    if options.point:
        print(json.dumps(measure(options, **json.loads(options.point))))
        return
    lists = [
        [int(value) for value in getattr(options, name).split(",")]
        for name in ("batch", "size", "images")
    ]
    print(
        "| batch | size | images | images/s | range | first program (s) "
        "| process, MiB | device, MiB |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    points = []
    for values in itertools.product(*lists):
        point = dict(zip(("batch", "size", "images"), values, strict=True))
        points.append(run_point(options, point))
        print(row(points[-1]), flush=True)
    if options.json:
        side_by_side.write(options.json, {"points": points})


if __name__ == "__main__":
    main()
