"""A training step of MT UNet++ against the PyTorch original, on the same images and weights.

    python benchmarks/train_step.py --peer_python=VENV/bin/python --batch=2,8

One step is the forward pass, losses, gradients and Adam. Sides: this library; PyTorch as the
released code runs it, and with the settings of peer_train.py. The first three losses of all sides
must agree, or the comparison stops.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import side_by_side

from mtbus_jax import models
from mtbus_jax.images.phantom import Phantom, make_phantoms
from mtbus_jax.images.preprocess import resize_nearest

HERE = Path(__file__).parent


def write_batch(path: Path, *, batch: int, size: int, width: int) -> None:
    """Phantoms, their truth and random weights, for both sides to read."""
    phantoms = list(make_phantoms(batch, seed=0))
    module = models.create("unetpp", width=width)
    variables = models.init(module, jax.random.key(0), (size, size, 1))
    params = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    np.savez(
        path,
        width=width,
        image=np.stack([resize_nearest(p.image, size, size) for p in phantoms])[..., None],
        mask=np.stack([_mask(p, size) for p in phantoms])[..., None],
        label=np.array([p.label for p in phantoms]),
        **{f"param:{k}": np.asarray(v) for k, v in params.items()},
    )


def _mask(phantom: Phantom, size: int) -> np.ndarray:
    """The lesions of a phantom as one resized mask."""
    merged = np.zeros(phantom.image.shape, bool)
    for mask in phantom.masks:
        merged |= mask
    return resize_nearest(merged, size, size)


def main() -> None:
    """Runs the comparison for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    side_by_side.peer_arguments(
        parser,
        settings="published,huge_pages,channels_last,compiled,compiled_channels_last,best",
    )
    parser.add_argument("--batch", default="2,8", help="images per step")
    parser.add_argument("--size", type=int, default=128, help="height and width, pixels")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the peer")
    options = parser.parse_args()
    peers = side_by_side.settings_of(parser, options)
    results = {}
    for batch in map(int, options.batch.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "batch.npz"
            write_batch(path, batch=batch, size=options.size, width=options.width)
            sides = [side_by_side.Side("mtbus_jax", [sys.executable, HERE / "our_train.py", path])]
            for settings in peers:
                command = [options.peer_python, HERE / "peer_train.py", path, settings]
                command.append(f"--device={options.device}")
                huge = settings in ("huge_pages", "best")
                environment = {"THP_MEM_ALLOC_ENABLE": "1"} if huge else {}
                sides.append(side_by_side.Side(f"PyTorch {settings}", command, environment))
            losses = np.array([side.facts["losses"] for side in sides])
            np.testing.assert_allclose(losses, losses[:1].repeat(len(losses), 0), rtol=2e-3)
            print(f"\nbatch {batch}, {options.size}×{options.size}, width {options.width}")
            medians = side_by_side.compare(sides, rounds=options.rounds, steps=options.steps)
            results[f"batch {batch}"] = {
                "table": side_by_side.table(medians, ours="mtbus_jax", images=batch),
                "facts": {side.name: side.facts for side in sides},
                "seconds": medians,
            }
            for side in sides:
                side.close()
    if options.json:
        side_by_side.write(options.json, results)


if __name__ == "__main__":
    main()
