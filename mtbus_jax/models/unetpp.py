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
more, in three 1×1 convolutions that only deep supervision reads; and it has no classification, for
which this one takes MT UNet++'s head.
"""

from __future__ import annotations

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import blocks, heads
from mtbus_jax.models.cpu import parts
from mtbus_jax.models.cpu import shares as shares_op

HEADS = ("released", "printed")


class UNetPlusPlus(nn.Module):
    """UNet++ for segmentation, classification, or both.

    Attributes:
      width: channels of row 0; rows below have 2, 4, 8, 16 times as many. Not read if ``features``
        are given.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` only the encoder and the
        head exist, and the head reads X(3,0) and X(4,0).
      head: ``"released"`` or ``"printed"``, see the module's text.
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

    # What `features` are without being given, in units of the width.
    multiples = (1, 2, 4, 8, 16, 1)

    # Rows that a CPU computes in the parts of `parts.cut`. Those below have most of the weights,
    # which it would read, and whose gradients it would write, once for each part.
    rows_in_parts = 2

    # Rows in which a map is convolved for all nodes that read it at once, see `ops.shares`: those
    # with fewer channels than fill a processor's registers.
    rows_of_shares = 1

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
        node = {(i, 0): maps for i, maps in enumerate(self._encoder(image))}
        upsampled = None
        if types.SEGMENTATION in self.tasks or self.head == "printed":
            upsampled = self._grid(node)
        segmentation = ()
        if types.SEGMENTATION in self.tasks:
            columns = range(self.depth, 0, -1) if self.deep_supervision else (self.depth,)
            segmentation = tuple(_segment(node[0, j], name=f"segment_0_{j}") for j in columns)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = self._classify(node, upsampled)
        return types.Outputs(segmentation, class_logits, {})

    def _features(self) -> tuple[int, ...]:
        if self.features is not None:
            return self.features
        return tuple(self.width * each for each in self.multiples)

    def _encoder(self, image: jax.Array) -> list[list[jax.Array]]:
        """X(0..4,0), each in the parts of its row."""
        features = self._features()
        block = blocks.ConvBlock(features[0], name="node_0_0")
        rows = [[block(part) for part in self._parts(0, [image])]]
        for i in range(1, self.depth + 1):
            down = blocks.DownBlock(features[i], name=f"node_{i}_0")
            if i < self.rows_in_parts:
                rows.append([down(part) for part in rows[-1]])
            else:
                rows.append([down(*rows[-1])])
        return rows

    def _parts(self, i: int, maps: list[jax.Array]) -> list[jax.Array]:
        """A batch, of row i or of the one below, in the parts in which row i is computed."""
        return parts.cut(maps[0]) if len(maps) == 1 and i < self.rows_in_parts else maps

    def _grid(self, node: dict[tuple[int, int], list[jax.Array]]) -> jax.Array:
        """Fills in the decoder nodes; returns the upsampled bottleneck that X(3,1) read."""
        bottleneck_up = None
        shares = collections.defaultdict(list)
        *row_features, last_features = self._features()
        segments = types.SEGMENTATION in self.tasks
        for j in range(1, self.depth + 1):
            for i in range(self.depth - j, -1, -1):
                if not segments and (i, j) != (self.depth - 1, 1):
                    continue
                below = self._parts(i, node[i + 1, j - 1])
                up_features = below[0].shape[-1] // (2 if i > 0 else 1)
                upsample = blocks.Upsample(up_features, name=f"up_{i}_{j}")
                ups = [upsample.deferred(part) for part in below]
                features = last_features if (i, j) == (0, self.depth) else row_features[i]
                block = blocks.ConvBlock(features, name=f"node_{i}_{j}")
                self._add_shares(shares, node, i, j - 1)
                skips = zip(*(node[i, k] for k in range(j)), strict=True)
                node[i, j] = [
                    block(*maps, up=up, shares=shares[i, j, part])
                    for part, (maps, up) in enumerate(zip(skips, ups, strict=True))
                ]
                if (i, j) == (self.depth - 1, 1):
                    bottleneck_up = ups[0].computed()
        return bottleneck_up

    def _add_shares(
        self,
        shares: dict[tuple[int, int, int], list[jax.Array]],
        node: dict[tuple[int, int], list[jax.Array]],
        i: int,
        k: int,
    ) -> None:
        """Adds the shares of X(i, k) in the nodes that read it, by i, j and part of a batch."""
        maps = node[i, k]
        if i >= self.rows_of_shares or self.is_initializing() or not shares_op.pays(maps[0].shape):
            return
        columns = range(k + 1, self.depth - i + 1)
        channels = maps[0].shape[-1]
        of_map = slice(k * channels, (k + 1) * channels)
        params = self.variables["params"]
        kernels = [params[f"node_{i}_{j}"]["conv_1"]["kernel"][:, :, of_map] for j in columns]
        layer = blocks.Shares(name=f"shares_{i}_{k}")
        for part, image in enumerate(maps):
            for j, share in zip(columns, layer(image, kernels), strict=True):
                shares[i, j, part].append(share)

    def _classify(
        self, node: dict[tuple[int, int], list[jax.Array]], upsampled: jax.Array | None
    ) -> jax.Array:
        row = self.depth - 1
        node = {(i, j): maps[0] for (i, j), maps in node.items() if i >= row}
        bottleneck = node[self.depth, 0]
        if self.head == "printed":
            features = jnp.concatenate([node[row, 0], node[row, 1], upsampled], axis=-1)
            features = blocks.convolution(features, self.head_features, name="head_conv")
            features = nn.relu(blocks.instance_norm(features, name="head_norm"))
        else:
            # One block for both: the released code passes encoder and decoder features
            # through the same module.
            down = blocks.DownBlock(bottleneck.shape[-1], name="head_down")
            encoder, *decoder = [down(node[row, j]) for j in (0, 1) if (row, j) in node]
            # The released order; older weights are converted, see `channel_order`.
            features = jnp.concatenate([encoder, bottleneck, *decoder], axis=-1)
            features = blocks.ConvBlock(self.head_features, name="head_block")(features)
        return heads.PooledClassifier(self.classes, name="classifier")(features)


def _segment(maps: list[jax.Array], *, name: str) -> jax.Array:
    """Segmentation logits of a node, the whole batch's; created inside a compact module."""
    layer = blocks.convolution_layer(maps[0].shape[-1], 1, kernel=1, name=name)
    return parts.join([layer(part) for part in maps])


class BasicUNetPlusPlus(UNetPlusPlus):
    """The UNet++ of Table 4: MONAI's default features, in proportion to the width.

    Attributes:
      width: channels of rows 0 and 1 and of the last node; rows below have 2, 4, 8 times as many.
      deep_supervision: whether X(0,1..3) get a segmentation output too.
    """

    width: int = 32
    deep_supervision: bool = False

    multiples = (1, 1, 2, 4, 8, 1)
