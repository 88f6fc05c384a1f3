"""Makes groups of copies from pairs: the decision rule, the groups and checks on them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from mtbus_jax.curate.geometry import Geometry

# Least detail correlation at which the automatic rule calls a pair copies. On BUSI the unrelated
# pairs end at 0.11 and the copies that its authors' readers agreed on begin at 0.68.
THRESHOLD = 0.3
# Least overlap at which the detail correlation counts; a smaller one says little.
LEAST_OVERLAP = 0.15

_KINDS = {2: "duplet", 3: "triplet", 4: "quadruplet"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A candidate pair and everything known about it.

    Attributes:
      first: index of one image.
      second: index of the other, larger than ``first``.
      ssim: of both frames at the stated size.
      votes: how strongly local features of one recur in the other.
      geometry: the geometric check.
      identical: same size and same grey values.
    """

    first: int
    second: int
    ssim: float
    votes: float
    geometry: Geometry
    identical: bool = False

    @property
    def score(self) -> float:
        """The value that the automatic rule tests: 1 if identical, else the detail correlation.

        Zero where the frames hardly overlap.
        """
        if self.identical:
            return 1.0
        return self.geometry.detail if self.geometry.overlap >= LEAST_OVERLAP else 0.0

    def is_copy(self, threshold: float = THRESHOLD) -> bool:
        """The automatic rule."""
        return self.score >= threshold


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of the same frame, linked by accepted pairs.

    Attributes:
      name: such as ``triplet_07``.
      members: indices, ascending.
      pairs: the accepted pairs among them.
    """

    name: str
    members: tuple[int, ...]
    pairs: tuple[Pair, ...]


def kind(size: int) -> str:
    """``duplet``, ``triplet``, ``quadruplet``, ``5-tuplet`` …"""
    return _KINDS.get(size, f"{size}-tuplet")


def form_groups(n: int, accepted: Sequence[Pair]) -> list[Group]:
    """Connected sets of images, the largest first, then by first member.

    Args:
      n: number of images.
      accepted: the pairs taken for copies.

    Returns:
      Groups of two or more images.
    """
    rows, cols = [p.first for p in accepted], [p.second for p in accepted]
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n))
    _, component = csgraph.connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for index, number in enumerate(component):
        members.setdefault(int(number), []).append(index)
    sets = sorted((m for m in members.values() if len(m) > 1), key=lambda m: (-len(m), m[0]))
    counter: Counter[int] = Counter()
    groups = []
    for indices in sets:
        counter[len(indices)] += 1
        inside = set(indices)
        pairs = tuple(p for p in accepted if p.first in inside)
        name = f"{kind(len(indices))}_{counter[len(indices)]:03d}"
        groups.append(Group(name, tuple(indices), pairs))
    return groups


def structure(groups: Sequence[Group]) -> dict[str, int]:
    """How many groups of each kind, the largest kind first."""
    sizes = Counter(len(group.members) for group in groups)
    return {kind(size): sizes[size] for size in sorted(sizes, reverse=True)}


def conflicts(groups: Sequence[Group], label: Sequence[str]) -> list[Group]:
    """Groups whose members carry different class labels; an unknown label conflicts with none."""
    return [g for g in groups if len({label[m] for m in g.members} - {""}) > 1]


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two ``(height, width)`` bool masks; 1 for two empty ones."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def group_column(n: int, groups: Sequence[Group]) -> np.ndarray:
    """``(n,)`` str: each image's group name, or ``""``."""
    column = np.full(n, "", dtype=object)
    for group in groups:
        column[list(group.members)] = group.name
    return column.astype(str)
