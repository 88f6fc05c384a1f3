"""The few records that every other module passes around, and the classes with their codes.

Array shapes use these words throughout the library: ``n`` images of a dataset, ``batch`` images of
one step, ``height`` × ``width`` pixels, ``channels`` feature maps, ``classes`` classes (3 in the
public datasets).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# The order follows Aumente-Maestro et al. 2025 and fixes the class codes 0, 1, 2.
CLASS_NAMES = ("benign", "malignant", "normal")
BENIGN, MALIGNANT, NORMAL = range(3)
# ``Cases.label`` of an image whose class is not known.
NO_LABEL = -1
# A pixel is tumour if its probability is greater than this.
MASK_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a dataset and of the runs on it, in the order of their codes.

    Attributes:
      names: by code, at least one.
      normal: code of the class that means "no lesion"; None if all classes are lesions.
    """

    names: tuple[str, ...]
    normal: int | None

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Classes:
        """The classes that the ``data`` section names; `CLASSES` if it names none.

        Args:
          data: the section of a configuration, with ``class_names`` and ``normal_class``.
        """
        names = tuple(data.get("class_names") or ())
        if not names:
            return CLASSES
        normal = data.get("normal_class")
        return cls(names, names.index(normal) if normal in names else None)


# The classes of all public datasets here.
CLASSES = Classes(CLASS_NAMES, NORMAL)

# Task names, as they appear in ``config.tasks``.
SEGMENTATION = "seg"
CLASSIFICATION = "cls"
TASKS = (SEGMENTATION, CLASSIFICATION)

# ``Cases.test_fold`` of an image that no stored fold tests, and of one that every fold validates
# on; fold numbers are below the third.
NO_FOLD = -1
VALIDATION_FOLD = -2
MOST_FOLDS = 1000


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
      label: ``(n,)`` int32, index into ``classes.names``, or `NO_LABEL`.
      original_size: ``(n, 2)`` int32, height and width in pixels before resizing.
      group: ``(n,)`` str; images with the same group (a patient, or one set of near-duplicates)
        must stay in one fold of a grouped split.
      test_fold: ``(n,)`` int32, the stored fold in which the image is tested, or `NO_FOLD`, or
        `VALIDATION_FOLD`.
      has_mask: ``(n,)`` bool, whether ``mask`` is known; None if all are.
      classes: what the labels mean.
      not_compared: a text saying why near-duplicates were not looked for, so that ``group`` may
        miss some; "" if they were.
    """

    name: str
    uid: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    original_size: np.ndarray
    group: np.ndarray
    test_fold: np.ndarray
    has_mask: np.ndarray | None = None
    classes: Classes = CLASSES
    not_compared: str = ""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.uid)

    def take(self, index: np.ndarray) -> Cases:
        """The cases at ``index`` (``(m,)`` integers), in that order."""
        arrays = {
            field.name: value[index]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **arrays)

    @property
    def mask_known(self) -> np.ndarray:
        """``(n,)`` bool, whether the image's mask is known."""
        return np.ones(len(self), bool) if self.has_mask is None else self.has_mask

    @property
    def label_known(self) -> np.ndarray:
        """``(n,)`` bool, whether the image's class is known."""
        return self.label != NO_LABEL


class Batch(NamedTuple):
    """Images of one step, on the device.

    Attributes:
      image: ``(batch, height, width, 1)`` float32, grey values 0..255.
      mask: ``(batch, height, width, 1)`` float32, 0 or 1.
      label: ``(batch,)`` int32, 0 where it is not known.
      valid: ``(batch,)`` float32, 1 for a real image and 0 for padding of an incomplete batch.
      mask_known: ``(batch,)`` float32, 1 where the mask is known; None if all are.
      label_known: ``(batch,)`` float32, 1 where the label is known; None if all are.
    """

    image: Any
    mask: Any
    label: Any
    valid: Any
    mask_known: Any = None
    label_known: Any = None


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
