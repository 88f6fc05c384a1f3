"""Draws a prediction over its picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from PIL import Image, ImageDraw, ImageFont

from mtbus_jax.images.preprocess import resize_nearest

FOOTER = "Research software, not a medical device"
# Okabe and Ito's colours, which colour-blind readers can tell apart, too.
COLOURS = {"benign": (86, 180, 233), "malignant": (230, 120, 0), "normal": (200, 200, 200)}
NO_CLASS = (240, 228, 66)
# For other classes, by code.
_OTHERS = ((86, 180, 233), (230, 120, 0), (0, 158, 115), (204, 121, 167), (0, 114, 178))

_TINT = 0.22
_SHORTEST, _LONGEST = 320, 1600  # pixels of the longer side as drawn
_STRIP = (24, 24, 24)
_REMOVED = (255, 255, 255)
_TEXT, _FAINT = (235, 235, 235), (150, 150, 150)


def colour(class_names: Sequence[str], class_id: int | None) -> tuple[int, int, int]:
    """RGB of the outline for a class; `NO_CLASS` without a class.

    Args:
      class_names: the run's classes, in the order of their codes.
      class_id: code of the class, or None.
    """
    if class_id is None:
        return NO_CLASS
    return COLOURS.get(class_names[class_id], _OTHERS[class_id % len(_OTHERS)])


def draw(
    grey: np.ndarray,
    mask: np.ndarray | None,
    lines: Sequence[str],
    *,
    removed: np.ndarray | None = None,
    colour: tuple[int, int, int] = NO_CLASS,
) -> np.ndarray:
    """Draws tint and outline of the mask over the picture, and text in a strip below it.

    The picture is drawn at its own size, but not larger than 1600 nor smaller than 320 pixels on
    its longer side. No text covers it.

    Args:
      grey: ``(height, width)`` uint8.
      mask: ``(height, width)`` bool, or None.
      lines: text, the first one in the colour; `FOOTER` is added.
      removed: ``(height, width)`` bool, a mask that refining removed; if ``mask`` is empty, its
        outline is drawn dashed in white.
      colour: RGB of the outline.

    Returns:
      ``(drawn_height, drawn_width, 3)`` uint8.
    """
    height, width = _drawn_size(*grey.shape)
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)
    canvas = np.repeat(np.asarray(picture)[..., None], 3, axis=-1)
    line = _line(height, width)
    if mask is not None and mask.any():
        canvas = _marked(canvas, resize_nearest(mask, height, width), colour, line)
    elif removed is not None and removed.any():
        canvas = _dashed(canvas, resize_nearest(removed, height, width), line)
    strip = _strip(width, lines, colour)
    return np.concatenate([canvas, strip])


def outlined(
    grey: np.ndarray,
    mask: np.ndarray | None,
    lines: Sequence[str],
    *,
    removed: np.ndarray | None = None,
    colour: tuple[int, int, int] = NO_CLASS,
) -> np.ndarray:
    """Like `draw`, but without tint and at the picture's own size, pixel for pixel.

    Args:
      grey: ``(height, width)`` uint8.
      mask: ``(height, width)`` bool, or None.
      lines: lines of text for the strip below.
      removed: ``(height, width)`` bool, a mask that refining removed; if ``mask`` is empty, its
        outline is drawn dashed; or None.
      colour: RGB of the outline.

    Returns:
      ``(drawn_height, drawn_width, 3)`` uint8, the picture in its upper left corner. The strip
      below is at least 320 pixels wide, to be legible; the area beside a narrower picture is dark.
    """
    canvas = np.repeat(grey[..., None], 3, axis=-1)
    line = _line(*grey.shape)
    if mask is not None and mask.any():
        canvas[_outline(mask, line)] = colour
    elif removed is not None and removed.any():
        canvas = _dashed(canvas, removed, line)
    width = max(grey.shape[1], _SHORTEST)
    picture = np.full((len(grey), width, 3), _STRIP, np.uint8)
    picture[:, : grey.shape[1]] = canvas
    return np.concatenate([picture, _strip(width, lines, colour)])


def _line(height: int, width: int) -> int:
    """Thickness of an outline in pixels."""
    return max(1, round(max(height, width) / 300))


def _outline(mask: np.ndarray, line: int) -> np.ndarray:
    """The pixels of a mask along its edge."""
    return mask & ~scipy.ndimage.binary_erosion(mask, iterations=line)


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width)
    scale = min(max(longer, _SHORTEST), _LONGEST) / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def _marked(
    canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], line: int
) -> np.ndarray:
    colour = np.array(colour, np.float32)
    outline = _outline(mask, line)
    inside = mask & ~outline
    marked = canvas.copy()
    marked[inside] = np.rint((1 - _TINT) * canvas[inside] + _TINT * colour).astype(np.uint8)
    marked[outline] = colour.astype(np.uint8)
    return marked


def _dashed(canvas: np.ndarray, mask: np.ndarray, line: int) -> np.ndarray:
    rows, cols = np.nonzero(_outline(mask, line))
    # A chessboard pattern, which gives dashes in every direction of the outline.
    side = 5 * line
    shown = (rows // side + cols // side) % 2 == 0
    dashed = canvas.copy()
    dashed[rows[shown], cols[shown]] = _REMOVED
    return dashed


def _strip(width: int, lines: Sequence[str], colour: tuple[int, int, int]) -> np.ndarray:
    """Text on a dark background, in a size that depends on the width; long lines are wrapped."""
    size = int(np.clip(width / 28, 12, 40))
    rows: list[tuple[str, int, tuple[int, int, int]]] = []
    for number, text in enumerate(lines):
        ink = colour if number == 0 else _TEXT
        rows += [(part, size, ink) for part in _broken(text, size, width - size)]
    small = max(10, round(size * 0.72))
    rows += [(part, small, _FAINT) for part in _broken(FOOTER, small, width - size)]
    margin = size // 2
    height = sum(round(each * 1.35) for _, each, _ in rows) + margin
    strip = Image.new("RGB", (width, height), _STRIP)
    pen = ImageDraw.Draw(strip)
    top = margin // 2
    for text, each, ink in rows:
        pen.text((margin, top), text, fill=ink, font=ImageFont.load_default(each))
        top += round(each * 1.35)
    return np.asarray(strip)


def _broken(text: str, size: int, width: int) -> list[str]:
    """The text as lines that fit ``width`` pixels, broken between words."""
    font = ImageFont.load_default(size)
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font.getlength(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows
