"""The convolutions of MT UNet++ on a CPU: lax against `mtbus_jax.models.cpu`, layer by layer.

    python benchmarks/convolution.py --batch=2 --size=128 --width=24

A layer is a 3×3 convolution, or what a decoder node does: a map upsampled by a transposed
convolution, concatenated with others and convolved. The table has milliseconds of the forward pass,
and of value and all gradients together, for lax and for the operation that the rules choose. All
run in one process, in turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import side_by_side
from jax import lax

from mtbus_jax.models.cpu import convolution, upsampled
from mtbus_jax.runtime import host_memory

_OPTIONS = {
    "window_strides": (1, 1),
    "padding": ((1, 1), (1, 1)),
    "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
}


class Layer(NamedTuple):
    """A convolution of the network.

    Attributes:
      side: height and width of the result.
      channels: of the maps that it reads as they are.
      below: channels of the map that is upsampled for it; 0 if there is none.
      features: channels of that map once upsampled.
      out: channels of the result.
    """

    side: int
    channels: int
    below: int
    features: int
    out: int


def layers(size: int, width: int) -> list[Layer]:
    """Every convolution, each once."""
    found = []
    rows = [width * 2**i for i in range(5)]
    for i, out in enumerate(rows):
        side = size >> i
        found.append(Layer(side, rows[i - 1] if i else 1, 0, 0, out))
        found.append(Layer(side, out, 0, 0, out))
        if i < 4:
            below = rows[i + 1]
            features = below // (2 if i else 1)
            found += [Layer(side, j * out, below, features, out) for j in range(1, 5 - i)]
    found += [Layer(size >> 4, 3 * rows[4], 0, 0, 512), Layer(size >> 4, 512, 0, 0, 512)]
    return list(dict.fromkeys(found))


def inputs(layer: Layer, batch: int) -> tuple[tuple, jax.Array]:
    """Arguments of the functions, and the gradient of their result."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    maps = normal(batch, layer.side, layer.side, layer.channels)
    kernel = normal(3, 3, layer.channels + layer.features, layer.out)
    gradient = normal(batch, layer.side, layer.side, layer.out)
    if not layer.below:
        return (maps, kernel), gradient
    half = layer.side // 2
    up = upsampled.Upsampled(
        normal(batch, half, half, layer.below),
        normal(2, 2, layer.features, layer.below),
        normal(layer.features),
    )
    return ([maps], up, kernel), gradient


def functions(layer: Layer) -> tuple[Callable, Callable]:
    """lax's function and ours."""
    plain = functools.partial(lax.conv_general_dilated, **_OPTIONS)
    if not layer.below:
        return plain, functools.partial(convolution.conv_general_dilated, **_OPTIONS)

    def both(maps, up, kernel):
        image = lax.conv_transpose(up.image, up.kernel, (2, 2), "VALID", transpose_kernel=True)
        return plain(jnp.concatenate([*maps, image + up.bias], axis=-1), kernel)

    return both, upsampled.convolution_of_both


def with_gradients(function: Callable) -> Callable:
    """Value and gradients of all arguments."""

    def both(arguments, gradient):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(gradient)

    return both


def seconds(sides: dict[str, Callable], arguments: Any, rounds: int) -> dict[str, float]:
    """Median seconds of each side, called in turn."""
    compiled = {name: jax.jit(side) for name, side in sides.items()}
    for side in compiled.values():
        jax.block_until_ready(side(*arguments))
    times = {name: [] for name in compiled}
    for _ in range(rounds):
        for name, side in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(side(*arguments))
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
    host_memory.keep_freed_memory()
    rows = []
    print("| pixels | in | upsampled | out | lax forward | ours | lax all | ours | ratio of all |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for layer in layers(options.size, options.width):
        plain, own = functions(layer)
        sides = {
            "lax forward": lambda arguments, _, f=plain: f(*arguments),
            "our forward": lambda arguments, _, f=own: f(*arguments),
            "lax all": with_gradients(plain),
            "our all": with_gradients(own),
        }
        found = seconds(sides, inputs(layer, options.batch), options.rounds)
        ratio = found["lax all"] / found["our all"]
        rows.append(layer._asdict() | found | {"ratio": ratio})
        up = f"{layer.below} → {layer.features}" if layer.below else ""
        times = " | ".join(f"{1e3 * each:.1f}" for each in found.values())
        print(
            f"| {layer.side}² | {layer.channels} | {up} | {layer.out} | {times} | {ratio:.1f} |",
            flush=True,
        )
    if options.json:
        side_by_side.write(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
