"""Masks from picture files: which pixels are lesion, whatever values the file says it with."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mtbus_jax.images.frame import MAX_PIXELS, ReadError

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")


class Mask(NamedTuple):
    """One mask file.

    Attributes:
      pixels: ``(height, width)`` bool, True where there is lesion.
      notes: what a person should look at, in words.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]


def read_mask(path: str | os.PathLike[str], *, codes: bool = False) -> Mask:
    """Reads a mask.

    A colour counts by its brightest channel, so that any colour but black is lesion. Where a
    picture is transparent it is background; one that is drawn in its alpha channel alone, its
    colours being all the same, is read from there.

    Of two values the larger is lesion, and of a single one everything but 0. More than two come
    from smoothed edges or from JPEG: lesion is then what exceeds half of the largest value, which
    keeps the outline where it was drawn, and a note says so.

    Args:
      path: of a PNG, JPEG, TIFF, BMP or GIF file.
      codes: the values are numbers of regions, as nnU-Net stores them: all but 0 are lesion.

    Raises:
      ReadError: if the file cannot be read.
    """
    path = Path(path)
    values = _brightness(path)
    found = np.unique(values)
    if codes or len(found) == 1:
        notes = ("the mask covers the whole picture",) if found[0] != 0 else ()
        return Mask(values != 0, notes)
    if len(found) == 2:
        return Mask(values == found[1], ())
    return Mask(
        values > found[-1] / 2,
        (f"the mask has {len(found)} values; those above half of the largest are lesion",),
    )


def _brightness(path: Path) -> np.ndarray:
    """``(height, width)`` numbers ≥ 0, 0 where the file is black or transparent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                mode = picture.mode
                if mode in ("P", "PA", "LA", "RGBa", "La"):
                    picture = picture.convert("RGBA")
                elif mode not in ("1", "L", "RGB", "RGBA", "F") and not mode.startswith("I"):
                    picture = picture.convert("RGB")
                pixels = np.array(picture)
    except Image.DecompressionBombError:
        raise ReadError(path, f"has more than {MAX_PIXELS // 10**6} million pixels") from None
    except Exception as error:  # a cut or damaged file raises nearly anything in Pillow
        text = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(path, f"cannot be read as a mask ({text})") from None
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise ReadError(path, "cannot be read as a mask: it has negative or undefined values")
    if pixels.ndim == 2:
        return pixels
    colour = pixels[..., :3].max(axis=-1)
    if pixels.shape[-1] == 3 or (pixels[..., 3] == 255).all():
        return colour
    if (pixels[..., :3] == pixels[0, 0, :3]).all():
        return pixels[..., 3]
    return np.where(pixels[..., 3] > 127, colour, 0)
