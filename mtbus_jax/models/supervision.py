"""Deep supervision: segmentation logits of the decoder's levels, at the resolution of the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax.models import blocks
from mtbus_jax.models.cpu import upsampled


def segment_levels(
    maps: Mapping[int, jax.Array],
    levels: Iterable[int],
    kernel_init: nn.initializers.Initializer,
) -> tuple[jax.Array, ...]:
    """Deep supervision: segmentation logits of decoder levels, created inside a compact module.

    Args:
      maps: decoder maps by level; level l has 1 / 2^(l − 1) of the resolution.
      levels: levels to segment, including 1.
      kernel_init: initialiser of the 1×1 convolutions.

    Returns:
      ``(batch, height, width, 1)`` for each level, all at the resolution of level 1.
    """
    logits = []
    for level in levels:
        features, name = maps[level], f"segment_{level}"
        if level == 1:
            logits.append(nn.Conv(1, (1, 1), kernel_init=kernel_init, name=name)(features))
        else:
            upsample = blocks.Upsample(
                features.shape[-1], factor=2 ** (level - 1), name=f"supervise_{level}"
            )
            segment = PointwiseOfUpsampled(1, kernel_init, name=name)
            logits.append(segment(upsample.deferred(features)))
    return tuple(logits)


class PointwiseOfUpsampled(nn.Module):
    """1×1 convolution of an upsampled map; parameters are those of `nn.Conv` by name and shape.

    Both steps are linear, so they combine into one transposed convolution: only ``features``
    channels are upsampled instead of all channels of the map.

    Attributes:
      features: channels of the output.
      kernel_init: initialiser of the kernel, ``(1, 1, in, features)``.
    """

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, up: upsampled.Upsampled) -> jax.Array:
        """To ``(batch, height, width, features)``, height and width those of ``up`` computed."""
        channels = up.kernel.shape[2]
        kernel = self.param("kernel", self.kernel_init, (1, 1, channels, self.features))[0, 0]
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if up.bias is not None:
            bias = bias + up.bias @ kernel
        joint = jnp.einsum("ijmn,mo->ijon", up.kernel, kernel)
        return upsampled.Upsampled(up.image, joint, bias).computed()
