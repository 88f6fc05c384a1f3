"""MT UNet++: the nested U-Net with deep supervision and a classification head.

Papers: the multi-task network is from Aumente-Maestro et al. 2025 (Comput. Methods Programs Biomed.
260, 108540) and its released code; the backbone is UNet++, Zhou et al. 2018 (DLMIA). Node X(i, j)
sits in row i (i halvings of the resolution) and column j (j = 0 is the encoder) and reads all
X(i, <j) and X(i+1, j-1).

Feature maps at 128×128 input (height = width × channels), width 24:
  row 0: X(0,0..4) 128 × 24      row 1: X(1,0..3) 64 × 48      row 2: X(2,0..2) 32 × 96
  row 3: X(3,0..1)  16 × 192     row 4: X(4,0)     8 × 384     head: 8 × 1152 → 8 × 512 → 256 → 3
14,927,455 parameters as released (1 input channel, 3 classes, both tasks).

Departures from the paper's text, all towards the released code: rows 1 and below halve the channels
in their transposed convolution while row 0 keeps them; the head is the released one by default
(`head="released"`), the one drawn in the paper is `head="printed"`. For the latter the paper does
not say how the bottleneck is upsampled; here it is the decoder's own upsampled bottleneck, as in
the released MT nnU-Net.

`BasicUNetPlusPlus` is the UNet++ of the paper's Table 4: MONAI's `BasicUNetPlusPlus` with its
default features, 32, 32, 64, 128, 256 in the rows and 32 in X(0,4), without deep supervision.
2,410,081 parameters for segmentation alone, 9,329,764 with the head. Departures: MONAI's has 99
more, in three 1×1 convolutions that only deep supervision uses; and it does not classify, so this
one uses MT UNet++'s head.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads
from mtbus_jax.models.cpu import upsampled

HEADS = ("released", "printed")


class UNetPlusPlus(nn.Module):
    """UNet++ for segmentation, classification, or both.

    Attributes:
      width: channels of row 0; rows below have 2, 4, 8, 16 times as many. Ignored if ``features``
        are given.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` only the encoder and the
        head exist, and the head reads X(3,0) and X(4,0); the printed head keeps X(3,1) too.
      head: ``"released"`` or ``"printed"``, see the module's docstring.
      head_features: channels of the head's feature map.
      deep_supervision: whether X(0,1..3) get a segmentation output too.
      classes: number of classes.
      features: channels of rows 0 to 4 and of the last node, X(0,4); None follows ``width``.
    """

    width: int = 24
    tasks: tuple[str, ...] = types.TASKS
    head: str = "released"
    head_features: int = 512
    deep_supervision: bool = True
    classes: int = len(types.CLASS_NAMES)
    features: tuple[int, ...] | None = None

    # The default of `features`, in units of the width.
    multiples = (1, 2, 4, 8, 16, 1)

    # Rows below row 0, that is, how often the resolution is halved. Height and width of the
    # input must be multiples of 2 ** depth.
    depth = 4

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, channels)`` float32, grey values 0..255; height and width
            multiples of 16.
          train: ignored (no dropout, no running statistics); every network takes it.

        Returns:
          `types.Outputs`: segmentation logits of X(0,4), X(0,3), X(0,2), X(0,1) and class logits.

        Raises:
          UserError: if ``features`` are not six numbers.
        """
        del train
        if len(self._features()) != len(self.multiples):
            raise UserError(
                f"model.features={self.features} must have {len(self.multiples)} numbers: five "
                "rows and the last node."
            )
        node = self._encode(image)
        bottleneck_up = self._decode(node)
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            columns = range(self.depth, 0, -1) if self.deep_supervision else (self.depth,)
            segmentation = tuple(
                blocks.convolution(node[0, j], 1, kernel=1, name=f"segment_0_{j}") for j in columns
            )
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = self._classify(node, bottleneck_up)
        return types.Outputs(segmentation, class_logits, {})

    def _features(self) -> tuple[int, ...]:
        if self.features is not None:
            return self.features
        return tuple(self.width * each for each in self.multiples)

    def _encode(self, image: jax.Array) -> dict[tuple[int, int], jax.Array]:
        """X(0..4,0) by row and column."""
        features = self._features()
        node = {(0, 0): blocks.ConvBlock(features[0], name="node_0_0")(image)}
        for i in range(1, self.depth + 1):
            node[i, 0] = blocks.DownBlock(features[i], name=f"node_{i}_0")(node[i - 1, 0])
        return node

    def _decode(self, node: dict[tuple[int, int], jax.Array]) -> upsampled.Upsampled | None:
        """Fills in the decoder nodes that are needed; returns the bottleneck as X(3,1) reads it."""
        *row_features, last_features = self._features()
        bottleneck_up = None
        for i, j in self._decoder_nodes():
            below = node[i + 1, j - 1]
            up_features = below.shape[-1] // (2 if i > 0 else 1)
            up = blocks.Upsample(up_features, name=f"up_{i}_{j}").deferred(below)
            features = last_features if (i, j) == (0, self.depth) else row_features[i]
            skips = [node[i, k] for k in range(j)]
            node[i, j] = blocks.ConvBlock(features, name=f"node_{i}_{j}")(*skips, up=up)
            if (i, j) == (self.depth - 1, 1):
                bottleneck_up = up
        return bottleneck_up

    def _decoder_nodes(self) -> list[tuple[int, int]]:
        """Row and column of each, in the order in which they can be computed."""
        if types.SEGMENTATION in self.tasks:
            columns = range(1, self.depth + 1)
            return [(i, j) for j in columns for i in range(self.depth - j, -1, -1)]
        # Without segmentation, only the printed head reads the decoder.
        return [(self.depth - 1, 1)] if self.head == "printed" else []

    def _classify(
        self,
        node: dict[tuple[int, int], jax.Array],
        bottleneck_up: upsampled.Upsampled | None,
    ) -> jax.Array:
        row = self.depth - 1
        bottleneck = node[self.depth, 0]
        if self.head == "printed":
            maps = [node[row, 0], node[row, 1], bottleneck_up.computed()]
            features = jnp.concatenate(maps, axis=-1)
            features = blocks.convolution(features, self.head_features, name="head_conv")
            features = nn.relu(blocks.instance_norm(features, name="head_norm"))
        else:
            # One block for both: the released code passes encoder and decoder features
            # through the same module.
            down = blocks.DownBlock(bottleneck.shape[-1], name="head_down")
            encoder, *decoder = [down(node[row, j]) for j in (0, 1) if (row, j) in node]
            features = jnp.concatenate([encoder, bottleneck, *decoder], axis=-1)
            features = blocks.ConvBlock(self.head_features, name="head_block")(features)
        return heads.PooledClassifier(self.classes, name="classifier")(features)


class BasicUNetPlusPlus(UNetPlusPlus):
    """The UNet++ of Table 4: MONAI's default features, in proportion to the width.

    Attributes:
      width: channels of rows 0 and 1 and of the last node; rows below have 2, 4, 8 times as many.
      deep_supervision: whether X(0,1..3) get a segmentation output too.
    """

    width: int = 32
    deep_supervision: bool = False

    multiples = (1, 1, 2, 4, 8, 1)
