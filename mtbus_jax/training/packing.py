"""A tree of arrays as one long array for each dtype, with a digest of every leaf.

Checkpoints are stored this way for two reasons. The digests reveal weights that were damaged on
disk. And Orbax writes one folder per array: a thousand leaves would make a thousand folders, each
of which also leaks some memory (see `orbax_items`).
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# One leaf: "path", "dtype", "shape", "sha256". Leaves of a dtype follow each other in its array.
Leaf = dict[str, Any]
# A list of them as JSON, see `schema`.
LEAVES = [{"path": str, "dtype": str, "shape": [int], "sha256": str}]


class Damaged(Exception):
    """What was read is not what was written; the message says where."""


class OtherTree(Exception):
    """What was read is whole, but has other leaves than wanted; the message names one."""


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves of a tree with their paths as text, in its order."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def pack(tree: Any) -> tuple[dict[str, np.ndarray], list[Leaf]]:
    """Joins the leaves of a tree to one array per dtype, and lists them for JSON.

    Args:
      tree: of arrays of any shape, on a device or not; they are copied.

    Returns:
      Arrays ``(numbers,)`` by the name of their dtype, and one `Leaf` for each leaf of the tree.
    """
    parts: dict[str, list[np.ndarray]] = {}
    index = []
    for path, leaf in leaves(jax.device_get(tree)):
        array = np.asarray(leaf)
        parts.setdefault(array.dtype.name, []).append(array.ravel())
        index.append(
            {
                "path": path,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "sha256": digest(array),
            }
        )
    return {dtype: np.concatenate(each) for dtype, each in parts.items()}, index


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order; shape and dtype are kept beside it."""
    return hashlib.sha256(np.ascontiguousarray(array).ravel().view(np.uint8)).hexdigest()


def unpack(arrays: dict[str, np.ndarray], index: list[Leaf], like: Any) -> Any:
    """Inverse of `pack`.

    Args:
      arrays: from `pack`.
      index: of the same call of `pack`: where each leaf is, and its digest.
      like: a tree of the same shapes.

    Returns:
      A tree like ``like`` of numpy arrays.

    Raises:
      Damaged: if a leaf is not what was packed.
      OtherTree: if the leaves are not those of ``like``.
    """
    found, start = {}, dict.fromkeys(arrays, 0)
    try:
        for leaf in index:
            path, dtype, shape = leaf["path"], leaf["dtype"], tuple(leaf["shape"])
            stop = start[dtype] + int(np.prod(shape, dtype=int))
            array = np.asarray(arrays[dtype])[start[dtype] : stop].reshape(shape)
            if digest(array) != leaf["sha256"]:
                raise Damaged(f"{path} is not what was written; its digest (SHA-256) differs")
            found[path], start[dtype] = array, stop
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"its list of arrays does not fit them ({type(error).__name__})") from None
    check_shapes(found, like)
    return jax.tree.unflatten(jax.tree.structure(like), [found[path] for path, _ in leaves(like)])


def room(index: list[Leaf]) -> dict[str, np.ndarray]:
    """Empty arrays of the packed lengths, to read into.

    Raises:
      Damaged: if the list is not one that `pack` makes.
    """
    length: dict[str, int] = {}
    for leaf in index:
        numbers = int(np.prod(leaf["shape"], dtype=int))
        length[leaf["dtype"]] = length.get(leaf["dtype"], 0) + numbers
    try:
        return {dtype: np.empty(count, jnp.dtype(dtype)) for dtype, count in length.items()}
    except (TypeError, ValueError) as error:
        raise Damaged(f"its list of arrays is broken ({type(error).__name__})") from None


def check_shapes(found: dict[str, np.ndarray], like: Any) -> None:
    """Refuses leaves whose paths or shapes differ from those of a tree.

    Raises:
      OtherTree: naming the first.
    """
    wanted = dict(leaves(like))
    for path in wanted | found:
        there, here = (tree.get(path) for tree in (found, wanted))
        if there is None or here is None or there.shape != here.shape:
            shapes = ["none" if each is None else f"shape {each.shape}" for each in (there, here)]
            raise OtherTree(f"{path} has {shapes[0]} in the checkpoint, {shapes[1]} in the network")
