"""Lite U-Net: an EfficientNet-Lite encoder, a light decoder, a class head; made for two CPU cores.

Not a published network. The encoder (`efficientnet_lite`) can start from ImageNet weights, so that
the network learns breast ultrasound in minutes. The decoder is a U-Net's with one 3×3 convolution
per stage. The head reads the encoder's last map and the decoder's maps, so that classification
benefits from the outline.

Feature maps at 128×128 input with lite0 (height = width × channels):
  encoder: 64 × 16, 32 × 24, 16 × 40, 8 × 112, 4 × 320, head 4 × 1280
  decoder: 8 × 96, 16 × 64, 32 × 48, 64 × 24     head: 1512 → 3
3,879,525 parameters with lite0 and both tasks, 3,874,986 with ``("seg",)``.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax import types
from mtbus_jax.models import efficientnet_lite
from mtbus_jax.models.cpu import drawing
from mtbus_jax.models.efficientnet_lite import EfficientNetLite, Normalisation

ENCODERS = tuple(efficientnet_lite.SCALES)
DECODER = (96, 64, 48, 24)
DROPOUT = 0.2


class LiteUNet(nn.Module):
    """Lite U-Net for segmentation, classification, or both.

    Attributes:
      encoder: one of `ENCODERS`.
      encoder_weights: source of the encoder's initial weights, see `weights.find`; ``""`` draws
        them. `models.with_encoder_weights` reads it when training starts; it is never read again.
      frozen_statistics: whether the encoder's batch norms keep the running statistics that came
        with its weights. Drawn weights bring none, so they are not frozen then.
      deep_supervision: whether the decoder's map of stride 8 gets a segmentation output too.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is no decoder.
      classes: number of classes.
    """

    encoder: str = "lite0"
    encoder_weights: str = ""
    frozen_statistics: bool = False
    deep_supervision: bool = True
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)

    # How often the resolution is halved: height and width must be multiples of 2 ** depth.
    depth = 5
    # The submodule that `encoder_weights` go into, and their places in it.
    encoder_scope = "encoder"
    place_encoder_weights = staticmethod(efficientnet_lite.place)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, 1)`` float32, grey values 0..255; height and width
            multiples of 32.
          train: whether batch norm uses the batch's statistics and dropout drops.

        Returns:
          `types.Outputs`: segmentation logits of the finest map and, with deep supervision, of the
          map of stride 8, both at the image's resolution; class logits.
        """
        # The weights were trained on colour pictures scaled in this way.
        colour = jnp.repeat((image - 127) / 128, 3, axis=-1)
        frozen = self.frozen_statistics and self.encoder_weights != ""
        encoder = EfficientNetLite(self.encoder, frozen=frozen, name="encoder")
        maps, head = encoder(colour, train=train)
        pooled, segmentation = [jnp.mean(head, axis=(1, 2))], ()
        if types.SEGMENTATION in self.tasks:
            decoded, logits = maps[-1], []
            for stage, (features, skip) in enumerate(zip(DECODER, maps[-2::-1], strict=True), 1):
                decoded = jnp.concatenate([_doubled(decoded), skip], axis=-1)
                decoded = DecoderStage(features, name=f"decoder_{stage}")(decoded, train=train)
                pooled.append(jnp.mean(decoded, axis=(1, 2)))
                if stage == len(DECODER) or (stage == 2 and self.deep_supervision):
                    coarse = nn.Conv(1, (1, 1), name=f"segment_{stage}")(decoded)
                    logits.append(_enlarged(coarse, *image.shape[1:3]))
            segmentation = tuple(reversed(logits))
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            features = jnp.concatenate(pooled, axis=-1)
            features = nn.Dropout(DROPOUT, deterministic=not train, name="dropout")(features)
            class_logits = nn.Dense(self.classes, name="classifier")(features)
        return types.Outputs(segmentation, class_logits, {})


class DecoderStage(nn.Module):
    """3×3 convolution, batch norm, ReLU.

    Attributes:
      features: channels of the output.
    """

    features: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """``(batch, height, width, any)`` to ``(batch, height, width, features)``."""
        image = nn.Conv(
            self.features,
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=drawing.Initializer("normal", gain=2.0),
            name="conv",
        )(image)
        return nn.relu(Normalisation(name="norm")(image, train=train))


def _doubled(image: jax.Array) -> jax.Array:
    """Nearest neighbour, twice the height and width."""
    return jnp.repeat(jnp.repeat(image, 2, axis=1), 2, axis=2)


def _enlarged(image: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear interpolation between pixel centres, as products with two constant matrices."""
    rows = _interpolation(image.shape[1], height).astype(image.dtype)
    cols = _interpolation(image.shape[2], width).astype(image.dtype)
    return jnp.einsum("ij,bjkc,lk->bilc", rows, image, cols, precision="highest")


def _interpolation(source: int, target: int) -> np.ndarray:
    """``(target, source)``: weights of the source's pixels in each pixel of the target."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(centre.astype(int), max(source - 2, 0))
    weights = np.zeros((target, source), np.float32)
    share = centre - low
    weights[np.arange(target), low] = 1 - share
    weights[np.arange(target), np.minimum(low + 1, source - 1)] += share
    return weights
