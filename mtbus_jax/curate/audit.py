"""Finds near-duplicates, or patients, on both sides of a split; NumPy in, plain data out.

>>> report = audit_split(["a", "b", "c"], ["twins", "twins", ""], [0, 1, 1])
>>> report.touched
2
>>> print(report.summary())
1 of 1 groups sits in more than one fold: 2 of 3 test images (66.7 %) have a relative among the
images that train for them. The first: twins (fold 0: a; fold 1: b).
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from mtbus_jax.types import NO_FOLD


@dataclasses.dataclass(frozen=True)
class Leak:
    """A group on several sides of a split.

    Attributes:
      group: its name.
      uid: its images, by fold.
    """

    group: str
    uid: dict[str, tuple[str, ...]]

    def where(self) -> str:
        """``fold 0: a; fold 1: b``, long folds cut short."""
        parts = []
        for fold, names in self.uid.items():
            shown = ", ".join(names[:4]) + (f", … {len(names)} in all" if len(names) > 4 else "")
            parts.append(f"fold {fold}: {shown}")
        return "; ".join(parts)

    def __str__(self) -> str:
        """``twins (fold 0: a; fold 1: b)``."""
        return f"{self.group} ({self.where()})"


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What `audit_split` found.

    Attributes:
      images: number of images that are tested in some fold.
      groups: number of groups of at least two such images.
      leaks: the groups that are in more than one fold, the largest first.
      touched: number of images that have a relative in another fold, and so in their training set.
      tested: number of images in each fold.
      touched_in: number of touched images in each fold.
    """

    images: int
    groups: int
    leaks: tuple[Leak, ...]
    touched: int
    tested: dict[str, int]
    touched_in: dict[str, int]

    @property
    def clean(self) -> bool:
        """Whether no group is in more than one fold."""
        return not self.leaks

    def summary(self) -> str:
        """One paragraph."""
        if self.clean:
            return (
                f"No group sits in more than one fold ({self.groups} groups among {self.images} "
                f"images)."
            )
        share = 100 * self.touched / self.images
        verb = "sits" if len(self.leaks) == 1 else "sit"
        text = (
            f"{len(self.leaks)} of {self.groups} groups {verb} in more than one fold: "
            f"{self.touched} of {self.images} test images ({share:.1f} %) have a relative among "
            f"the images that train for them. The first: {self.leaks[0]}."
        )
        return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def audit_split(
    uid: Sequence[str] | np.ndarray,
    group: Sequence[str] | np.ndarray,
    fold: Sequence[int | str] | np.ndarray,
) -> AuditReport:
    """Audits a split in which each fold is tested by a model trained on the other folds.

    For a single split into training and test images, call the two folds ``train`` and ``test``;
    only ``touched_in["test"]`` matters then.

    Args:
      uid: ``(n,)`` names.
      group: ``(n,)`` names of near-duplicate groups or patients; ``""`` for an image in none.
      fold: ``(n,)`` test folds, numbers or names; images with `types.NO_FOLD` are left out.

    Returns:
      The report.

    Raises:
      ValueError: if the lengths differ or a uid occurs twice.
    """
    uid, group, fold = (np.asarray(x).astype(str) for x in (uid, group, fold))
    if not len(uid) == len(group) == len(fold):
        raise ValueError(f"{len(uid)} uids, {len(group)} groups and {len(fold)} folds")
    if len(np.unique(uid)) != len(uid):
        raise ValueError("a uid occurs twice")
    used = fold != str(NO_FOLD)
    uid, group, fold = uid[used], group[used], fold[used]
    leaks, groups, touched = [], 0, np.zeros(len(uid), bool)
    for name in np.unique(group[group != ""]):
        members = np.flatnonzero(group == name)
        groups += len(members) > 1
        folds = sorted(set(fold[members]))
        if len(folds) > 1:
            touched[members] = True
            by_fold = {f: tuple(uid[members[fold[members] == f]].tolist()) for f in folds}
            leaks.append(Leak(str(name), by_fold))
    leaks.sort(key=lambda leak: (-sum(map(len, leak.uid.values())), leak.group))
    names = sorted(set(fold.tolist()))
    return AuditReport(
        images=len(uid),
        groups=groups,
        leaks=tuple(leaks),
        touched=int(touched.sum()),
        tested={name: int((fold == name).sum()) for name in names},
        touched_in={name: int(touched[fold == name].sum()) for name in names},
    )
