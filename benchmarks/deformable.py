"""The modulated deformable convolutions of ACSNet on a CPU: ours and torchvision's.

    python benchmarks/deformable.py --peer_python=peer/bin/python

Each layer is timed once, at its sizes for images of 256×256, with offsets of about a pixel. The
table has milliseconds of the forward pass, of value and all four gradients together, and, for
comparison, of an ordinary 3×3 convolution of XLA. The two sides take turns, round by round, in
separate processes; the last two columns are the medians of each round's ratio, above 1 where ours
is faster. The peer's environment needs torch and torchvision; without --peer_python it is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable

import side_by_side

# Side of the map, channels of the input and of the output.
LAYERS = ((16, 512, 512), (16, 1024, 512), (32, 256, 256), (32, 512, 256))
# torchvision's side, given to its interpreter as a program: a line asks for one round.
PEER = """
import json, sys, time
import torch, torchvision
layers, batch, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
cases = []
for side, inputs, features in layers:
    arrays = [torch.randn(batch, inputs, side, side), torch.randn(batch, 18, side, side)]
    arrays += [torch.rand(batch, 9, side, side), torch.randn(features, inputs, 3, 3)]
    cases.append([each.requires_grad_(True) for each in arrays])
def run(image, offsets, modulation, kernel):
    return torchvision.ops.deform_conv2d(image, offsets, kernel, padding=1, mask=modulation)
print(flush=True)
for line in sys.stdin:
    times = []
    for case in cases:
        start = time.perf_counter()
        with torch.no_grad():
            run(*case)
        middle = time.perf_counter()
        run(*case).square().sum().backward()
        times.append([middle - start, time.perf_counter() - middle])
    print(json.dumps(times), flush=True)
"""


def programs(
    layers: tuple[tuple[int, int, int], ...], batch: int
) -> list[dict[str, Callable[[], None]]]:
    """The compiled programs to time, for each layer."""
    import jax
    import jax.numpy as jnp

    from mtbus_jax.models.deformable import deformable_convolution

    def ordinary(image, _, __, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout
        )

    found = []
    for side, inputs, features in layers:
        keys = jax.random.split(jax.random.key(0), 4)
        pixels = (batch, side, side)
        arrays = (
            jax.random.normal(keys[0], (*pixels, inputs)),
            jax.random.normal(keys[1], (*pixels, 18)),
            jax.random.uniform(keys[2], (*pixels, 9)),
            jax.random.normal(keys[3], (3, 3, inputs, features)),
        )

        def total(*arrays):
            return jnp.sum(deformable_convolution(*arrays) ** 2)

        compiled = {
            "ours forward": jax.jit(deformable_convolution),
            "ours all": jax.jit(jax.value_and_grad(total, (0, 1, 2, 3))),
            "convolution forward": jax.jit(ordinary),
        }
        found.append(
            {
                name: lambda p=program, a=arrays: jax.block_until_ready(p(*a))
                for name, program in compiled.items()
            }
        )
    return found


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer_python", default="", help="interpreter with torchvision")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--layers", type=int, default=len(LAYERS), help="number of layers to time, from the first"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of the peer")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    chosen = LAYERS[: options.layers]
    layers = programs(chosen, options.batch)
    peer = None
    if options.peer_python:
        arguments = json.dumps([chosen, options.batch, options.threads])
        peer = subprocess.Popen(
            [options.peer_python, "-c", PEER, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        peer.stdout.readline()
    rounds: list[list[dict[str, float]]] = []
    for _ in range(options.rounds + 1):  # the first one compiles
        rows = []
        for layer in layers:
            rows.append({})
            for name, program in layer.items():
                start = time.perf_counter()
                program()
                rows[-1][name] = time.perf_counter() - start
        if peer:
            peer.stdin.write("round\n")
            peer.stdin.flush()
            for row, times in zip(rows, json.loads(peer.stdout.readline()), strict=True):
                row["peer forward"], row["peer all"] = times
                for kind in ("forward", "all"):
                    row[f"ratio {kind}"] = row[f"peer {kind}"] / row[f"ours {kind}"]
        rounds.append(rows)
    if peer:
        peer.stdin.close()
        peer.wait()
    rows = [
        {name: statistics.median(each[i][name] for each in rounds[1:]) for name in rounds[0][i]}
        for i in range(len(chosen))
    ]
    print(f"| side | in | out | {' | '.join(rows[0])} |")
    print("| ---: " * (3 + len(rows[0])) + "|")
    for layer, row in zip(chosen, rows, strict=True):
        cells = [
            f"{value:.2f}" if name.startswith("ratio") else f"{1e3 * value:.1f}"
            for name, value in row.items()
        ]
        print("| " + " | ".join([*map(str, layer), *cells]) + " |")
    if options.json:
        side_by_side.write(options.json, {"layers": chosen, "rows": rows})


if __name__ == "__main__":
    main()
