"""One training step of MT UNet++ in PyTorch, as a side of train_step.py.

    python peer_train.py BATCH.npz published|best [--device=cuda] [--autocast]

"published" is eager mode in PyTorch's default layout, as the released code runs. The other settings
use more of what PyTorch offers: "huge_pages" is as published with memory from transparent huge
pages (PyTorch's THP_MEM_ALLOC_ENABLE), "channels_last", "compiled" (the whole network in one graph)
with the fused Adam, "compiled_channels_last", and "best" with all of these and cuDNN autotuning.
"""

from __future__ import annotations

import argparse

import numpy as np
import side_by_side
import torch
import torch_unetpp

SETTINGS = (
    "published",
    "huge_pages",
    "channels_last",
    "compiled",
    "compiled_channels_last",
    "best",
)


def main() -> None:
    """Prepares the step and serves it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("arrays")
    parser.add_argument("settings", choices=SETTINGS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true", help="bfloat16 where PyTorch allows it")
    options = parser.parse_args()
    arrays = np.load(options.arrays)
    device = torch.device(options.device)
    net = torch_unetpp.MultiTask(width=int(arrays["width"]))
    torch_unetpp.load_flax(net, {k[6:]: arrays[k] for k in arrays if k.startswith("param:")})
    layout = torch.contiguous_format
    if options.settings in ("channels_last", "compiled_channels_last", "best"):
        layout = torch.channels_last
    net = net.to(device, memory_format=layout)

    def planes(name):
        tensor = torch.from_numpy(arrays[name].astype(np.float32).transpose(0, 3, 1, 2).copy())
        return tensor.to(device, memory_format=layout)

    image, mask = planes("image"), planes("mask")
    label = torch.from_numpy(arrays["label"].astype(np.int64)).to(device)
    run = net
    compiled = options.settings in ("compiled", "compiled_channels_last", "best")
    if compiled:
        net.one_graph = True
        run = torch.compile(net, dynamic=False, fullgraph=True)
    torch.backends.cudnn.benchmark = options.settings == "best"
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, eps=1e-4, fused=compiled or None)
    loss = None

    def step():
        nonlocal loss
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.autocast):
            maps, class_logits = run(image)
            maps, class_logits = [m.float() for m in maps], class_logits.float()
        loss = torch_unetpp.losses(maps, class_logits, mask, label)[0]
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    history = []
    for _ in range(3):  # compiles and tunes; the losses show that both sides do the same work
        step()
        history.append(loss.item())
    side_by_side.serve(
        step, {"losses": history, "torch": torch.__version__, "threads": torch.get_num_threads()}
    )


if __name__ == "__main__":
    main()
