"""From a decoded picture to the network's input: the one definition training and prediction share.

Everything here works on host arrays and follows Aumente-Maestro et al. 2025 as released: ITU-R 601
luma, nearest-neighbour resizing in OpenCV's sense, grey values 0..255 without normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# ITU-R BT.601 luma in 16-bit fixed point, as Pillow and libjpeg compute it. The weights sum to
# 2**16, so a picture whose channels are equal keeps its values exactly.
_LUMA_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.uint32)


def to_greyscale(image: np.ndarray) -> np.ndarray:
    """Greyscale by ITU-R 601 luma, rounded to the nearest grey value; an alpha channel is ignored.

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
    return ((rgb @ _LUMA_WEIGHTS + 0x8000) >> 16).astype(np.uint8)


def merge_masks(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Union of the mask files of one image: a pixel is tumour where any file has a value > 0.

    Args:
      masks: at least one array, each bool or uint8, grey, RGB or RGBA, all of one height and
        width. The alpha channel of an RGBA mask is ignored (it is opaque everywhere).

    Returns:
      ``(height, width)`` bool.

    Raises:
      ValueError: if there is no mask or the sizes differ.
    """
    if not masks:
        raise ValueError("no mask to merge")
    planes = []
    for mask in masks:
        plane = mask[..., :3].any(axis=-1) if mask.ndim == 3 else mask > 0
        planes.append(plane)
    if len({plane.shape for plane in planes}) > 1:
        raise ValueError(f"masks of one image differ in size: {[p.shape for p in planes]}")
    return np.logical_or.reduce(planes)


def resize_nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resizing in OpenCV's sense: source index = floor(i · source / target).

    Args:
      array: ``(source_height, source_width, ...)``.
      height: target height in pixels.
      width: target width in pixels.

    Returns:
      ``(height, width, ...)`` of the same type.
    """
    # Integer arithmetic: the float product can land just below a whole number.
    row = np.arange(height) * array.shape[0] // height
    col = np.arange(width) * array.shape[1] // width
    return array[row[:, None], col[None, :]]
