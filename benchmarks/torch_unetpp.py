"""MT UNet++ in PyTorch: MONAI's UNet++ blocks, the released head, the same losses.

The peer of the benchmarks and the source of the tests' stored values; needs torch and monai
(requirements.txt in this folder), which the library does not. The backbone is MONAI's
BasicUNetPlusPlus, whose classes are also used for the head as released with Aumente-Maestro et al.
2025: a down block shared by encoder and decoder features, concatenation in the order encoder,
bottleneck, decoder, a block, mean pool, two dense layers.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.nets.basic_unet import Down, TwoConv
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

ACT = ("LeakyReLU", {"negative_slope": 0.1, "inplace": False})
NORM = ("instance", {"affine": True})


class MultiTask(torch.nn.Module):
    """Backbone and head."""

    def __init__(self, width: int = 24, head_features: int = 512, classes: int = 3):
        """Builds the layers.

        Args:
          width: channels of row 0.
          head_features: channels of the head's map.
          classes: number of classes.
        """
        super().__init__()
        # MONAI's UpCat checks types and pads odd sizes, and each of its calls would break the
        # graph of torch.compile. Without these it computes the same for multiples of 16.
        self.one_graph = False
        features = [width * 2**i for i in range(5)] + [width]
        self.backbone = BasicUNetPlusPlus(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            features=features,
            deep_supervision=True,
            act=ACT,
            norm=NORM,
        )
        deep = features[4]
        self.head_down = Down(2, features[3], deep, ACT, NORM, True, 0.0)
        self.head_block = TwoConv(2, 3 * deep, head_features, ACT, NORM, True, 0.0)
        self.hidden = torch.nn.Linear(head_features, 256)
        self.logits = torch.nn.Linear(256, classes)

    def forward(self, image):
        """Segmentation maps, coarsest column first, and class logits.

        MONAI's own forward pass, node by node: hooks that keep what the head reads would break the
        graph of torch.compile.
        """
        net = self.backbone
        node = {(0, 0): net.conv_0_0(image)}
        for i in range(1, 5):
            node[i, 0] = getattr(net, f"conv_{i}_0")(node[i - 1, 0])
        for j in range(1, 5):
            for i in range(4 - j, -1, -1):
                skips = torch.cat([node[i, k] for k in range(j)], dim=1)
                up = getattr(net, f"upcat_{i}_{j}")
                if self.one_graph:
                    node[i, j] = up.convs(torch.cat([skips, up.upsample(node[i + 1, j - 1])], 1))
                else:
                    node[i, j] = up(node[i + 1, j - 1], skips)
        maps = [getattr(net, f"final_conv_0_{j}")(node[0, j]) for j in range(1, 5)]
        encoder, decoder = (self.head_down(node[3, j]) for j in (0, 1))
        features = torch.cat([encoder, node[4, 0], decoder], dim=1)  # the released order
        pooled = self.head_block(features).mean(dim=(2, 3))
        return maps, self.logits(torch.relu(self.hidden(pooled)))


_dice = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0)


def losses(maps, class_logits, mask, label, *, weight: float = 0.85):
    """Total, segmentation and focal loss, each a mean over the batch."""
    segmentation = sum(_dice(m, mask) / i for i, m in enumerate(reversed(maps), start=1))
    rows = torch.arange(len(label), device=label.device)
    log_p = torch.log_softmax(class_logits, dim=1)[rows, label]
    focal = ((1 - log_p.exp()) ** 2 * -log_p).mean()
    return weight * segmentation + (1 - weight) * focal, segmentation, focal


def flax_name(name: str) -> str:
    """A PyTorch parameter's name → its path in the library's tree."""
    parts = name.removeprefix("backbone.").split(".")
    owner = parts[0]
    leaf = parts[-1]
    if owner.startswith("final_conv"):
        path = [owner.replace("final_conv", "segment")]
    elif owner in ("hidden", "logits"):
        path = ["classifier", owner]
    elif "upsample" in parts:
        path = [owner.replace("upcat", "up"), "deconv"]
    else:
        row, column = owner.split("_")[-2:] if owner[0] in "cu" else (None, None)
        block = [owner] if row is None else [f"node_{row}_{column}"]
        inner = (row not in (None, "0") and column == "0") or owner == "head_down"
        number = next(p for p in parts if p in ("conv_0", "conv_1"))[-1]
        kind = "norm" if "adn" in parts else "conv"
        path = [*block, *(["block"] if inner else []), f"{kind}_{int(number) + 1}"]
    if leaf == "weight":
        leaf = "scale" if path[-1].startswith("norm") else "kernel"
    return "/".join([*path, leaf])


def flax_value(value: torch.Tensor) -> np.ndarray:
    """A PyTorch tensor in the library's layout, (row, column, in, out) for convolutions."""
    array = value.detach().cpu().numpy()
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # with transpose_kernel=True, deconvolutions too
    return array.T if array.ndim == 2 else array


def load_flax(net: torch.nn.Module, values: dict[str, np.ndarray]) -> None:
    """Sets the parameters from arrays under the library's paths, in its layouts."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            value = values[flax_name(name)]
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            elif value.ndim == 2:
                value = value.T
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
