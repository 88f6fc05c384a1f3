"""The same predictions scored by ACSNet's rules and by ours, one rule at a time.

The rules need the masks as drawn, at their original size, so the masks are read from the raw
download of BUSI.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.images.preprocess import resize_nearest
from mtbus_jax.metrics import acsnet, segmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """The masks drawn for an image, at the original size.

    Attributes:
      every: ``(height, width)`` bool, the lesions of all mask files.
      first: ``(height, width)`` bool, the lesion of the first mask file.
    """

    every: np.ndarray
    first: np.ndarray


def read_drawn(manual_dir: Path, uids: Collection[str]) -> dict[str, Drawn]:
    """The masks of images of BUSI by uid.

    Args:
      manual_dir: folder with the raw download, or its zip.
      uids: uids of the images.

    Raises:
      UserError: if BUSI is not there, or lacks one of the images.
    """
    from tfds_busi import raw

    root = raw.find_busi(manual_dir)
    if root is None:
        raise UserError(f"{manual_dir} holds no BUSI download.")
    records = {record.uid: record for record in raw.read_busi(root)}
    lacking = sorted(set(uids) - records.keys())
    if lacking:
        raise UserError(f"{root} has no image {lacking[0]}: the run is not one on BUSI.")
    found = {}
    for uid in uids:
        record = records[uid]
        height, width = raw.decode_image(record).shape[:2]
        first = dataclasses.replace(record, masks=record.masks[:1])
        masks = (raw.decode_mask(each, height, width).lesion for each in (record, first))
        found[uid] = Drawn(*masks)
    return found


# Rules by which a prediction is scored, in the order of the table; see `dice_by_rule`.
RULES = {
    "ours": "ours: all mask files, sharp borders",
    "first": "first mask file alone",
    "soft": "without soft borders",
    "theirs": "theirs: first mask file, without soft borders",
}


def dice_by_rule(drawn: Drawn, prediction: np.ndarray) -> dict[str, float]:
    """Dice of one image by each of `RULES`.

    Args:
      drawn: its masks.
      prediction: ``(height, width)`` bool, at the network's size.
    """
    size = prediction.shape
    every, first = (resize_nearest(mask, *size) for mask in (drawn.every, drawn.first))
    soft_every, soft_first = (acsnet.soft_mask(mask, *size) for mask in (drawn.every, drawn.first))
    return {
        "ours": segmentation.dice(every, prediction),
        "first": segmentation.dice(first, prediction),
        "soft": acsnet.legacy_soft_border_dice(soft_every, prediction),
        "theirs": acsnet.legacy_soft_border_dice(soft_first, prediction),
    }


def theirs(drawn: Drawn, prediction: np.ndarray) -> dict[str, float]:
    """Metrics of one mask as ACSNet's code computes them, by their names in the tables.

    Distances are to the first mask with sharp borders; it is not certain which borders the code
    uses for them.
    """
    size = prediction.shape
    soft = acsnet.soft_mask(drawn.first, *size)
    sharp = resize_nearest(drawn.first, *size)
    return {
        "dice": acsnet.legacy_soft_border_dice(soft, prediction),
        "jaccard": acsnet.legacy_soft_border_jaccard(soft, prediction),
        "hausdorff95": acsnet.legacy_hausdorff95(sharp, prediction),
        "surface_distance": acsnet.legacy_directed_surface_distance(sharp, prediction),
    }


def border_share(drawn: Drawn, size: tuple[int, int]) -> float:
    """Pixels of the soft border as a share of the lesion's area; NaN without a lesion."""
    soft = acsnet.soft_mask(drawn.first, *size)
    area = float(soft.sum())
    return np.count_nonzero((soft > 0) & (soft < 1)) / area if area else math.nan
