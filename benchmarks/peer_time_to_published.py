"""Trains Lite U-Net on one fold in PyTorch, as a side of time_to_published.py.

    python peer_time_to_published.py FOLDER eager|best

FOLDER was written by peer_batches.py. Its batches are already augmented, so this side spends
nothing on augmentation. "eager" is PyTorch with its defaults; "best" adds the channels-last layout
and the fused AdamW (and huge pages, which time_to_published.py sets in the environment). Prints
lines of JSON: facts first, among them the losses of three steps without dropout, which are not
timed; then a row for each epoch (see `reaching`), and finally that training finished.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import reaching
import torch
import torch_lite_unet

SETTINGS = ("eager", "best")


class Training:
    """Network, optimiser and the batches."""

    def __init__(self, net: torch_lite_unet.LiteUNet, folder: Path, meta: dict, *, best: bool):
        """Opens the files; ``best`` selects the settings of that name."""
        self.net, self._meta = net, meta
        self.arrays = np.load(folder / "arrays.npz")
        self.image = np.load(folder / "image.npy", mmap_mode="r")
        self.mask = np.load(folder / "mask.npy", mmap_mode="r")
        self.label, self.valid = self.arrays["label"], self.arrays["valid"]
        self.rate = self.arrays["rate"]
        self.optimizer = torch.optim.AdamW(
            torch_lite_unet.parameter_groups(
                net, weight_decay=meta["weight_decay"], encoder_rate=meta["encoder_rate"]
            ),
            betas=(meta["adam_b1"], meta["adam_b2"]),
            eps=meta["adam_epsilon"],
            fused=best or None,
        )

    def step(self, number: int) -> torch.Tensor:
        """One optimiser step on batch ``number``; its loss."""
        image, mask = (
            torch.from_numpy(array[number][:, None].astype(np.float32))
            for array in (self.image, self.mask)
        )
        label, valid = (torch.from_numpy(array[number]) for array in (self.label, self.valid))
        self.optimizer.zero_grad()
        maps, class_logits = self.net(image)
        loss = torch_lite_unet.losses(maps, class_logits, mask, label, valid, **self._meta["loss"])
        loss.backward()
        if self._meta["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self._meta["clip_norm"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate[number] * group["scale"]
        self.optimizer.step()
        return loss.detach()

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """See `reaching.figures`."""
        self.net.eval()
        size = self._meta["eval_batch"]
        image = torch.from_numpy(self.arrays["validation_image"][:, None].astype(np.float32))
        masks, classes = [], []
        for part in image.split(size):
            maps, class_logits = self.net(part)
            masks.append(torch.sigmoid(maps[0][:, 0]) > 0.5)
            classes.append(class_logits.argmax(dim=1))
        return reaching.figures(
            torch.cat(masks).numpy(),
            torch.cat(classes).numpy(),
            self.arrays["validation_mask"] > 0,
            self.arrays["validation_label"],
            normal=self._meta["normal"],
        )


def first_losses(net, folder: Path, meta: dict, *, best: bool) -> list[float]:
    """Losses of three steps without dropout, on a copy of the network."""
    training = Training(copy.deepcopy(net).train(), folder, meta, best=best)
    training.net.dropout.eval()
    return [training.step(number).item() for number in range(3)]


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", choices=SETTINGS)
    options = parser.parse_args()
    begun = time.monotonic()
    meta = json.loads((options.folder / "meta.json").read_text())
    best = options.settings == "best"
    torch.manual_seed(0)
    net = torch_lite_unet.LiteUNet(meta["classes"], frozen_statistics=meta["frozen_statistics"])
    net.encoder.load_imagenet(meta["encoder_weights"])
    arrays = np.load(options.folder / "arrays.npz")
    values = {name[6:]: arrays[name] for name in arrays if name.startswith("value:")}
    torch_lite_unet.load_flax(net, values)
    net = net.to(memory_format=torch.channels_last if best else torch.contiguous_format)
    training = Training(net, options.folder, meta, best=best)
    facts = {
        "start_seconds": time.process_time(),
        "validation_images": len(arrays["validation_label"]),
        "parameters": sum(p.numel() for p in net.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    not_timed, clock = -time.process_time(), -time.monotonic()
    facts["losses"] = first_losses(net, options.folder, meta, best=best)
    not_timed, clock = not_timed + time.process_time(), clock + time.monotonic()
    print(json.dumps(facts), flush=True)
    steps = len(training.rate) // meta["epochs"]
    for epoch in range(meta["epochs"]):
        net.train()
        for number in range(epoch * steps, (epoch + 1) * steps):
            training.step(number)
        row = {
            "epoch": epoch + 1,
            **training.validate(),
            "processor_seconds": time.process_time() - not_timed,
            "seconds": time.monotonic() - begun - clock,
        }
        print(json.dumps(row), flush=True)
    print(json.dumps({"finished": True}), flush=True)


if __name__ == "__main__":
    main()
