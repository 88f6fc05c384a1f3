"""Outlines drawn with LabelMe: a ``.json`` file beside each picture, with shapes and labels."""

from __future__ import annotations

import base64
import io
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import skimage.draw
from PIL import Image

from mtbus_jax.errors import UserError

SUFFIX = ".json"
# Types of shapes that enclose nothing, such as calipers and landmarks.
_MARKS = ("line", "linestrip", "point", "points")
_FIELDS = {"shapes", "imageHeight", "imageWidth"}

# Raised by fields of wrong types or sizes, and by a broken PNG file inside.
_BROKEN = (
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
)


class Outlines(NamedTuple):
    """The content of a file.

    Attributes:
      labels: labels of its outlines, in their order, each once.
      mask: ``(height, width)`` bool, the union of their insides.
      marks: number of lines and points, which enclose nothing and are no outlines.
    """

    labels: list[str]
    mask: np.ndarray
    marks: int


def is_labelme(path: pathlib.Path) -> bool:
    """Whether a file is one of LabelMe's, by its fields."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= _FIELDS


def labels(path: pathlib.Path) -> list[str] | None:
    """Labels of the outlines in a LabelMe file, each once; draws nothing.

    None if there is no such file, if it is not from LabelMe, or if it has lines and points only.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not _FIELDS.issubset(content):
            return None
        shapes = _outlines(content)
        if content["shapes"] and not shapes:
            return None
        return list(dict.fromkeys(map(_label, shapes)))
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        return None


def read(path: pathlib.Path) -> Outlines:
    """Reads a file.

    Raises:
      UserError: if it is broken, or has a shape that encloses nothing although its type should.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        mask = np.zeros((int(content["imageHeight"]), int(content["imageWidth"])), bool)
        shapes = _outlines(content)
        for shape in shapes:
            mask |= _inside(shape, mask.shape)
        labels = list(dict.fromkeys(map(_label, shapes)))
        marks = len(content["shapes"]) - len(shapes)
    except _BROKEN as error:
        raise UserError(
            f"{path} is not a file of LabelMe that can be read ({type(error).__name__}: {error})."
        ) from None
    return Outlines(labels, mask, marks)


def _outlines(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The shapes of a file, except marks."""
    return [shape for shape in content["shapes"] if shape.get("shape_type") not in _MARKS]


def _label(shape: dict[str, Any]) -> str:
    return str(shape["label"]).strip()


def _inside(shape: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies in a shape; LabelMe gives points as (column, row).

    LabelMe's own masks also include the pixels under the outline, up to one more on each side.
    """
    kind = shape.get("shape_type", "polygon")
    points = np.array(shape["points"], float)
    if not np.isfinite(points).all():
        raise ValueError("a point is not a number")
    corners = points[:, ::-1]  # rows, columns
    if kind == "mask" and len(corners) == 2:
        return _painted(shape["mask"], corners, size)
    if (kind == "polygon" and len(corners) >= 3) or (
        kind == "oriented_rectangle" and len(corners) == 4
    ):
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


def _painted(text: str, corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask that was painted or proposed: a PNG file in base64 of the pixels between two corners.

    Args:
      text: the file; all that is not black is inside.
      corners: ``(2, 2)``, the first and the last pixel, row and column.
      size: of the picture.
    """
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as file:
        if file.width > size[1] or file.height > size[0]:
            raise ValueError("a mask is larger than the picture")
        part = np.asarray(file.convert("L")) > 0
    top, left = np.floor(corners[0]).astype(int)
    mask = np.zeros(size, bool)
    place = mask[max(top, 0) : top + part.shape[0], max(left, 0) : left + part.shape[1]]
    if min(top, left) < 0 or place.shape != part.shape:
        raise ValueError("a mask does not lie in the picture")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask
