"""Marks that a scanner or a reader left on an image: calipers, text, colour.

A network learns them as shortcuts, since measured lesions are not a random sample. The detectors
look for what only machines draw: crosses with straight thin arms, rows of glyphs on one baseline,
and colour. They are tuned to raise few false alarms, so their counts are lower bounds: dotted
lines, and crosses on bright tissue, are missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy import stats

from mtbus_jax.files import cell, csv_line

# A bright cross is a caliper mark if it correlates with a drawn cross at least this much.
_CROSS = 0.79
_ARMS = (3, 4, 5, 6, 7, 8)
_MARGIN = 11
_MOST_CROSSES = 400
# Glyphs: height in pixels, and how many on one base line make a text.
_GLYPH_HEIGHT = (6, 26)
_LEAST_GLYPHS = 3
# Grey levels.
_BRIGHT = 150
_CONTRAST = 90
# A pixel is coloured, not just tinted, if its channels differ by more than this; an image is
# coloured if at least this share of its pixels is.
_SPREAD = 60
_COLOURED = 0.0005


@dataclasses.dataclass(frozen=True)
class Marks:
    """What was found on one image.

    Attributes:
      calipers: number of crosses.
      text: number of glyphs on the longest line of text; 0 if there is no text.
      colour: fraction of pixels in colour.
    """

    calipers: int = 0
    text: int = 0
    colour: float = 0.0

    @property
    def flags(self) -> tuple[bool, bool, bool]:
        """Whether there are calipers, text, colour."""
        return self.calipers > 0, self.text > 0, self.colour >= _COLOURED

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return any(self.flags)


def _crosses() -> np.ndarray:
    """Drawn crosses of several sizes and two widths, each of mean 0 and unit length."""
    side = 2 * _MARGIN + 1
    drawn = []
    for arm in _ARMS:
        for width in (1, 2):
            canvas = np.zeros((side, side), np.float32)
            low, high = _MARGIN - arm, _MARGIN + arm
            cv2.line(canvas, (low, _MARGIN), (high, _MARGIN), 1, width)
            cv2.line(canvas, (_MARGIN, low), (_MARGIN, high), 1, width)
            # Only the cross and a thin surrounding count, not the tissue far from it.
            window = np.zeros_like(canvas)
            window[max(0, low - 2) : high + 3, max(0, low - 2) : high + 3] = 1
            drawn.append((canvas, window))
    return drawn


_TEMPLATES = _crosses()


def _correlations(patches: np.ndarray) -> np.ndarray:
    """Best correlation of each ``(m, side, side)`` patch with any drawn cross."""
    best = np.full(len(patches), -1.0)
    for canvas, window in _TEMPLATES:
        inside = window > 0
        values = patches[:, inside] - patches[:, inside].mean(1, keepdims=True)
        cross = canvas[inside] - canvas[inside].mean()
        norm = np.linalg.norm(values, axis=1) * np.linalg.norm(cross)
        best = np.maximum(best, values @ cross / np.maximum(norm, 1e-6))
    return best


def _count_calipers(image: np.ndarray, tophat: np.ndarray) -> int:
    """Number of bright crosses with thin straight arms, at most one within 15 pixels."""
    across = cv2.erode(tophat, np.ones((1, 5), np.uint8))
    along = cv2.erode(tophat, np.ones((5, 1), np.uint8))
    strength = np.minimum(across, along)
    rows, cols = np.nonzero((strength > 60) & (image > _BRIGHT))
    if not len(rows):
        return 0
    order = np.argsort(-strength[rows, cols].astype(int), kind="stable")[:_MOST_CROSSES]
    rows, cols = rows[order], cols[order]
    padded = np.pad(image.astype(np.float32), _MARGIN, mode="edge")
    reach = np.arange(2 * _MARGIN + 1)
    patches = padded[
        rows[:, None, None] + reach[None, :, None], cols[:, None, None] + reach[None, None, :]
    ]
    score = _correlations(patches)
    kept: list[tuple[int, int]] = []
    for k in np.argsort(-score, kind="stable"):
        if score[k] < _CROSS:
            break
        if all(max(abs(rows[k] - r), abs(cols[k] - c)) > 15 for r, c in kept):
            kept.append((int(rows[k]), int(cols[k])))
    return len(kept)


def _longest_text(image: np.ndarray, tophat: np.ndarray) -> int:
    """Number of glyphs on the longest line of text; 0 if there is no text."""
    bright = ((image > _BRIGHT) & (tophat > _CONTRAST)).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    col, row, width, height, area = boxes[1:].T
    glyph = (
        (height >= _GLYPH_HEIGHT[0])
        & (height <= _GLYPH_HEIGHT[1])
        & (width <= np.minimum(26, 2.2 * height))
        & (area >= 8)
        & (area < 0.9 * width * height + 8)
    )
    order = np.lexsort((row[glyph], col[glyph]))
    boxes = boxes[1:][glyph][order]
    longest = 0
    for k, (col, row, width, height, _) in enumerate(boxes):
        count, end = 1, col + width
        for other_col, other_row, other_width, other_height, _ in boxes[k + 1 :]:
            if other_col - end > 1.3 * height:
                break
            on_line = abs(other_row + other_height - row - height) <= 2
            alike = abs(other_height - height) <= max(2, 0.2 * height)
            if on_line and alike and other_col >= end - 1:
                count, end = count + 1, other_col + other_width
        longest = max(longest, count)
    return longest if longest >= _LEAST_GLYPHS else 0


def find_marks(grey: np.ndarray, colour: np.ndarray | None) -> Marks:
    """Looks for calipers, text and colour on one image.

    Args:
      grey: ``(height, width)`` uint8.
      colour: ``(height, width, 3)`` uint8, or None for a grey image.
    """
    tophat = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((13, 13), np.uint8))
    share = 0.0
    if colour is not None:
        spread = colour.max(-1).astype(int) - colour.min(-1)
        share = float((spread > _SPREAD).mean())
    return Marks(_count_calipers(grey, tophat), _longest_text(grey, tophat), share)


def _rows(marks: Sequence[Marks], label: Sequence[str]) -> dict[str, np.ndarray]:
    """Class → ``(m, 4)`` bool: calipers, text, colour, any."""
    flags = np.array([[*m.flags, m.any] for m in marks], bool).reshape(-1, 4)
    names = np.array([name or "unknown" for name in label])
    return {str(name): flags[names == name] for name in np.unique(names)}


def count_by_class(
    marks: Sequence[Marks], label: Sequence[str]
) -> list[tuple[str, int, str, str, str, str]]:
    """Per class: images, and how many carry each kind of mark, with the share."""
    table = []
    for name, flags in _rows(marks, label).items():
        counts = [f"{int(k)} ({100 * k / len(flags):.1f} %)" for k in flags.sum(0)]
        table.append((name, len(flags), *counts))
    return table


def association(marks: Sequence[Marks], label: Sequence[str]) -> str:
    """A sentence on whether marks and class are independent (χ² test on classes × marked)."""
    rows = _rows(marks, label)
    counts = np.array([[f[:, 3].sum(), (~f[:, 3]).sum()] for f in rows.values()])
    if len(rows) < 2 or (counts.sum(0) == 0).any():
        return "There is nothing to test: one class only, or no image (or every image) is marked."
    result = stats.chi2_contingency(counts)
    value = "p < 0.0001" if result.pvalue < 1e-4 else f"p = {result.pvalue:.4f}"
    verdict = "differ between the classes" if result.pvalue < 0.05 else "show no clear difference"
    return f"Shares of marked images {verdict} (χ² = {result.statistic:.1f}, {value})."


def write_marks(path: Path, uid: Sequence[str], label: Sequence[str], marks: Sequence[Marks]):
    """``uid,class,calipers,text,colour``, one row per image."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(("uid", "class", "calipers", "text", "colour")))
        for name, kind, found in zip(uid, label, marks, strict=True):
            row = (cell(name), cell(kind), found.calipers, found.text, f"{found.colour:.5f}")
            file.write(csv_line(row))
