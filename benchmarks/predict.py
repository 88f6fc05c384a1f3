"""Prediction of PNG files with MT UNet++ against the PyTorch original, with the same weights.

    python benchmarks/predict.py --peer_python=VENV/bin/python --batch=1,32

A step takes a folder of phantoms from PNG files to PNG masks, ``--batch`` at a time through the
network: decoding, resizing, network, class, mask at the picture's own size, writing. Sides: this
library with one fold and neither test-time augmentation nor overlays; PyTorch with the settings of
peer_predict.py. Class probabilities and areas of the masks must agree, or the comparison stops. The
weights come from a few training steps, so that the masks are blobs and not noise, which would
compress badly.

The second table shows where the time of a step goes; each part is timed separately. "command's
output" is what `python -m mtbus_jax.predict` writes instead of the mask alone: mask, overlay, table
row.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import side_by_side
from PIL import Image

from configs import base
from mtbus_jax import files, types
from mtbus_jax.images.phantom import Phantom, make_phantoms
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.runtime import host_memory, program_cache
from mtbus_jax.training import run_folder
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment

HERE = Path(__file__).parent
# At least this many pictures, and this many batches, per step.
_FEWEST, _BATCHES = 8, 2
STAGES = ("decode", "resize", "network", "enlarge", "write")


def write_pictures(folder: Path, phantoms: list[Phantom]) -> None:
    """Phantoms as RGB files, as the public datasets have them."""
    folder.mkdir()
    for number, phantom in enumerate(phantoms):
        Image.fromarray(phantom.image).convert("RGB").save(folder / f"{number:03d}.png")


def write_run(workdir: Path, phantoms: list[Phantom], options: argparse.Namespace) -> dict:
    """A run folder with one fold after ``--training_steps`` steps; returns its parameters."""
    config = base.get_config()
    config.data.image_size = (options.size, options.size)
    config.model.width = options.width
    config.train.devices = 1
    workdir.mkdir()
    files.write_json(workdir / run_folder.CONFIG, config.to_dict())
    experiment = Experiment.from_config(config)
    state = experiment.init_state(0)
    program = jax.jit(
        functools.partial(experiment.train_step(), key=jax.random.key(0)),
        donate_argnums=0,
    )
    # Far larger steps than the recipe's: there are only a few.
    plateau = state.plateau._replace(learning_rate=jnp.float32(2e-3))
    state = state.replace(plateau=plateau)
    rng = np.random.default_rng(0)
    for _ in range(options.training_steps):
        chosen = [phantoms[i] for i in rng.choice(len(phantoms), 2, replace=False)]
        state, _ = program(state, _batch(chosen, options.size))
    plateau = state.plateau._replace(best_epoch=np.int32(1))
    state = state.replace(best_params=state.params, plateau=plateau, epoch=np.int32(1))
    with Checkpoints(run_folder.fold_dir(workdir, 0) / "checkpoints", {}) as checkpoints:
        checkpoints.save(state, 1)
    return flax.traverse_util.flatten_dict(jax.device_get(state.params), sep="/")


def _batch(phantoms: list[Phantom], size: int) -> types.Batch:
    masks = [np.any([*p.masks, np.zeros(p.image.shape, bool)], axis=0) for p in phantoms]
    return types.Batch(
        np.stack([resize_nearest(p.image, size, size) for p in phantoms])[..., None]
        + np.float32(0),
        np.stack([resize_nearest(m, size, size) for m in masks])[..., None].astype(np.float32),
        np.array([p.label for p in phantoms], np.int32),
        np.ones(len(phantoms), np.float32),
    )


def compare(
    folder: Path,
    batch: int,
    phantoms: list[Phantom],
    settings: list[str],
    options: argparse.Namespace,
) -> dict:
    """Runs and prints the comparison for one batch size."""
    sides = []
    count = max(_FEWEST, _BATCHES * batch)
    pictures = folder / f"pictures_{count}"
    if not pictures.exists():
        write_pictures(pictures, phantoms[:count])
    for name in ("mtbus_jax", *settings):
        out = folder / f"{name}_{batch}"
        out.mkdir()
        if name == "mtbus_jax":
            command = [sys.executable, HERE / "our_predict.py", folder / "run"]
            command += [pictures, out, f"--batch={batch}"]
            sides.append(side_by_side.Side(name, command))
            continue
        command = [options.peer_python, HERE / "peer_predict.py", folder / "weights.npz"]
        command += [
            pictures,
            out,
            name,
            f"--batch={batch}",
            f"--device={options.device}",
        ]
        environment = {"TORCHINDUCTOR_FREEZING": "1"} if name in ("compiled", "best") else {}
        if name == "best":
            environment["THP_MEM_ALLOC_ENABLE"] = "1"
        sides.append(side_by_side.Side(f"PyTorch {name}", command, environment))
    for side in sides[1:]:
        ours, theirs = sides[0].facts, side.facts
        np.testing.assert_allclose(
            theirs["class_probability"], ours["class_probability"], atol=1e-3
        )
        # Allows for the few pixels whose probability is one half up to rounding.
        pixels = 2 + options.size**2 // 2000
        np.testing.assert_allclose(theirs["area"], ours["area"], atol=pixels)
    area = 100 * np.mean(sides[0].facts["area"]) / options.size**2
    print(
        f"\n{count} pictures, batch {batch}, network {options.size}×{options.size}, width "
        f"{options.width}; masks cover {area:.0f} % on average"
    )
    medians = side_by_side.compare(sides, rounds=options.rounds, steps=options.steps)
    rows = side_by_side.table(medians, ours="mtbus_jax", images=count)
    print_stages(sides, count)
    for side in sides:
        side.close()
    facts = {side.name: side.facts for side in sides}
    return {"table": rows, "facts": facts, "seconds": medians}


def print_stages(sides: list[side_by_side.Side], count: int) -> None:
    """The parts of a step in ms per image and as shares of their sum."""
    print(f"\n{'ms per image (share)':<22}" + "".join(f"{stage:>16}" for stage in STAGES))
    for side in sides:
        seconds = side.facts["stages"]
        total = sum(seconds.values())
        cells = [f"{1e3 * seconds[s] / count:.2f} ({seconds[s] / total:.0%})" for s in STAGES]
        print(f"{side.name:<22}" + "".join(f"{cell:>16}" for cell in cells))
    print(f"command's output: {1e3 * sides[0].facts['command_output'] / count:.2f} ms per image")


def main() -> None:
    """Makes pictures and weights, then compares for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    side_by_side.peer_arguments(
        parser, settings="published,channels_last,two_threads,compiled,best"
    )
    parser.add_argument("--batch", default="1,32", help="pictures per call of the network")
    parser.add_argument("--size", type=int, default=128, help="height and width, pixels")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--training_steps", type=int, default=40)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the peer")
    options = parser.parse_args()
    settings = side_by_side.settings_of(parser, options)
    batches = [int(each) for each in options.batch.split(",")]
    host_memory.keep_freed_memory()
    program_cache.open_cache()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantoms = list(make_phantoms(max(2 * _FEWEST, _BATCHES * max(batches)), seed=0))
        params = write_run(folder / "run", phantoms, options)
        np.savez(
            folder / "weights.npz",
            width=options.width,
            image_size=(options.size, options.size),
            **{f"param:{k}": np.asarray(v) for k, v in params.items()},
        )
        for batch in batches:
            results[f"batch {batch}"] = compare(folder, batch, phantoms, settings, options)
    if options.json:
        side_by_side.write(options.json, results)


if __name__ == "__main__":
    main()
