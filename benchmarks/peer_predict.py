"""Prediction of PNG files in PyTorch, as a side of predict.py.

    python peer_predict.py WEIGHTS.npz PICTURES OUT published --batch=32

Pillow decodes and writes, NumPy picks the pixels that the network sees, as this library does. The
mask is thresholded at the network's size and enlarged by repeating pixels, which is less work than
the interpolation of this library. Settings: ``published``; ``channels_last``, the memory layout;
``two_threads``: two batches at once go through the network, each with half of the cores;
``compiled``: the whole network in one graph with frozen weights; ``best``: compiled in that layout,
with memory from transparent huge pages (predict.py sets what they take in the environment).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import side_by_side
import torch
import torch_unetpp
from PIL import Image

SETTINGS = ("published", "channels_last", "two_threads", "compiled", "best")


def main() -> None:
    """Prepares the prediction, times its parts and serves it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", choices=SETTINGS)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    arrays = np.load(options.weights)
    height, width = arrays["image_size"]
    device = torch.device(options.device)
    net = torch_unetpp.MultiTask(width=int(arrays["width"])).eval()
    torch_unetpp.load_flax(net, {k[6:]: arrays[k] for k in arrays if k.startswith("param:")})
    channels_last = options.settings in ("channels_last", "best")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    workers = 2 if options.settings == "two_threads" else 1
    threads = max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(threads)
    net = net.to(device, memory_format=layout)
    run = net
    if options.settings in ("compiled", "best"):
        net.one_graph = True
        run = torch.compile(net, dynamic=False, fullgraph=True)
    paths = sorted(options.pictures.iterdir())
    batches = [paths[i : i + options.batch] for i in range(0, len(paths), options.batch)]

    def decode(paths: list[Path]) -> list[np.ndarray]:
        greys = []
        for path in paths:
            with Image.open(path) as picture:
                greys.append(np.asarray(picture.convert("L")))
        return greys

    def resize(greys: list[np.ndarray]) -> np.ndarray:
        small = []
        for grey in greys:
            row = np.arange(height) * grey.shape[0] // height
            col = np.arange(width) * grey.shape[1] // width
            small.append(grey[row[:, None], col])
        return np.stack(small)

    @torch.inference_mode()
    def network(small: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = torch.from_numpy(small[:, None]).float().to(device, memory_format=layout)
        maps, logits = run(image)
        mask = torch.sigmoid(maps[-1][:, 0]) > 0.5
        probability = torch.softmax(logits, dim=1)
        return mask.cpu().numpy(), probability.cpu().numpy(), logits.argmax(dim=1).cpu().numpy()

    def enlarge(masks: np.ndarray, greys: list[np.ndarray]) -> list[Image.Image]:
        pairs = zip(masks, greys, strict=True)
        return [
            Image.fromarray(mask).resize(grey.shape[::-1], Image.Resampling.NEAREST)
            for mask, grey in pairs
        ]

    def write(paths: list[Path], masks: list[Image.Image]) -> None:
        for path, mask in zip(paths, masks, strict=True):
            mask.save(options.out / path.name)

    def whole(paths: list[Path]) -> None:
        greys = decode(paths)
        masks, _, _ = network(resize(greys))
        write(paths, enlarge(masks, greys))

    # The number of threads holds for the thread that sets it.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
    in_turn = pool.map if workers > 1 else map

    def step() -> None:
        for _ in in_turn(whole, batches):
            pass

    def all_networks() -> list[tuple[np.ndarray, ...]]:
        chunks = (small[i : i + options.batch] for i in range(0, len(paths), options.batch))
        return list(in_turn(network, chunks))

    step()
    greys = decode(paths)
    small = resize(greys)
    masks, probability, _ = map(np.concatenate, zip(*all_networks(), strict=True))
    large = enlarge(masks, greys)
    parts = {
        "decode": lambda: decode(paths),
        "resize": lambda: resize(greys),
        "network": all_networks,
        "enlarge": lambda: enlarge(masks, greys),
        "write": lambda: write(paths, large),
    }
    side_by_side.serve(
        step,
        {
            "stages": {name: side_by_side.median_seconds(part) for name, part in parts.items()},
            "class_probability": probability.tolist(),
            "area": masks.sum(axis=(1, 2)).tolist(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
    )


if __name__ == "__main__":
    main()
