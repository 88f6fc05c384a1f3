"""Images and masks as text inside the page.

Images are JPEG, for viewing rather than measuring. Masks keep every pixel. They are stored as the
lengths of runs of equal pixels, row by row, starting with background, in base 36. A lesion takes
some 300 characters.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.report.run import Run, predicted_masks

# Pixels that a page may hold, some 40 MB of text. Larger sets are scaled down.
MOST_PIXELS = 50_000_000
_QUALITY = 85
# Cases per block. The page decodes a whole block to show one of its cases.
BLOCK = 50

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of the test images, in the order of the rows.

    Attributes:
      image: ``(n, height, width)`` uint8.
      truth: ``(n, height, width)`` bool.
      prediction: ``(n, height, width)`` bool, before refining; None if there is none.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray | None

    def scale(self) -> float:
        """Factor by which images are scaled so that the page stays small, at most 1."""
        return min(1.0, math.sqrt(MOST_PIXELS / self.image.size))

    def blocks(self) -> Iterator[dict[str, list[str]]]:
        """`BLOCK` cases at a time: ``image`` as base64, ``truth`` and ``prediction`` as runs."""
        scale = self.scale()
        for start in range(0, len(self.image), BLOCK):
            part = slice(start, start + BLOCK)
            block = {
                "image": [_jpeg(image, scale) for image in self.image[part]],
                "truth": [runs(mask) for mask in self.truth[part]],
            }
            if self.prediction is not None:
                block["prediction"] = [runs(mask) for mask in self.prediction[part]]
            yield block


def collect(run: Run, cases: types.Cases) -> Pictures:
    """Images, truth and predictions of a run's test images.

    Args:
      run: the run.
      cases: the dataset it was tested on.

    Raises:
      UserError: if the dataset is not the one that the run was tested on.
    """
    position = {str(uid): i for i, uid in enumerate(cases.uid)}
    missing = [uid for uid in run.rows.uid if uid not in position]
    if missing:
        raise UserError(
            f"the dataset {cases.name} lacks {len(missing)} of the {len(run.rows)} test images of "
            f"{run.workdir}, such as {missing[0]}; give the data that the run was tested on."
        )
    index = np.array([position[uid] for uid in run.rows.uid])
    truth = cases.mask[index, ..., 0] > 0
    if run.has_masks:
        tested = run.rows.true_pixels.to_numpy(float)  # undefined for a mask that is not known
        other = (truth.sum(axis=(1, 2)) != tested) & ~np.isnan(tested)
        if other.any():
            raise UserError(
                f"{int(other.sum())} masks of the dataset {cases.name} differ from those that "
                f"{run.workdir} was tested on, such as the mask of {run.rows.uid[other.argmax()]}; "
                "give the data that the run was tested on."
            )
    return Pictures(cases.image[index, ..., 0], truth, predicted_masks(run))


def runs(mask: np.ndarray) -> str:
    """A mask, ``(height, width)`` bool, as the lengths of its runs; empty for an empty mask.

    The last run of background is left out.
    """
    flat = np.concatenate([[False], mask.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return " ".join(_base36(length) for length in np.diff(changes, prepend=0).tolist())


def _base36(value: int) -> str:
    text = ""
    while value >= 36:
        value, digit = divmod(value, 36)
        text = _DIGITS[digit] + text
    return _DIGITS[value] + text


def _jpeg(image: np.ndarray, scale: float) -> str:
    picture = Image.fromarray(image)
    if scale < 1:
        height, width = (max(1, round(scale * side)) for side in image.shape)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
