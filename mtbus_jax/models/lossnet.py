"""LossNet: distance of a predicted mask from the true one in features of a network for photos.

Zhao et al. 2023 (M²SNet, arXiv 2303.10894). He et al. 2024 (ACSNet) add it, with a weight of 0.2,
to their Dice loss: the squared differences of the features of VGG-16 (Simonyan and Zisserman 2015)
after its first four stages, before each pooling, summed over the stages. VGG-16 is not trained;
gradients pass through it to the mask.

At 128×128 the four maps are 128×128×64, 64×64×128, 32×32×256 and 16×16×512, in torchvision's count
the outputs of layers 3, 8, 15 and 22; 7,635,264 weights. `weights.vgg16` reads them.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

# Channels of the convolutions, by stage.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))


class Vgg(NamedTuple):
    """The convolutions of VGG-16's first four stages, and how its input is scaled.

    Attributes:
      kernels: ``(3, 3, in, out)`` float32 each, in order.
      biases: ``(out,)`` float32 each.
      scale: ``(3,)`` float32; a channel of the input is value · scale + shift, value in 0..1.
      shift: ``(3,)`` float32.
    """

    kernels: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    scale: jax.Array
    shift: jax.Array


def features(vgg: Vgg, image: jax.Array) -> list[jax.Array]:
    """The maps after the ReLU that ends each stage.

    Args:
      vgg: the weights.
      image: ``(batch, height, width, 1)`` float32 in 0..1, used for all three channels; sides are
        multiples of 8.

    Returns:
      Four maps, ``(batch, height/2^s, width/2^s, channels)``.
    """
    image = image * vgg.scale + vgg.shift
    weights = iter(zip(vgg.kernels, vgg.biases, strict=True))
    maps = []
    for number, stage in enumerate(STAGES):
        if number:
            image = nn.max_pool(image, window_shape=(2, 2), strides=(2, 2))
        for _ in stage:
            kernel, bias = next(weights)
            image = jax.lax.conv_general_dilated(
                image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            image = nn.relu(image + bias)
        maps.append(image)
    return maps


def loss(vgg: Vgg, logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Σ over the stages of the mean squared difference of features.

    Args:
      vgg: the weights.
      logits: ``(batch, height, width, 1)`` float32.
      mask: the same shape, 0 or 1.

    Returns:
      ``(batch,)`` float32, ≥ 0.
    """
    pairs = zip(features(vgg, jax.nn.sigmoid(logits)), features(vgg, mask), strict=True)
    return sum(jnp.mean((found - truth) ** 2, axis=(1, 2, 3)) for found, truth in pairs)
