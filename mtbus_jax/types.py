"""The few records that every other module passes around, and the class names with their codes.

Array shapes use these words throughout the library: ``n`` images of a dataset, ``batch`` images of
one step, ``height`` × ``width`` pixels, ``channels`` feature maps, ``classes`` = 3.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

# The order is the one of Aumente-Maestro et al. 2025 and fixes the class codes 0, 1, 2.
CLASS_NAMES = ("benign", "malignant", "normal")
BENIGN, MALIGNANT, NORMAL = range(3)

# Task names, as they appear in ``config.tasks``.
SEGMENTATION = "seg"
CLASSIFICATION = "cls"
TASKS = (SEGMENTATION, CLASSIFICATION)

# ``Cases.test_fold`` of a dataset without published folds.
NO_FOLD = -1


@dataclasses.dataclass(frozen=True)
class Cases:
    """A whole dataset on the host, resized; one entry per image, in the published order.

    The published order is (class name, numeric id or file name): folds drawn with a fixed seed
    depend on it.

    Attributes:
      name: dataset name, such as ``curated_busi``.
      uid: ``(n,)`` str, unique, such as ``benign_20`` or ``ALWI_000``.
      image: ``(n, height, width, 1)`` uint8, greyscale 0..255.
      mask: ``(n, height, width, 1)`` uint8, 0 background and 1 tumour.
      label: ``(n,)`` int32, index into `CLASS_NAMES`.
      original_size: ``(n, 2)`` int32, height and width in pixels before resizing.
      group: ``(n,)`` str; images with the same group (a patient, or one set of near-duplicates)
        must stay on one side of a grouped split.
      test_fold: ``(n,)`` int32, the published fold in which the image is tested, or `NO_FOLD`.
    """

    name: str
    uid: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    original_size: np.ndarray
    group: np.ndarray
    test_fold: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.uid)

    def take(self, index: np.ndarray) -> Cases:
        """The cases at ``index`` (``(m,)`` integers), in that order."""
        arrays = {
            field.name: getattr(self, field.name)[index]
            for field in dataclasses.fields(self)
            if field.name != "name"
        }
        return Cases(name=self.name, **arrays)


class Batch(NamedTuple):
    """Images of one step, on the device.

    Attributes:
      image: ``(batch, height, width, 1)`` float32, grey values 0..255.
      mask: ``(batch, height, width, 1)`` float32, 0 or 1.
      label: ``(batch,)`` int32.
      valid: ``(batch,)`` float32, 1 for a real image and 0 for padding of an incomplete batch.
    """

    image: Any
    mask: Any
    label: Any
    valid: Any


class Outputs(NamedTuple):
    """What every network returns.

    Attributes:
      segmentation: tuple of ``(batch, height, width, 1)`` float32 logits, the finest (the
        prediction) first, then the deep-supervision maps; empty without the segmentation task.
      class_logits: ``(batch, classes)`` float32, or None without the classification task.
      aux: further outputs by name, such as a reconstruction of the input.
    """

    segmentation: tuple[Any, ...]
    class_logits: Any | None
    aux: dict[str, Any]
