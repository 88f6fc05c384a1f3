"""What one map adds to the convolutions of several concatenations that contain it.

In UNet++ each node of a row convolves the concatenation of all maps before it in the row. A
convolution of a concatenation is a sum of convolutions, a share of each map. Here the shares of one
map in all the nodes that read it are one convolution, with the outputs of all side by side: in row
0 of MT UNet++ 24 channels become 96, then 72, 48 and 24, instead of 24, 48, 72 and 96 becoming 24.
There are as many multiplications, but more outputs fill a processor's registers better, and
nothing is concatenated.

Gradients are those of the concatenation's convolution, whose image gradient has the many outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtbus_jax.models.cpu import convolution, fixed_kernel


def pays(shape: Sequence[int]) -> bool:
    """Whether shares are faster than convolutions of concatenations.

    The platform is JAX's default backend at tracing time.

    Args:
      shape: ``(batch, height, width, channels)`` of a map.
    """
    # A free batch size: a network that is exported.
    return jax.default_backend() == "cpu" and isinstance(shape[0], int)


def of_map(image: jax.Array, kernels: Sequence[jax.Array]) -> list[jax.Array]:
    """3×3 convolutions of one map with zero padding 1, for `total`: without gradients.

    Args:
      image: ``(batch, height, width, in)``.
      kernels: each ``(3, 3, in, any)``.

    Returns:
      ``(batch, height, width, any)`` for each kernel.
    """
    image, kernel = jax.lax.stop_gradient((image, jnp.concatenate(kernels, axis=-1)))
    return _taken_apart(convolution.convolve(image, kernel), kernels)


def arrange(image: jax.Array, kernels: Sequence[jax.Array]) -> dict:
    """What `of_map_with_arranged` reads, from the arguments of `of_map`, of ``image`` the shape."""
    return fixed_kernel.arrange(jnp.concatenate(kernels, axis=-1), image.shape)


def of_map_with_arranged(
    image: jax.Array, kernels: Sequence[jax.Array], arranged: dict
) -> list[jax.Array]:
    """`of_map` with kernels that were `arrange`d, of which it reads the shapes."""
    return _taken_apart(fixed_kernel.convolve(image, arranged), kernels)


@jax.custom_vjp
def total(maps: Sequence[jax.Array], kernel: jax.Array, shares: Sequence[jax.Array]) -> jax.Array:
    """3×3 convolution with zero padding 1 of the concatenation of ``maps``, whose shares are known.

    Args:
      maps: each ``(batch, height, width, any)``.
      kernel: ``(3, 3, in, out)``, ``in`` the channels of all maps.
      shares: of each map, ``(batch, height, width, out)``, as `of_map` computes it with the part of
        the kernel for that map.

    Returns:
      ``(batch, height, width, out)``. Its gradients are with respect to maps and kernel.
    """
    del maps, kernel
    return sum(shares)


def _forward(maps, kernel, shares):
    return total(maps, kernel, shares), (maps, kernel, shares)


def _backward(saved, gradient):
    maps, kernel, shares = saved

    def convolution_of_all(maps, kernel):
        return convolution.convolve(jnp.concatenate(maps, axis=-1), kernel)

    _, pull = jax.vjp(convolution_of_all, maps, kernel)
    return *pull(gradient), jax.tree.map(jnp.zeros_like, shares)


total.defvjp(_forward, _backward)


def _taken_apart(image: jax.Array, kernels: Sequence[jax.Array]) -> list[jax.Array]:
    ends = [0]
    for kernel in kernels:
        ends.append(ends[-1] + kernel.shape[3])
    return [image[..., i:j] for i, j in itertools.pairwise(ends)]
