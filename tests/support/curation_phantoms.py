"""A small archive of phantoms with planted copies and look-alikes, for the curation tests."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mtbus_jax.images.phantom import make_phantoms
from mtbus_jax.types import CLASS_NAMES

# What is planted: name of the copy → how it is made from its original.
COPIES = (
    "identical",
    "reencoded",
    "resized",
    "enlarged",
    "cropped",
    "shifted",
    "brighter",
    "mirrored",
)


@functools.cache
def phantoms(count: int = 24):
    """The first phantoms, made once per test run."""
    return tuple(make_phantoms(count, seed=7))


def make_copy(kind: str, image: np.ndarray) -> Image.Image:
    """One planted copy of a ``(height, width)`` uint8 image."""
    height, width = image.shape
    picture = Image.fromarray(image)
    if kind in ("identical", "reencoded"):
        return picture
    if kind == "resized":
        return picture.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
    if kind == "enlarged":
        return picture.resize((width * 3 // 2, height * 3 // 2), Image.Resampling.BICUBIC)
    if kind == "cropped":
        return picture.crop((width // 8, height // 10, width, height * 8 // 10))
    if kind == "shifted":
        moved = np.zeros_like(image)
        moved[23:, 41:] = image[:-23, :-41]
        return Image.fromarray(moved)
    if kind == "brighter":
        return Image.fromarray(np.rint(255 * (image / 255) ** 0.7).astype(np.uint8))
    if kind == "mirrored":
        return Image.fromarray(np.ascontiguousarray(image[:, ::-1]))
    raise ValueError(kind)


def original_of(kind: str):
    """The phantom that a planted copy is made from."""
    return phantoms()[3 * COPIES.index(kind)]


def write_archive(root: Path) -> list[set[str]]:
    """Writes the archive in the layout of BUSI.

    Besides the phantoms and one copy of each kind it holds pairs that are no copies and look it:
    two that share a caption, and two that are nearly black.

    Returns:
      The sets of uids that show one frame.
    """
    captioned, dark = {1, 4}, {2, 5}
    for number, phantom in enumerate(phantoms()):
        name = CLASS_NAMES[phantom.label]
        stem = f"{name} ({phantom.uid.rsplit('_', 1)[1]})"
        (root / name).mkdir(parents=True, exist_ok=True)
        image = phantom.image.copy()
        if number in captioned:
            picture = Image.fromarray(image)
            ImageDraw.Draw(picture).text((20, 20), "RIGHT BREAST 12 H", fill=255)
            image = np.array(picture)
        if number in dark:
            image = image // 12
        Image.fromarray(image).save(root / name / f"{stem}.png")
        for k, mask in enumerate(phantom.masks):
            suffix = "_mask" if k == 0 else f"_mask_{k}"
            Image.fromarray(mask).save(root / name / f"{stem}{suffix}.png")
    sets = []
    for k, kind in enumerate(COPIES):
        phantom = original_of(kind)
        name = CLASS_NAMES[phantom.label]
        path = root / name / f"{name} ({900 + k})"
        copy = make_copy(kind, phantom.image)
        if kind == "reencoded":
            copy.save(path.with_suffix(".jpg"), quality=55)
        else:
            copy.save(path.with_suffix(".png"))
        sets.append({phantom.uid, f"{name}_{900 + k}"})
    return sets
