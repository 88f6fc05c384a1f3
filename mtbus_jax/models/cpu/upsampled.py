"""A 3×3 convolution of maps and an upsampled map, without computing the upsampled map.

U-Nets upsample a map by a transposed convolution with kernel and stride 2, concatenate it with maps
of that resolution and convolve. Both steps on the upsampled map are linear, so they are one
transposed convolution, with a 4×4 kernel, stride 2 and padding 1. Here its four phases (an even or
odd row, an even or odd column of the result) are the channels of a 2×2 convolution of the small
map: for MT UNet++'s row 0 that takes 4,608 multiplications per pixel instead of 12,672, and neither
the upsampled map nor its concatenation with the others is written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtbus_jax.models.cpu import convolution, fixed_kernel, products, transposed

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Offsets of the 2×2 pixels that a phase reads.
_OFFSETS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Upsampled(NamedTuple):
    """A transposed convolution that has not been computed.

    Attributes:
      image: ``(batch, height, width, in)``.
      kernel: ``(f, f, features, in)``, f also the stride.
      bias: ``(features,)`` or None.
    """

    image: jax.Array
    kernel: jax.Array
    bias: jax.Array | None

    def computed(self) -> jax.Array:
        """The upsampled map, ``(batch, f·height, f·width, features)``."""
        image = transposed.conv_transpose(self.image, self.kernel)
        return image if self.bias is None else image + self.bias


def convolution_of_both(
    maps: Sequence[jax.Array], up: Upsampled | None, kernel: jax.Array
) -> jax.Array:
    """3×3 convolution with zero padding 1 of the concatenation of ``maps`` and of ``up``.

    Args:
      maps: each ``(batch, height, width, any)``; may be empty if there is ``up``.
      up: has the same height and width when computed; None if there is none.
      kernel: ``(3, 3, in, out)``, ``in`` the channels of all maps and of ``up``.

    Returns:
      ``(batch, height, width, out)``.
    """
    if up is None:
        return convolution.convolve(jnp.concatenate(maps, axis=-1), kernel)
    if not _pays(up, kernel.shape[3]):
        together = jnp.concatenate([*maps, up.computed()], axis=-1)
        return convolution.convolve(together, kernel)
    if not maps:
        return convolution_of_upsampled(up, kernel)
    together = jnp.concatenate(maps, axis=-1)
    channels = together.shape[-1]
    rest = convolution_of_upsampled(up, kernel[:, :, channels:])
    return convolution.convolve(together, kernel[:, :, :channels]) + rest


def arrange(maps: Sequence[jax.Array], up: Upsampled | None, kernel: jax.Array) -> dict[str, Any]:
    """What `convolution_with_arranged` reads, from the arguments of `convolution_of_both`.

    Only the shapes of the images are read.
    """
    # The joint kernel is computed beforehand, so its cost does not count.
    if up is not None and _saved(up, kernel.shape[3]) <= 0:
        maps, up = [*maps, up.computed()], None
    channels = sum(each.shape[-1] for each in maps)
    arranged = {}
    if maps:
        shape = (*maps[0].shape[:3], channels)
        arranged["maps"] = fixed_kernel.arrange(kernel[:, :, :channels], shape)
    if up is not None:
        joint, bias = joint_kernel(up, kernel[:, :, channels:])
        arranged["up"] = {
            "kernel": joint,
            "biases": biases_inside(bias, *up.image.shape[1:3]),
        }
    return arranged


def convolution_with_arranged(
    maps: Sequence[jax.Array], up: Upsampled | None, arranged: dict[str, Any]
) -> jax.Array:
    """`convolution_of_both` with a kernel that was `arrange`d."""
    if up is not None and "up" not in arranged:
        maps = [*maps, up.computed()]
    parts = []
    if maps:
        parts.append(fixed_kernel.convolve(jnp.concatenate(maps, axis=-1), arranged["maps"]))
    if "up" in arranged:
        parts.append(convolution_in_phases(up.image, **arranged["up"]))
    return sum(parts[1:], parts[0])


def _pays(up: Upsampled, out: int) -> bool:
    """Whether `convolution_of_upsampled` is faster than upsampling and convolving in turn.

    Measured on a CPU: it is if it saves at least about twice the multiplications that the joint
    kernel costs. The platform is JAX's default backend at tracing time.
    """
    batch, height, width, channels = up.image.shape
    if jax.default_backend() != "cpu" or not isinstance(batch, int):
        return False  # a symbolic batch size: the network is exported
    cost = 2 * 64 * channels * up.kernel.shape[2] * out
    return 4 * batch * height * width * _saved(up, out) >= max(cost, 1)


def _saved(up: Upsampled, out: int) -> int:
    """Multiplications per pixel of the result that a joint kernel saves, 0 where there is none."""
    factor, columns, features, channels = up.kernel.shape
    if (factor, columns) != (2, 2):
        return 0
    return channels * features + 9 * features * out - 4 * channels * out


def convolution_of_upsampled(up: Upsampled, kernel: jax.Array) -> jax.Array:
    """3×3 convolution with zero padding 1 of ``up``, whose kernel is 2×2.

    Args:
      up: with ``(batch, height, width, in)`` image.
      kernel: ``(3, 3, features, out)``.

    Returns:
      ``(batch, 2·height, 2·width, out)``.
    """
    return _phases_convolution(up.image, *joint_kernel(up, kernel))


def joint_kernel(up: Upsampled, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of the 2×2 convolution that `convolution_of_upsampled` computes.

    Args:
      up: its ``image`` is not read.
      kernel: ``(3, 3, features, out)``.

    Returns:
      ``(2, 2, in, 4·out)`` and ``(2, 2, 4·out)``, see `_phases_convolution`.
    """
    _, _, channels, out = kernel.shape
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    # A row of the result reads two rows of the small map, and at most two upsampled rows of each.
    # With the kernel padded by zeros these are four rows of weights. They begin one row later in
    # even rows of the padded result (odd rows of the result) than in odd ones.
    phases = jnp.stack(
        [jnp.stack([padded[1 - a : 5 - a, 1 - b : 5 - b] for b in (0, 1)]) for a in (0, 1)]
    )
    # (row and column phase, small row, its upsampled row, small column, …, features, out)
    phases = phases.reshape(2, 2, 2, 2, 2, 2, channels, out)
    joint = jnp.einsum("abspqrmo,prmi->sqiabo", phases, up.kernel)
    joint = joint.reshape(2, 2, -1, 4 * out)
    if up.bias is None:
        bias = jnp.zeros((2, 2, 4 * out), joint.dtype)
    else:
        bias = jnp.einsum("abspqrmo,m->sqabo", phases, up.bias).reshape(2, 2, 4 * out)
    return joint, bias


