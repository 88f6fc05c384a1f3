"""Multi-peak generalised histogram equalisation of a grey picture, before it is resized.

The method is that of Cheng and Shi 2004 (Digital Signal Processing 14, 158–170), with which
Jignesh Chowdary et al. 2022 enhance their pictures. The grey value of a pixel and its surroundings
are combined into one value (generalised). The histogram of these values is cut at the valleys
between its peaks (multi-peak), and each piece is equalised over its own range. Dark and bright
parts keep their places and gain contrast within. Peaks are chosen in the manner of Cheng and Sun
2000 (IEEE Trans. Image Process. 9, 2071–2082). The rules follow what other authors write about the
two papers. What that leaves open is decided as follows:

  - surroundings of a pixel: the Laplacian of its 3×3 neighbours. The positive values are divided by
    twice the largest of them, the negative values likewise (exponent 1). It moves a pixel by at
    most half of `LOCAL_WEIGHT` grey values;
  - beyond the edge: the pixels of the edge are repeated;
  - where a piece begins: its lowest value that occurs goes to the start of its range, as in usual
    equalisation, and the valley belongs to the piece below.

All steps use whole numbers or single operations in double precision, so every machine computes the
same pixels. Turning or flipping a picture turns or flips the result, and adding a constant to all
pixels does not change the result. A second pass does change the picture.
"""

from __future__ import annotations

import itertools

import numpy as np

# The value of `data.enhancement`.
NONE, MULTI_PEAK = "none", "multi_peak"
ENHANCEMENTS = (NONE, MULTI_PEAK)

# Grey values between the largest and the smallest effect of a pixel's surroundings.
LOCAL_WEIGHT = 8
# Least height of a peak as a share of the highest, and least distance to the next in grey values.
LEAST_HEIGHT, LEAST_DISTANCE = 0.05, 15
# Two peaks count as one if the mean between them is above this share of their mean height.
LARGEST_VALLEY = 0.75

_LEVELS = 256


def enhance(image: np.ndarray, *, method: str) -> np.ndarray:
    """Enhances a picture as the configuration asks.

    Args:
      image: ``(height, width)`` uint8.
      method: one of `ENHANCEMENTS`.

    Returns:
      ``(height, width)`` uint8.
    """
    return {NONE: lambda image: image, MULTI_PEAK: equalise_multi_peak}[method](image)


def equalise_multi_peak(image: np.ndarray) -> np.ndarray:
    """Multi-peak generalised histogram equalisation.

    Args:
      image: ``(height, width)`` uint8.

    Returns:
      ``(height, width)`` uint8; a picture with a single grey value stays as it is.
    """
    joined = joined_with_surroundings(image)
    if joined is None:
        return image
    histogram = np.bincount(joined.ravel(), minlength=_LEVELS)
    return _equalising(histogram, valleys(histogram))[joined]


def joined_with_surroundings(image: np.ndarray) -> np.ndarray | None:
    """Grey value and Laplacian of each pixel as one value, stretched to 0..255.

    Args:
      image: ``(height, width)`` uint8.

    Returns:
      The same shape, uint8; None if all values are alike.
    """
    grey = image.astype(np.int32)
    lowest, highest = int(grey.min()), int(grey.max())
    if lowest == highest:
        return None
    height, width = grey.shape
    padded = np.pad(grey, 1, mode="edge")
    around = sum(padded[r : r + height, c : c + width] for r in range(3) for c in range(3))
    laplacian = 9 * grey - around
    # At most ±½; a picture without a positive, or negative, one has nothing to divide.
    least, most = max(-int(laplacian.min()), 1), max(int(laplacian.max()), 1)
    joined = (grey - lowest) + LOCAL_WEIGHT * (
        laplacian / np.where(laplacian > 0, 2 * most, 2 * least)
    )
    start, end = float(joined.min()), float(joined.max())
    if start == end:
        return None
    return np.floor((_LEVELS - 1) * (joined - start) / (end - start) + 0.5).astype(np.uint8)


def valleys(histogram: np.ndarray) -> list[int]:
    """The emptiest level between each two neighbouring significant peaks; the first of equals.

    Args:
      histogram: ``(levels,)`` whole numbers.

    Returns:
      Levels in ascending order; none for a single peak.
    """
    peaks = _significant_peaks(histogram)
    return [
        first + 1 + int(np.argmin(histogram[first + 1 : second]))
        for first, second in itertools.pairwise(peaks)
    ]


def _significant_peaks(histogram: np.ndarray) -> list[int]:
    """Peaks among the peaks, without those that are too low, too near, or without a valley."""
    heights = [int(count) for count in histogram]
    peaks = _local_maxima(list(range(len(heights))), heights)
    peaks = _local_maxima(peaks, heights)
    peaks = [peak for peak in peaks if heights[peak] >= LEAST_HEIGHT * max(heights)]
    peaks = _merged(peaks, heights, lambda a, b: b - a < LEAST_DISTANCE)

    def without_valley(first: int, second: int) -> bool:
        mean = sum(heights[first + 1 : second]) / (second - first - 1)
        return mean > LARGEST_VALLEY * (heights[first] + heights[second]) / 2

    return _merged(peaks, heights, without_valley)


def _local_maxima(places: list[int], heights: list[int]) -> list[int]:
    """The places that are higher than their neighbours; the last of equal ones.

    Beyond both ends, heights count as lower than anywhere.
    """
    found, rising = [], True
    for place, following in zip(places, [*places[1:], None], strict=True):
        next_height = -1 if following is None else heights[following]
        if next_height < heights[place]:
            if rising:
                found.append(place)
            rising = False
        elif next_height > heights[place]:
            rising = True
    return found


def _merged(peaks: list[int], heights: list[int], are_one) -> list[int]:
    """Merges peaks from left to right: of two that count as one the higher stays."""
    kept: list[int] = []
    for peak in peaks:
        if kept and are_one(kept[-1], peak):
            if heights[peak] > heights[kept[-1]]:
                kept[-1] = peak
        else:
            kept.append(peak)
    return kept


def _equalising(histogram: np.ndarray, cuts: list[int]) -> np.ndarray:
    """``(256,)`` uint8: new value of each level; a piece ends at a cut or at the last level."""
    table = np.arange(_LEVELS)
    begin = 0
    for end in (*cuts, _LEVELS - 1):
        piece = histogram[begin : end + 1]
        occupied = np.flatnonzero(piece)
        if len(occupied) > 1:
            lowest = int(piece[occupied[0]])
            rank = np.maximum(np.cumsum(piece) - lowest, 0)
            total = int(piece.sum()) - lowest
            # Rounded half up, in whole numbers.
            table[begin : end + 1] = begin + (2 * (end - begin) * rank + total) // (2 * total)
        begin = end + 1
    return table.astype(np.uint8)
