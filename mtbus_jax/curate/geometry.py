"""The second, geometric check of a pair: does the speckle of two images match when registered?

1. Local features of both images are matched and a similarity transform (shift, rotation, scale,
   and optionally a mirror) is fitted by RANSAC. Where that fails, or its detail correlation is
   below 0.5, the frames are also aligned edge to edge, and the better of the two counts.
2. The finer image is warped onto the coarser one and both are high-passed, which leaves speckle and
   fine edges.
3. In blocks of 24×24 pixels inside the overlap the two details are correlated. The *detail
   correlation* of the pair is the median over blocks, so that text, caliper marks or a shared
   scanner frame, which fill a minority of blocks, do not decide it.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from mtbus_jax.curate.features import LocalFeatures

# Longer side, in pixels, at which details are compared.
_WORKING_SIDE = 512
_BLOCK = 24
_LEAST_BLOCKS = 6
_LEAST_INLIERS = 8
# Tolerance of the fit, in pixels of the second image.
_TOLERANCE = 3.0
_SCALES = (0.2, 5.0)
# Grey values: darker surroundings hold no echo, and flatter blocks no detail.
_DARK = 8
_FLAT = 0.5


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How well one image lies on another.

    Attributes:
      detail: detail correlation, -1..1; 0 where too little texture overlaps.
      overlap: overlapping area as a fraction of the smaller image's.
      inliers: feature matches that agree with the transform; 0 if the frames were aligned edge to
        edge.
      scale: size of the first image's pixels in the second image.
      rotation: degrees.
      shift: rows and columns by which the first image's centre moves, relative to the second's
        centre, in pixels of the second image.
      mirrored: whether the first image was mirrored left-right first.
    """

    detail: float = 0.0
    overlap: float = 0.0
    inliers: int = 0
    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False


def _fit(first: LocalFeatures, second: LocalFeatures) -> tuple[np.ndarray | None, int]:
    """Similarity transform ``(2, 3)`` of (column, row) from first to second, and its inliers."""
    if min(len(first.descriptor), len(second.descriptor)) < _LEAST_INLIERS:
        return None, 0
    likeness = first.unit() @ second.unit().T
    best, back = likeness.argmax(1), likeness.argmax(0)
    mutual = np.flatnonzero(back[best] == np.arange(len(best)))
    if len(mutual) < _LEAST_INLIERS:
        return None, 0
    transform, inlier = cv2.estimateAffinePartial2D(
        first.position[mutual],
        second.position[best[mutual]],
        method=cv2.RANSAC,
        ransacReprojThreshold=_TOLERANCE,
        maxIters=2000,
        confidence=0.999,
    )
    if transform is None or inlier is None or inlier.sum() < _LEAST_INLIERS:
        return None, 0
    return transform, int(inlier.sum())


def _edge_on_edge(first: tuple[int, int], second: tuple[int, int]) -> np.ndarray:
    """The transform that stretches one frame onto another, each direction by its own factor."""
    scale_rows, scale_cols = second[0] / first[0], second[1] / first[1]
    return np.array([[scale_cols, 0, (scale_cols - 1) / 2], [0, scale_rows, (scale_rows - 1) / 2]])


def _detail(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 0.7) - cv2.GaussianBlur(image, (0, 0), 3.0)