@jax.custom_vjp
def _phases_convolution(image: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """2×2 convolution whose channels are the four phases of the result.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(2, 2, in, 4·out)``.
      bias: ``(2, 2, 4·out)``, added once for each of the 2×2 pixels that lies inside the image.

    Returns:
      ``(batch, 2·height, 2·width, out)``.
    """
    return convolution_in_phases(image, kernel, biases_inside(bias, *image.shape[1:3]))


def convolution_in_phases(image: jax.Array, kernel: jax.Array, biases: jax.Array) -> jax.Array:
    """`convolution_of_upsampled` from `joint_kernel` and `biases_inside`; JAX derives gradients.

    Args:
      image: ``(batch, height, width, in)``.
      kernel: ``(2, 2, in, 4·out)``.
      biases: ``(height + 1, width + 1, 4·out)``.

    Returns:
      ``(batch, 2·height, 2·width, out)``.
    """
    phases = lax.conv_general_dilated(
        image, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    )
    return _interleave(phases + biases)


def biases_inside(bias: jax.Array, height: int, width: int) -> jax.Array:
    """For each position, the sum of the biases of its pixels that lie inside the image.

    Args:
      bias: ``(2, 2, 4·out)``.
      height: of the small map.
      width: of the small map.

    Returns:
      ``(height + 1, width + 1, 4·out)``.
    """
    inside = jnp.asarray(_inside(height, width), bias.dtype)
    return (inside @ bias.reshape(4, -1)).reshape(height + 1, width + 1, -1)


def _forward(image, kernel, bias):
    return _phases_convolution(image, kernel, bias), (image, kernel, bias)


def _backward(saved, gradient):
    image, kernel, bias = saved
    batch, height, width, channels = image.shape
    phases = _separate(gradient)
    phases = phases.reshape(-1, phases.shape[-1])
    # One product for all four offsets, then a sum of shifted maps: faster than a convolution.
    parts = phases @ kernel.transpose(3, 0, 1, 2).reshape(phases.shape[-1], -1)
    parts = parts.reshape(batch, height + 1, width + 1, 2, 2, channels)
    by_image = sum(parts[:, 1 - s :, 1 - t :, s, t][:, :height, :width] for s, t in _OFFSETS)
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, s : s + height + 1, t : t + width + 1] for s, t in _OFFSETS]
    by_kernel = jnp.stack([products.product_over_pixels(each, phases) for each in shifted])
    # As a product: a sum over pixels by itself is slow in XLA's CPU backend.
    inside = jnp.asarray(np.tile(_inside(height, width), (batch, 1)), phases.dtype)
    by_bias = products.product_over_pixels(inside, phases)
    return (
        by_image.astype(image.dtype),
        by_kernel.reshape(kernel.shape).astype(kernel.dtype),
        by_bias.reshape(bias.shape).astype(bias.dtype),
    )


_phases_convolution.defvjp(_forward, _backward)


def _inside(height: int, width: int) -> np.ndarray:
    """Which of its 2×2 pixels each position reads, ``((height + 1)·(width + 1), 4)`` of 0 and 1."""
    rows, columns = (
        np.array(
            [[0 <= position - 1 + s < length for s in (0, 1)] for position in range(length + 1)]
        )
        for length in (height, width)
    )
    both = rows[:, None, :, None] & columns[None, :, None, :]
    return both.reshape(-1, 4).astype(np.float32)


def _interleave(phases: jax.Array) -> jax.Array:
    """``(batch, height + 1, width + 1, 4·out)`` → ``(batch, 2·height, 2·width, out)``."""
    batch, height, width, channels = phases.shape
    phases = phases.reshape(batch, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return phases.reshape(batch, 2 * height, 2 * width, channels // 4)[:, 1:-1, 1:-1]


def _separate(image: jax.Array) -> jax.Array:
    """The transpose of `_interleave`.

    Rows first, then columns, each a concatenation of long pieces. Padding the image and exchanging
    its axes takes twice the time, because XLA then checks every number for the border.
    """
    batch, height, width, channels = image.shape
    pairs = image.reshape(batch, height // 2, 2, width, channels)
    row = jnp.zeros_like(pairs[:, :1, 0])
    column = jnp.zeros((batch, height // 2 + 1, 1, channels), image.dtype)
    phases = [
        jnp.concatenate([column, rows, column], axis=2).reshape(
            batch, height // 2 + 1, width // 2 + 1, 2 * channels
        )
        for rows in (
            jnp.concatenate([row, pairs[:, :, 1]], axis=1),
            jnp.concatenate([pairs[:, :, 0], row], axis=1),
        )
    ]
    return jnp.concatenate(phases, axis=-1)
