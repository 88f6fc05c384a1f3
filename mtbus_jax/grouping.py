"""Groups of images that belong together: reading the committed lists, and joining two groupings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtbus_jax.errors import UserError


def merge_groups(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """The finest grouping that keeps together what either of two groupings keeps together.

    Args:
      first: ``(n,)`` group names, ``""`` for an image of its own.
      second: ``(n,)`` group names of the same images by the other grouping.

    Returns:
      ``(n,)`` str: for each image the first name, in alphabetical order, of its merged group in
      either grouping, or ``""``.
    """
    first, second = (np.asarray(x).astype(str) for x in (first, second))
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} group names")
    parent = list(range(len(first)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for grouping in (first, second):
        seen: dict[str, int] = {}
        for index, name in enumerate(grouping):
            if name:
                parent[root(index)] = root(seen.setdefault(name, index))
    names: dict[int, str] = {}
    for index in range(len(first)):
        for name in (first[index], second[index]):
            if name:
                key = root(index)
                names[key] = min(names.get(key, name), name)
    return np.array([names.get(root(i), "") for i in range(len(first))])


def read_near_duplicates(path: Path, dataset: str, uid: Sequence[str]) -> np.ndarray:
    """Group names of a dataset's images from a file with the columns ``dataset,uid,group``.

    Args:
      path: the file.
      dataset: the dataset's name in it, such as ``curated_busi``.
      uid: ``(n,)`` names.

    Returns:
      ``(n,)`` str, ``""`` for an image that the file does not name.

    Raises:
      UserError: if the file lacks a column.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"dataset", "uid", "group"} <= set(rows[0]):
        raise UserError(f"{path} needs the columns dataset, uid and group; it has {list(rows[0])}.")
    group = {row["uid"]: row["group"] for row in rows if row["dataset"] == dataset}
    return np.array([group.get(str(name), "") for name in uid], dtype=str)