def _block_correlations(first: np.ndarray, second: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Correlation in each textured block that is almost entirely valid."""
    rows, cols = first.shape[0] // _BLOCK, first.shape[1] // _BLOCK

    def blocks(values):
        cut = values[: rows * _BLOCK, : cols * _BLOCK].reshape(rows, _BLOCK, cols, _BLOCK)
        return cut.transpose(0, 2, 1, 3).reshape(rows * cols, -1)

    if rows * cols == 0:
        return np.zeros(0)
    used = blocks(valid).mean(1) > 0.9
    a, b = blocks(first)[used], blocks(second)[used]
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    spread_a, spread_b = a.std(1), b.std(1)
    textured = (spread_a > _FLAT) & (spread_b > _FLAT)
    return (a * b).mean(1)[textured] / (spread_a * spread_b)[textured]


def _overlay(first: np.ndarray, second: np.ndarray, transform: np.ndarray) -> tuple[float, float]:
    """Detail correlation and overlap under a transform from first to second."""
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    if not _SCALES[0] < scale < _SCALES[1]:
        return 0.0, 0.0
    if scale > 1:  # onto the coarser grid, since upscaling adds no detail
        return _overlay(second, first, cv2.invertAffineTransform(transform))
    # Both are brought to the working size of the coarser image; reducing averages, which prevents
    # aliasing.
    target = min(1.0, _WORKING_SIDE / max(second.shape))
    small = _reduced(second, target)
    fine = _reduced(first, min(1.0, scale * target))
    to_small = _grid(second.shape, small.shape)
    from_fine = cv2.invertAffineTransform(_grid(first.shape, fine.shape))
    warp = _compose(to_small, _compose(transform, from_fine))
    size = (small.shape[1], small.shape[0])
    warped = cv2.warpAffine(fine, warp, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(fine), warp, size, flags=cv2.INTER_NEAREST)
    smaller = min(small.size, fine.size * abs(np.linalg.det(warp[:, :2])))
    overlap = float(min(1.0, (inside > 0).sum() / smaller))
    inside = cv2.erode(inside, np.ones((9, 9)), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    bright = np.minimum(cv2.blur(warped, (9, 9)), cv2.blur(small, (9, 9))) > _DARK
    values = _block_correlations(_detail(warped), _detail(small), (inside > 0) & bright)
    return (float(np.median(values)) if len(values) >= _LEAST_BLOCKS else 0.0), overlap


def _reduced(image: np.ndarray, scale: float) -> np.ndarray:
    image = image.astype(np.float32)
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _grid(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Coordinates of an image → coordinates of the same image resized."""
    return _edge_on_edge(source, target)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine map ``outer(inner(point))``."""
    square = np.vstack([inner, [0, 0, 1]])
    return outer @ square


def compare(
    first: np.ndarray,
    second: np.ndarray,
    first_features: LocalFeatures,
    second_features: LocalFeatures,
    *,
    mirrored: bool = False,
) -> Geometry:
    """Lays one image on another and correlates their details.

    Args:
      first: ``(height, width)`` uint8.
      second: ``(height, width)`` uint8, of any size.
      first_features: local features of ``first``.
      second_features: local features of ``second``.
      mirrored: mirror the first image left-right first.

    Returns:
      The better of the feature fit and the frames aligned edge to edge.
    """
    if mirrored:
        first, first_features = np.ascontiguousarray(first[:, ::-1]), first_features.mirrored()
    transform, inliers = _fit(first_features, second_features)
    best = Geometry(mirrored=mirrored)
    if transform is not None:
        detail, overlap = _overlay(first, second, transform)
        best = _describe(transform, first, second, detail, overlap, inliers, mirrored)
    if best.detail < 0.5:
        frame = _edge_on_edge(first.shape, second.shape)
        detail, overlap = _overlay(first, second, frame)
        if detail > max(best.detail, 0.1):
            best = _describe(frame, first, second, detail, overlap, 0, mirrored)
    return best


def _describe(
    transform: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    detail: float,
    overlap: float,
    inliers: int,
    mirrored: bool,
) -> Geometry:
    centre = transform @ [(first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2, 1]
    shift = centre[1] - (second.shape[0] - 1) / 2, centre[0] - (second.shape[1] - 1) / 2
    return Geometry(
        detail=detail,
        overlap=overlap,
        inliers=inliers,
        scale=float(np.sqrt(abs(np.linalg.det(transform[:, :2])))),
        rotation=float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))),
        shift=(float(shift[0]), float(shift[1])),
        mirrored=mirrored,
    )
