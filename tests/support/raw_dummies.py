"""Tiny raw downloads in the layouts of BUSI and BUS-UCLM, with every oddity of the real ones."""

import dataclasses
import pathlib
import sys

import numpy as np
from PIL import Image

# In Curated BUSI are benign 20, 22, 23, 24, 100, malignant 1, 2, 6, 11, normal 2, 3, 4, 6.
BUSI_NUMBERS = {
    "benign": (100, 2, 20, 22, 23, 24, 1),
    "malignant": (1, 4, 11, 2, 6),
    "normal": (6, 1, 3, 4, 2),
}


@dataclasses.dataclass
class Expected:
    """What the builder must make of one image."""

    label: str
    image: np.ndarray  # (height, width, 3) uint8
    mask: np.ndarray  # (height, width) bool


def write_busi(root: pathlib.Path) -> dict[str, Expected]:
    """Writes ``root/Dataset_BUSI_with_GT`` and returns the expected images by uid."""
    rng = np.random.default_rng(1)
    expected = {}
    for label, numbers in BUSI_NUMBERS.items():
        folder = root / "Dataset_BUSI_with_GT" / label
        folder.mkdir(parents=True)
        for position, number in enumerate(numbers):
            height, width = 20 + position, 31 + 2 * position
            image = _write_image(folder / f"{label} ({number}).png", height, width, position, rng)
            masks = [rng.random((height, width)) < 0.1 for _ in range(1 + (number == 2) * 2)]
            if label == "normal":
                masks = [np.zeros((height, width), bool)]
            for index, mask in enumerate(masks):
                suffix = f"_{index}" if index else ""
                path = folder / f"{label} ({number})_mask{suffix}.png"
                _write_mask(path, mask, mode=("1", "RGB", "RGBA")[(position + index) % 3])
            expected[f"{label}_{number}"] = Expected(label, image, np.logical_or.reduce(masks))
    return expected


def write_bus_uclm(root: pathlib.Path) -> dict[str, Expected]:
    """Writes ``root/BUS-UCLM`` and returns the expected images by uid."""
    rng = np.random.default_rng(2)
    folder = root / "BUS-UCLM"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    expected, lines = {}, ["Image;Resolution;Label;Doppler;Marks;Combined"]
    labels = ["Normal", "Benign", "Malignant"] * 4
    for position, label in enumerate(labels):
        uid = f"{['HESN', 'EFGH', 'IJKL'][position % 3 - 1]}_{position:03d}"
        height, width = 24, 36
        image = _write_image(folder / "images" / f"{uid}.png", height, width, position, rng)
        colour = {"Normal": (0, 0, 0), "Benign": (0, 255, 0), "Malignant": (255, 0, 0)}[label]
        mask = rng.random((height, width)) < (0 if label == "Normal" else 0.2)
        if position == 1:  # drawn on the stretched image, as for the real HESN_*
            drawn = rng.random((30, 42)) < 0.3
            mask = np.array(
                [[drawn[r * 30 // 24, c * 42 // 36] for c in range(36)] for r in range(24)]
            )
        else:
            drawn = mask
        Image.fromarray((drawn[..., None] * np.array(colour)).astype(np.uint8)).save(
            folder / "masks" / f"{uid}.png"
        )
        lines.append(f"{uid}.png;{width}x{height};{label};{'Y' if position == 5 else 'No'};No;No")
        expected[uid] = Expected(label.lower(), image, mask)
    (folder / "INFO.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    return expected


def edit(path: pathlib.Path, old: str, new: str) -> None:
    """Replaces text in a file, byte for byte elsewhere."""
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def _write_image(path, height, width, position, rng) -> np.ndarray:
    """Grey, RGB or RGBA in turn; returns the pixels as RGB."""
    mode = ("L", "RGB", "RGBA")[position % 3]
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = rng.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels, mode=mode).save(path)
    return np.stack([pixels] * 3, axis=-1) if mode == "L" else pixels[..., :3]


def _write_mask(path, mask, mode) -> None:
    Image.fromarray(mask).convert("L").convert(mode).save(path)


class WithoutTensorFlow:
    """A finder that hides TensorFlow; wrap every entry of ``sys.meta_path`` in one."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


def hide_tensorflow() -> None:
    """From here on this process is like one in which TensorFlow is not installed."""
    sys.meta_path[:] = [WithoutTensorFlow(finder) for finder in sys.meta_path]
