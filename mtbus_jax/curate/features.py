"""Local features of one image: SIFT keypoints with RootSIFT descriptors.

A copy keeps its local patterns of speckle when it is cropped, shifted, resized, mirrored, saved
again or brightened; two different frames of one lesion do not share them, since speckle comes from
the interference of scatterers at one position of the transducer. Hence local features tell copies
from look-alikes; SSIM of the whole frame does not.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

FEATURES = 300
# Larger images are first reduced to this longer side, in pixels; speckle survives it.
WORKING_SIDE = 384

# Where each of the 4 × 4 cells × 8 directions of a SIFT descriptor lands when the image is
# mirrored: the cells swap across the keypoint's axis and the directions turn the other way round.
_CELLS = np.arange(128).reshape(4, 4, 8)
_MIRROR = _CELLS[::-1][..., (-np.arange(8)) % 8].ravel()


@dataclasses.dataclass(frozen=True)
class LocalFeatures:
    """Keypoints and descriptors of one image.

    Attributes:
      position: ``(k, 2)`` float32, column and row in pixels of the original image.
      descriptor: ``(k, 128)`` uint8, RootSIFT (unit length) times 255.
      shape: height and width of the image in pixels.
    """

    position: np.ndarray
    descriptor: np.ndarray
    shape: tuple[int, int]

    def mirrored(self) -> LocalFeatures:
        """The features of the left-right mirrored image."""
        position = self.position.copy()
        position[:, 0] = self.shape[1] - 1 - position[:, 0]
        return LocalFeatures(position, self.descriptor[:, _MIRROR], self.shape)

    def unit(self) -> np.ndarray:
        """Descriptors as ``(k, 128)`` float32 of about unit length."""
        return self.descriptor.astype(np.float32) / 255


def local_features(image: np.ndarray, *, count: int = FEATURES) -> LocalFeatures:
    """The strongest local features of an image.

    Args:
      image: ``(height, width)`` uint8.
      count: largest number of features; a flat image has none.

    Returns:
      The features, strongest first.
    """
    scale = min(1.0, WORKING_SIDE / max(image.shape))
    small = image
    if scale < 1:
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # Without the precise upscale all positions are off by up to half a pixel.
    detector = cv2.SIFT_create(
        nfeatures=count, contrastThreshold=0.01, edgeThreshold=15, enable_precise_upscale=True
    )
    keypoints, descriptors = detector.detectAndCompute(small, None)
    if descriptors is None:
        empty = np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
        return LocalFeatures(*empty, image.shape)
    # Ties are broken by position, not by the detector's order, so that the result is repeatable.
    order = sorted(range(len(keypoints)), key=lambda k: (-keypoints[k].response, keypoints[k].pt))
    order = order[:count]
    position = np.array([keypoints[k].pt for k in order], np.float32)
    # A pixel's centre has whole coordinates on both scales.
    position = ((position + 0.5) / scale - 0.5).astype(np.float32)
    descriptors = descriptors[order]
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return LocalFeatures(position, np.rint(root * 255).astype(np.uint8), image.shape)
