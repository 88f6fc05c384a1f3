"""ACSNet: a U-Net on ResNet-18 with gates, deformable spatial attention and a multi-scale head.

Paper: He et al. 2024 (Comput. Biol. Med., PII S0010482524004037), on benign and malignant images of
256×256. `ACSNet` puts the parts of `acsnet_parts` together.

Feature maps at 128×128 input (height = width × channels), width 64:
  encoder: 64 × 64, 32 × 64, 16 × 128, 8 × 256, 4 × 512
  decoder: 8 × 512, 16 × 256, 32 × 128, 64 × 128      output: 128 × 128 → 128 × 1
  head: 256 + 512 + 512 = 1280 → 640 → 3
31,824,945 parameters with two classes and both tasks: encoder 11,176,512, up-steps 221,696, decoder
6,362,880, output 147,969, gates 3,572,362, deformable attention 9,410,452, head 933,074. Three
classes add 641; with three classes and ``("cls",)`` there are 11,535,219. Without gates, attention
and head there are 17,909,057.

Paper and released code differ: the code also gates the bottleneck, the paper mentions only the
skips. ``variant="released"`` follows the code, ``"paper"`` the text. The five switches give the
networks of the paper's Table 1 (docs/networks.md lists them); the meaning of its letters is our
interpretation. The paper does not describe the head of the networks without the multi-scale one; it
is 512 → 64 → classes here, which fits the count printed for CUNet.

Departures:
  - The published network has two classes, this one as many as the data.
  - Images of any dataset are scaled with the mean and deviation that the released code has for
    BUSI.
  - With ``("cls",)`` there is no decoder, and a multi-scale head reads two maps instead of three,
    768 → 384 → classes. The published network has no such form.
  - LossNet, a loss on features of VGG-16 that the paper names and the released code does not call,
    is an option of every network's loss, ``loss.lossnet``, and off by default.
  - Running variances, see `resnet`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import acsnet_parts as parts
from mtbus_jax.models import blocks, resampling, resnet

RELEASED, PAPER = "released", "paper"
VARIANTS = (RELEASED, PAPER)
# Mean and standard deviation of BUSI's grey values as shares of white.
MEAN, DEVIATION = 0.330, 0.204
# The width must be a multiple of this: the smallest gate normalises in width / 16 groups.
_WIDTH_MULTIPLE = 16


class ACSNet(nn.Module):
    """ACSNet for segmentation, classification, or both.

    Attributes:
      width: channels of the encoder's first layers, a multiple of 16.
      variant: one of `VARIANTS`.
      gates: whether skips, and in the released variant the bottleneck, pass a gate.
      deformable_attention: whether the first two stages of the decoder end with it.
      channel_attention: whether the head weighs the channels of what it reads.
      multi_scale: whether the head reads three stages, or the bottleneck alone.
      encoder_weights: source of the encoder's initial weights, see `weights.find`; ``""`` draws
        them. `models.with_encoder_weights` reads it when training starts; it is never read again.
      frozen_statistics: whether the encoder's batch norms keep the running statistics that came
        with its weights. Drawn weights bring none, so they are not frozen then.
      tasks: which outputs to compute, of `types.TASKS`. With ``("cls",)`` there is no decoder.
      classes: number of classes.
    """

    width: int = 64
    variant: str = RELEASED
    gates: bool = True
    deformable_attention: bool = True
    channel_attention: bool = True
    multi_scale: bool = True
    encoder_weights: str = ""
    frozen_statistics: bool = False
    tasks: tuple[str, ...] = types.TASKS
    classes: int = len(types.CLASS_NAMES)

    # How often the resolution is halved: height and width must be multiples of 2 ** depth.
    depth = 5
    # The network that `encoder_weights` belong to, their submodule here, and their places in it.
    encoder = resnet.NAME
    encoder_scope = "encoder"
    place_encoder_weights = staticmethod(resnet.place)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> types.Outputs:
        """Applies the network.

        Args:
          image: ``(batch, height, width, 1)`` float32, grey values 0..255; height and width
            multiples of 32.
          train: whether the encoder's batch norms use the batch's statistics and update the running
            ones (collection ``batch_stats``, mutable then) or use the running ones.

        Returns:
          `types.Outputs` with one map of segmentation logits, and class logits.

        Raises:
          UserError: if ``width`` is not a multiple of 16.
        """
        if self.width % _WIDTH_MULTIPLE:
            raise UserError(
                f"model.width={self.width}: acsnet takes multiples of {_WIDTH_MULTIPLE}."
            )
        colour = jnp.repeat((image / 255 - MEAN) / DEVIATION, 3, axis=-1)
        frozen = self.frozen_statistics and self.encoder_weights != ""
        encoder = resnet.ResNet18(self.width, frozen, name="encoder")
        maps = encoder(colour, train=train)
        read, segmentation = maps[3:], ()
        if types.SEGMENTATION in self.tasks:
            first, last = self._decode(maps)
            read = [*read, first]
            segmentation = (parts.SegmentationOutput(2 * self.width, name="segment")(last),)
        class_logits = None
        if types.CLASSIFICATION in self.tasks:
            class_logits = self._classify(read)
        return types.Outputs(segmentation, class_logits, {})

    def _decode(self, maps: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The decoder's first map, of stride 16, and its last, of stride 2."""
        width = self.width
        # Channels of the upsampled map and of the stage, and its groups.
        stages = ((4, 8, 16), (2, 4, 8), (1, 2, 4), (1, 2, 4))
        image, first = maps[-1], None
        if self.gates and self.variant == RELEASED:
            image = parts.GateUnit(name="gate_bottleneck")(image)
        for number, (skip, (up, features, groups)) in enumerate(
            zip(maps[-2::-1], stages, strict=True), 1
        ):
            if self.gates:
                skip = parts.GateUnit(name=f"gate_{number}")(skip)
            up = nn.relu(blocks.convolution(image, up * width, kernel=1, name=f"up_{number}"))
            image = jnp.concatenate([skip, resampling.doubled(up)], axis=-1)
            image = parts.DecoderStage(
                features * width,
                groups,
                first_kernel=1 if number == len(stages) else 3,
                name=f"decoder_{number}",
            )(image)
            if self.deformable_attention and number <= 2:
                image = parts.DeformableAttention(name=f"attention_{number}")(image)
            first = image if first is None else first
        return first, image

    def _classify(self, maps: list[jax.Array]) -> jax.Array:
        """Class logits from encoder stages 4 and 5 and, where there is one, decoder stage 6."""
        head = parts.MultiScaleHead if self.multi_scale else parts.PlainHead
        read = maps if self.multi_scale else maps[1:2]
        return head(self.classes, self.channel_attention, name="head")(read)
