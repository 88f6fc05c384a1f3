"""The depthwise convolutions of EfficientNet-Lite0 on a CPU: XLA's, ours, and PyTorch's.

    python benchmarks/depthwise.py --peer_python=peer/bin/python

The layers are those of the network for images of 128×128. Of layers with equal sizes one is timed.
The table has milliseconds of the forward pass, and of value and both gradients together. XLA and
ours are called in turn in one process; PyTorch runs in a separate process afterwards, and is left
out without --peer_python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time

import side_by_side

# The same measurement by PyTorch, given to its interpreter as a program.
PEER = """
import json, statistics, sys, time
import torch
layers, batch, rounds = json.loads(sys.argv[1])
for side, channels, size, stride in layers:
    image = torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)
    image.requires_grad_(True)
    layer = torch.nn.Conv2d(
        channels, channels, size, stride, size // 2, groups=channels, bias=False
    )
    layer = layer.to(memory_format=torch.channels_last)
    times = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with torch.no_grad():
            layer(image)
        times[0].append(time.perf_counter() - start)
        start = time.perf_counter()
        layer(image).square().sum().backward()
        times[1].append(time.perf_counter() - start)
    print(json.dumps([statistics.median(each[1:]) for each in times]), flush=True)
"""


def network_layers() -> list[tuple[int, int, int, int]]:
    """Side of the map that is read, channels, kernel and stride of each layer, without repeats."""
    import jax
    import jax.numpy as jnp
    from flax import linen

    from mtbus_jax.models import efficientnet_lite

    found = {}

    def note(call, arguments, options, context):
        layer = context.module
        if isinstance(layer, efficientnet_lite.Depthwise) and context.method_name == "__call__":
            _, side, _, channels = arguments[0].shape
            found[side, channels, layer.kernel, layer.stride] = None
        return call(*arguments, **options)

    network, image = efficientnet_lite.EfficientNetLite(), jnp.zeros((1, 128, 128, 3))
    with linen.intercept_methods(note):
        jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
    return list(found)


def ours(layers, batch: int, rounds: int) -> list[dict[str, float]]:
    """Median seconds of each layer by XLA's convolution and by `models.cpu.depthwise`."""
    import jax
    import jax.numpy as jnp

    from mtbus_jax.models.cpu import depthwise

    found = []
    for side, channels, size, stride in layers:
        image = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
        kernel = jax.random.normal(jax.random.key(1), (size, size, 1, channels))

        def xla(image, kernel, stride=stride):
            return jax.lax.conv_general_dilated(
                image,
                kernel,
                (stride, stride),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=image.shape[-1],
            )

        def shifted(image, kernel, stride=stride):
            return depthwise.depthwise_convolution(image, kernel, stride=stride)

        programs = {}
        for name, function in (("xla", xla), ("ours", shifted)):
            programs[f"{name} forward"] = jax.jit(function)
            programs[f"{name} all"] = jax.jit(
                jax.grad(lambda i, k, f=function: jnp.sum(f(i, k) ** 2), (0, 1))
            )
        times = {name: [] for name in programs}
        for _ in range(rounds + 1):  # the first one compiles
            for name, program in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(program(image, kernel))
                times[name].append(time.perf_counter() - start)
        found.append({name: statistics.median(each[1:]) for name, each in times.items()})
    return found


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer_python", default="", help="interpreter with PyTorch")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    layers = network_layers()
    rows = ours(layers, options.batch, options.rounds)
    if options.peer_python:
        arguments = json.dumps([layers, options.batch, options.rounds])
        command = [options.peer_python, "-c", PEER, arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for row, line in zip(rows, done.stdout.splitlines(), strict=True):
            row["torch forward"], row["torch all"] = json.loads(line)
    names = list(rows[0])
    print(f"| side | channels | kernel | stride | {' | '.join(names)} |")
    print("| ---: " * (4 + len(names)) + "|")
    for layer, row in zip(layers, rows, strict=True):
        print("| " + " | ".join([*map(str, layer), *(f"{1e3 * row[n]:.2f}" for n in names)]) + " |")
    sums = {name: sum(row[name] for row in rows) for name in names}
    print("| all | | | | " + " | ".join(f"{1e3 * sums[n]:.1f}" for n in names) + " |")
    if options.json:
        side_by_side.write(options.json, {"layers": layers, "rows": rows})


if __name__ == "__main__":
    main()
