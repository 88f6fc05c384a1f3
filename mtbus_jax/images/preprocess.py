"""From a decoded picture to the network's input, in one definition for training and prediction.

Everything here works on host arrays and reproduces the released code of Aumente-Maestro et al. 2025
to the pixel: OpenCV's grey values and nearest neighbours, and grey values 0..255 without
normalisation. `docs/parity.md` says what was compared. A run can ask for the mean over an area
instead of the nearest neighbour, and for enhanced pictures; masks always use nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.images.enhancement import enhance

# ITU-R BT.601 luma in 15-bit fixed point, weights and sum truncated instead of rounded. OpenCV
# (4.10, 5.0) gives the same values for all 2**24 colours when it reads a coloured PNG file as grey.
# The weights sum to 2**15, so a picture whose channels are equal keeps its values exactly.
_LUMA_WEIGHTS = np.array([9797, 19234, 3737], dtype=np.uint32)
_LUMA_BITS = 15

# A mask whose largest value is at most this holds class numbers; grey values are larger.
_MOST_CLASSES = 15

# How an image becomes smaller, by the value of `data.resize`.
NEAREST, AREA = "nearest", "area"
RESIZES = (NEAREST, AREA)


def to_greyscale(image: np.ndarray) -> np.ndarray:
    """Greyscale by ITU-R 601 luma, (9797 R + 19234 G + 3737 B) >> 15; an alpha channel is ignored.

    Args:
      image: uint8, ``(height, width)``, ``(height, width, 1)`` or ``(height, width, 3 or 4)``.

    Returns:
      ``(height, width)`` uint8.

    Raises:
      ValueError: for another type or shape.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"expected an 8-bit image, got {image.dtype}")
    if image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"expected a grey, RGB or RGBA image, got an array of shape {image.shape}")
    if image.shape[-1] == 1:
        return image[..., 0]
    rgb = image[..., :3].astype(np.uint32)
    return ((rgb @ _LUMA_WEIGHTS) >> _LUMA_BITS).astype(np.uint8)


def lesion_of(mask: np.ndarray) -> tuple[np.ndarray, bool]:
    """Which pixels of a mask file are lesion.

    * black and one other value, such as 0 and 1 or 0 and 255: everything that is not black;
    * small numbers, at most 15, such as class numbers: everything but 0;
    * values in between, as left by JPEG or resizing with soft edges: everything above half of the
      largest. To count every grey pixel of an edge would make a small lesion much larger.

    A coloured pixel counts by its brightest channel, so red and green are alike.

    Args:
      mask: bool or uint8, ``(height, width)`` or ``(height, width, 1, 3 or 4)``; alpha is ignored.

    Returns:
      ``(height, width)`` bool, and whether there were values in between.
    """
    plane = mask if mask.ndim == 2 else mask[..., :3].max(axis=-1)
    if plane.dtype == bool:
        return plane, False
    values = np.flatnonzero(np.bincount(plane.ravel()))
    numbers = values[0] == 0 and (len(values) == 2 or values[-1] <= _MOST_CLASSES)
    if numbers or len(values) == 1:
        return plane > 0, False
    return plane > values[-1] / 2, True


def merge_masks(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Union of the mask files of one image.

    Args:
      masks: at least one array as `lesion_of` takes them, all of one height and width.

    Returns:
      ``(height, width)`` bool.

    Raises:
      ValueError: if there is no mask or the sizes differ.
    """
    if not masks:
        raise ValueError("no mask to merge")
    planes = [lesion_of(mask)[0] for mask in masks]
    if len({plane.shape for plane in planes}) > 1:
        raise ValueError(f"masks of one image differ in size: {[p.shape for p in planes]}")
    return np.logical_or.reduce(planes)


def to_input(
    image: np.ndarray, height: int, width: int, *, resizing: str, enhancement: str
) -> np.ndarray:
    """A grey picture as the network sees it: enhanced at its own size, then resized.

    Args:
      image: ``(source_height, source_width)`` uint8.
      height: target height in pixels.
      width: target width in pixels.
      resizing: one of `RESIZES`.
      enhancement: one of `enhancement.ENHANCEMENTS`.

    Returns:
      ``(height, width)`` uint8.
    """
    return resize(enhance(image, method=enhancement), height, width, method=resizing)


def resize(image: np.ndarray, height: int, width: int, *, method: str) -> np.ndarray:
    """Resizes an image.

    Args:
      image: ``(source_height, source_width)`` uint8.
      height: target height in pixels.
      width: target width in pixels.
      method: one of `RESIZES`.

    Returns:
      ``(height, width)`` uint8.
    """
    methods = {NEAREST: resize_nearest, AREA: resize_area}
    if method not in methods:
        raise UserError(f"resize={method!r} is unknown. Known: {', '.join(methods)}.")
    return methods[method](image, height, width)


def resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel is the mean over the area of the image that it covers, rounded half up.

    Partly covered pixels count in proportion. The sums are whole numbers far below 2⁵³, so every
    machine computes the same, in any order.

    Args:
      image: ``(source_height, source_width)`` uint8.
      height: target height in pixels.
      width: target width in pixels.

    Returns:
      ``(height, width)`` uint8.
    """
    rows, cols = _overlaps(image.shape[0], height), _overlaps(image.shape[1], width)
    total = (rows @ image.astype(np.float64) @ cols.T).astype(np.int64)
    count = image.shape[0] * image.shape[1]
    return ((2 * total + count) // (2 * count)).astype(np.uint8)


def _overlaps(source: int, target: int) -> np.ndarray:
    """``(target, source)``: share of each source pixel in each target pixel, in units of 1/target.

    On a line of source · target parts, a source pixel covers ``target`` parts and a target pixel
    ``source`` parts.
    """
    start, pixel = np.arange(target)[:, None] * source, np.arange(source) * target
    common = np.minimum(start + source, pixel + target) - np.maximum(start, pixel)
    return np.maximum(common, 0).astype(np.float64)


def resize_nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resizing as in OpenCV: takes the rows and columns that `sampled` gives.

    Args:
      array: ``(source_height, source_width, ...)``.
      height: target height in pixels.
      width: target width in pixels.

    Returns:
      ``(height, width, ...)`` of the same type.
    """
    row, col = sampled(array.shape[0], height), sampled(array.shape[1], width)
    return array[row[:, None], col[None, :]]


def sampled(source: int, target: int) -> np.ndarray:
    """The rows, or columns, that nearest-neighbour resizing takes: ⌊i · (1 / (target / source))⌋.

    Computed in double precision, with both divisions, like OpenCV's ``INTER_NEAREST``. For some
    sizes a product is just below a whole number, and the pixel before it is taken: at 128 pixels
    for 33 of the lengths from 130 to 1099.

    Args:
      source: length in pixels.
      target: length in pixels after resizing.

    Returns:
      ``(target,)`` int, never decreasing, each from 0 to ``source`` - 1.
    """
    step = 1.0 / (target / source)
    return np.minimum(np.floor(np.arange(target) * step).astype(int), source - 1)
