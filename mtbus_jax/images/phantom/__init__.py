"""The embedded dataset ``phantom``: simulated breast ultrasound with exact masks, made from a seed.

Not for medical use and no substitute for patients: it lets the library run, train and be tested
without a real dataset. A picture is drawn in three steps: a breast of layered tissue
(`tissue`), lesions in it (`lesion`) and a scan of both (`scanner`). The class
shows in shape, orientation, margin, echo pattern and posterior features, as in the BI-RADS
ultrasound lexicon; fat lobules, shadows of ligaments and ribs can be mistaken for lesions.

``python -m mtbus_jax.images.phantom --contact_sheet=sheet.png`` writes a page of examples.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError, unwritable
from mtbus_jax.images.phantom.lesion import draw_lesions
from mtbus_jax.images.phantom.scanner import draw_scanner, scan
from mtbus_jax.images.phantom.tissue import draw_anatomy

# Shares of the classes, in the order of `types.CLASS_NAMES`: 112, 80 and 48 of 240 images.
CLASS_SHARES = (7, 5, 3)

MIN_HEIGHT, MAX_HEIGHT = 160, 260
MIN_WIDTH, MAX_WIDTH = 200, 340

_OUTLINE_COLOUR = (255, 200, 40)


@dataclasses.dataclass(frozen=True, eq=False)
class Phantom:
    """One simulated image.

    Attributes:
      uid: class name and number from 1 within the class, such as ``benign_1``.
      image: ``(height, width)`` uint8, grey values 0..255; the height is 160 to 260 pixels, the
        width 200 to 340 pixels and larger than the height.
      masks: one ``(height, width)`` bool array per lesion, disjoint; empty for `types.NORMAL`.
      label: index into `types.CLASS_NAMES`.
    """

    uid: str
    image: np.ndarray
    masks: tuple[np.ndarray, ...]
    label: int


def phantom_plan(count: int = 240) -> list[tuple[str, int]]:
    """Names and classes of a dataset of ``count`` images: benign, then malignant, then normal.

    The classes have the shares `CLASS_SHARES`, rounded by the largest remainder. A uid means the
    same image in a dataset of any size.

    Args:
      count: number of images, ≥ 0.

    Returns:
      ``count`` pairs of uid and label.

    Raises:
      ValueError: if ``count`` is negative.
    """
    if count < 0:
        raise ValueError(f"the number of images cannot be negative, got {count}")
    total = sum(CLASS_SHARES)
    numbers = [count * share // total for share in CLASS_SHARES]
    by_remainder = sorted(
        range(len(numbers)), key=lambda code: -(count * CLASS_SHARES[code] % total)
    )
    for label in by_remainder[: count - sum(numbers)]:
        numbers[label] += 1
    return [
        (_uid(index, label), label)
        for label, number in enumerate(numbers)
        for index in range(number)
    ]


def make_phantom(index: int, *, label: int, seed: int = 0) -> Phantom:
    """Makes one image; the same arguments give the same image, whatever else is made.

    Args:
      index: number of the image within its class, from 0; the uid counts from 1.
      label: `types.BENIGN`, `types.MALIGNANT` or `types.NORMAL`.
      seed: seed of the dataset, ≥ 0.

    Returns:
      The image with its masks.

    Raises:
      ValueError: for an unknown label or a negative index.
    """
    if label not in range(len(types.CLASS_NAMES)):
        known = ", ".join(f"{code} ({name})" for code, name in enumerate(types.CLASS_NAMES))
        raise ValueError(f"unknown label {label}; the labels are {known}")
    if index < 0:
        raise ValueError(f"the index within a class counts from 0, got {index}")
    rng = np.random.default_rng([seed, label, index])
    height = int(rng.integers(MIN_HEIGHT, MAX_HEIGHT + 1))
    # Always wider than tall, as the field of view of a linear array is on most screens.
    width = int(rng.integers(max(MIN_WIDTH, height * 11 // 10), MAX_WIDTH + 1))
    scanner = draw_scanner(rng, height, width)
    anatomy = draw_anatomy(rng, height, width, scanner.pitch)
    tissue, masks = anatomy.tissue, ()
    if label != types.NORMAL:
        tissue, masks = draw_lesions(rng, anatomy, label, scanner.pitch)
    return Phantom(_uid(index, label), scan(tissue, scanner, rng), masks, label)


def make_phantoms(count: int = 240, *, seed: int = 0) -> Iterator[Phantom]:
    """Makes the images of `phantom_plan`, one at a time and in its order.

    Args:
      count: number of images, ≥ 0.
      seed: seed of the dataset, ≥ 0.

    Yields:
      The images.

    Raises:
      ValueError: if ``count`` is negative.
    """
    for uid, label in phantom_plan(count):
        yield make_phantom(int(uid.rpartition("_")[2]) - 1, label=label, seed=seed)


def _uid(index: int, label: int) -> str:
    """The uid of image ``index``, from 0, of a class."""
    return f"{types.CLASS_NAMES[label]}_{index + 1}"


def write_contact_sheet(path: str | pathlib.Path, *, columns: int = 6, seed: int = 0) -> None:
    """Writes a PNG with the first ``columns`` images of each class, lesions outlined underneath.

    Args:
      path: file to write; its folder must exist.
      columns: images per class, ≥ 1.
      seed: seed of the dataset.
    """
    from PIL import Image, ImageDraw, ImageFont

    tile_height, tile_width, gap, margin = 164, 224, 4, 26
    strips: list[tuple[str, list[Image.Image]]] = []
    for label, name in enumerate(types.CLASS_NAMES):
        phantoms = [make_phantom(index, label=label, seed=seed) for index in range(columns)]
        strips.append((name, [_tile(p, tile_height, tile_width, outlined=False) for p in phantoms]))
        if label != types.NORMAL:
            tiles = [_tile(p, tile_height, tile_width, outlined=True) for p in phantoms]
            strips.append(("outlined", tiles))

    size = (margin + columns * (tile_width + gap), len(strips) * (tile_height + gap) + gap)
    sheet = Image.new("RGB", size, "black")
    font = ImageFont.load_default(size=15)
    for number, (name, tiles) in enumerate(strips):
        top = gap + number * (tile_height + gap)
        text = Image.new("RGB", (tile_height, margin), "black")
        middle = (tile_height // 2, margin // 2)
        ImageDraw.Draw(text).text(middle, name, fill="white", font=font, anchor="mm")
        sheet.paste(text.rotate(90, expand=True), (0, top))
        for column, tile in enumerate(tiles):
            left = margin + column * (tile_width + gap) + (tile_width - tile.width) // 2
            sheet.paste(tile, (left, top + (tile_height - tile.height) // 2))
    # Speckle does not compress; fewer greys than the eye can tell apart here keep the file small.
    greys = [value for grey in np.linspace(0, 255, 40).round() for value in [int(grey)] * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys, *_OUTLINE_COLOUR])
    sheet = sheet.quantize(palette=palette, dither=Image.Dither.NONE)
    sheet.save(path, format="PNG", optimize=True)


def _tile(phantom: Phantom, height: int, width: int, *, outlined: bool):
    """The image as a Pillow picture within ``height`` × ``width``, optionally with outlines."""
    from PIL import Image, ImageFilter

    tile = Image.fromarray(phantom.image).convert("RGB")
    scale = min(height / tile.height, width / tile.width)
    size = (round(tile.width * scale), round(tile.height * scale))
    tile = tile.resize(size, Image.Resampling.LANCZOS)
    if outlined:
        for mask in phantom.masks:
            small = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BILINEAR)
            solid = small.point(lambda value: 255 * (value > 127))
            wider = solid.filter(ImageFilter.MaxFilter(3))
            outline = np.asarray(wider) > np.asarray(solid)
            tile.paste(_OUTLINE_COLOUR, mask=Image.fromarray(outline).convert("L"))
    return tile


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: writes the contact sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m mtbus_jax.images.phantom", description=main.__doc__
    )
    parser.add_argument("--contact_sheet", required=True, metavar="PATH", help="PNG to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the dataset (default 0)")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        raise UserError(f"--seed={arguments.seed} must be at least 0.")
    try:
        write_contact_sheet(arguments.contact_sheet, seed=arguments.seed)
    except OSError as error:
        raise unwritable(f"--contact_sheet={arguments.contact_sheet}", error) from None
