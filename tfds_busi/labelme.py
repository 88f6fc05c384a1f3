"""Outlines drawn with LabelMe: a ``.json`` file beside each picture, with shapes and labels."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import skimage.draw

from mtbus_jax.errors import UserError

SUFFIX = ".json"


class Outlines(NamedTuple):
    """What a file says.

    Attributes:
      labels: of its shapes, in their order, each once.
      mask: ``(height, width)`` bool, the union of the shapes' insides.
    """

    labels: list[str]
    mask: np.ndarray


def is_labelme(path: pathlib.Path) -> bool:
    """Whether a file is one of LabelMe's, by its fields."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"shapes", "imageHeight", "imageWidth"} <= content.keys()


def read(path: pathlib.Path) -> Outlines:
    """Reads a file.

    Raises:
      UserError: if it is broken, or has a shape that has no inside, such as a line.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        mask = np.zeros((int(content["imageHeight"]), int(content["imageWidth"])), bool)
        labels = []
        for shape in content["shapes"]:
            mask |= _inside(shape, mask.shape)
            labels.append(str(shape["label"]).strip())
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is no file of LabelMe that can be read ({type(error).__name__}: {error})."
        ) from None
    return Outlines(list(dict.fromkeys(labels)), mask)


def _inside(shape: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies in a shape; LabelMe gives points as (column, row)."""
    kind = shape.get("shape_type", "polygon")
    points = np.array(shape["points"], float)
    if not np.isfinite(points).all():
        raise ValueError("a point is no number")
    corners = points[:, ::-1]  # rows, columns
    if kind == "polygon" and len(corners) >= 3:
        return skimage.draw.polygon2mask(size, corners - 0.5)
    if kind == "rectangle" and len(corners) in (2, 4):
        (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
        box = [(top, left), (top, right), (bottom, right), (bottom, left)]
        return skimage.draw.polygon2mask(size, np.array(box) - 0.5)
    if kind == "circle" and len(corners) == 2:
        radius = np.linalg.norm(corners[1] - corners[0])
        rows, cols = np.mgrid[: size[0], : size[1]] + 0.5
        return np.hypot(rows - corners[0][0], cols - corners[0][1]) <= radius
    raise ValueError(f"a shape of the type {kind!r} with {len(corners)} points has no inside")
