"""The convolutions of MT UNet++ on a CPU: lax against `mtbus_jax.ops`, shape by shape.

    python benchmarks/convolution.py --batch=2 --size=128 --width=24

For each convolution of the network: GFLOP/s of lax's forward pass, and of value and both gradients
together for lax and for the operation that the rule chooses. All in one process, in turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import side_by_side
from jax import lax

from mtbus_jax import hostmemory
from mtbus_jax.ops import convolution, transposed

LAYOUT = ("NHWC", "HWIO", "NHWC")


def shapes(size: int, width: int) -> list[tuple[str, int, int, int]]:
    """(kind, height = width, channels in, channels out) of every convolution, each once."""
    found = []
    rows = [width * 2**i for i in range(5)]
    for i, features in enumerate(rows):
        side = size >> i
        found.append(("3×3", side, rows[i - 1] if i else 1, features))
        found.append(("3×3", side, features, features))
        if i < 4:
            up = rows[i + 1] // (2 if i else 1)
            found.append(("2×2 up", side // 2, rows[i + 1], up))
            found += [("3×3", side, j * features + up, features) for j in range(1, 5 - i)]
    found += [("3×3", size >> 4, 3 * rows[4], 512), ("3×3", size >> 4, 512, 512)]
    return list(dict.fromkeys(found))


def functions(kind: str) -> tuple[Callable, Callable]:
    """lax's function and ours."""
    if kind == "2×2 up":
        plain = functools.partial(
            lax.conv_transpose, strides=(2, 2), padding="VALID", transpose_kernel=True
        )
        return plain, transposed.conv_transpose
    arguments = {
        "window_strides": (1, 1),
        "padding": ((1, 1), (1, 1)),
        "dimension_numbers": LAYOUT,
    }
    return (
        functools.partial(lax.conv_general_dilated, **arguments),
        functools.partial(convolution.conv_general_dilated, **arguments),
    )


def with_gradients(function: Callable) -> Callable:
    """Value and gradients of both arguments."""

    def both(image, kernel, gradient):
        value, pull = jax.vjp(function, image, kernel)
        return value, *pull(gradient)

    return both


def seconds(sides: dict[str, Callable], inputs: tuple, rounds: int) -> dict[str, float]:
    """Median seconds of each side, called in turn."""
    compiled = {name: jax.jit(side) for name, side in sides.items()}
    for side in compiled.values():
        jax.block_until_ready(side(*inputs))
    times = {name: [] for name in compiled}
    for _ in range(rounds):
        for name, side in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(side(*inputs))
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    hostmemory.keep_freed_memory()
    rng = np.random.default_rng(0)
    rows = []
    print("| layer | pixels | in | out | GFLOP | lax forward | lax all | ours all | ratio |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, side, channels, out in shapes(options.size, options.width):
        up = 2 if kind == "2×2 up" else 1
        image = rng.standard_normal((options.batch, side, side, channels), np.float32)
        gradient = rng.standard_normal((options.batch, up * side, up * side, out), np.float32)
        taps = (2, 2, out, channels) if up == 2 else (3, 3, channels, out)
        kernel = rng.standard_normal(taps, np.float32)
        plain, own = functions(kind)
        inputs = tuple(map(jnp.asarray, (image, kernel, gradient)))
        found = seconds(
            {
                "forward": lambda x, k, g, f=plain: f(x, k),
                "lax": with_gradients(plain),
                "ours": with_gradients(own),
            },
            inputs,
            options.rounds,
        )
        work = 2 * kernel.size * image.shape[0] * side * side / 1e9
        row = {
            "layer": kind,
            "side": side,
            "in": channels,
            "out": out,
            "gflop": work,
            "lax forward": work / found["forward"],
            "lax all": 3 * work / found["lax"],
            "ours all": 3 * work / found["ours"],
            "ratio": found["lax"] / found["ours"],
        }
        rows.append(row)
        print(
            f"| {kind} | {side}² | {channels} | {out} | {work:.2f} | {row['lax forward']:.0f} "
            f"| {row['lax all']:.0f} | {row['ours all']:.0f} | {row['ratio']:.1f} |",
            flush=True,
        )
    if options.json:
        side_by_side.write(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
