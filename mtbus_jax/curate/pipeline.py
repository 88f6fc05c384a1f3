"""Finds the groups of copies in a folder of images; `output` writes the findings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mtbus_jax.curate import candidates, folder, groups, ssim
from mtbus_jax.curate.archive import Archive, read_archive
from mtbus_jax.curate.geometry import compare
from mtbus_jax.errors import UserError

# Candidates: pairs with this many votes, and the best few of each image by SSIM.
_LEAST_VOTES = 2.0
_LEAST_MIRRORED_VOTES = 3.0
_VOTED_PER_IMAGE = 20
_SIMILAR_PER_IMAGE = 2
_LOOK_ALIKES = 32
_THREADS = max(1, os.cpu_count() or 1)


def _silent(line: str) -> None:
    """Reports nothing."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of the recognition.

    Attributes:
      size: side in pixels of the square images that SSIM sees.
      full_ssim_up_to: number of images up to which SSIM is computed for every pair.
      threshold: least detail correlation at which the automatic rule calls a pair copies.
      report: receives one line about each stage.
    """

    size: int = 128
    full_ssim_up_to: int = 3000
    threshold: float = groups.THRESHOLD
    report: Callable[[str], None] = _silent


@dataclasses.dataclass(frozen=True)
class Findings:
    """The result.

    Attributes:
      archive: the images.
      ssim: ``(n, n)`` float32, or None if only candidates were measured.
      pairs: every candidate pair that was checked, highest SSIM first.
      accepted: the pairs taken for copies.
      groups: groups that the accepted pairs form.
      decided_by: ``automatic rule`` or the name of the accepted-pairs file.
      options: settings.
    """

    archive: Archive
    ssim: np.ndarray | None
    pairs: list[groups.Pair]
    accepted: list[groups.Pair]
    groups: list[groups.Group]
    decided_by: str
    options: Options


def check_pairs(
    archive: Archive, pairs: np.ndarray, *, mirrored: bool = False
) -> list[groups.Geometry]:
    """The geometric check of chosen pairs; reads images again, so that few are in memory at once.

    Args:
      archive: the images.
      pairs: ``(m, 2)`` indices, sorted.
      mirrored: mirror the first image.
    """
    names = np.unique(pairs)

    def check(rows: np.ndarray) -> list[groups.Geometry]:
        # Neighbouring pairs share their first image.
        cache: dict[int, np.ndarray] = {}

        def grey(index: int) -> np.ndarray:
            if index not in cache:
                if len(cache) > 64:
                    cache.clear()
                cache[index] = folder.read_picture(archive.entries[index]).grey
            return cache[index]

        return [
            compare(grey(a), grey(b), archive.features[a], archive.features[b], mirrored=mirrored)
            for a, b in rows
        ]

    if not len(names):
        return []
    chunks = np.array_split(pairs, min(len(pairs), 4 * _THREADS))
    with ThreadPoolExecutor(_THREADS) as pool:
        return [geometry for chunk in pool.map(check, chunks) for geometry in chunk]


def identical_pairs(digest: Sequence[str]) -> np.ndarray:
    """``(m, 2)`` pairs of consecutive images in each set of identical pictures."""
    last: dict[str, int] = {}
    pairs = []
    for index, value in enumerate(digest):
        if value in last:
            pairs.append((last[value], index))
        last[value] = index
    return np.array(pairs, np.int64).reshape(-1, 2)


def find_pairs(archive: Archive, options: Options) -> tuple[np.ndarray | None, list[groups.Pair]]:
    """Proposes candidate pairs and measures them.

    Returns:
      The SSIM matrix (None in large archives), and the pairs, highest SSIM first.
    """
    n = len(archive.entries)
    matrix = None
    if n <= options.full_ssim_up_to:
        options.report(f"SSIM of all {n * (n - 1) // 2:,} pairs")
        matrix = ssim.ssim_matrix(archive.small)
        masked = matrix - 2 * np.eye(n, dtype=np.float32)
        best = np.argsort(-masked, axis=1, kind="stable")[:, :_SIMILAR_PER_IMAGE]
        similar = np.stack([np.repeat(np.arange(n), best.shape[1]), best.ravel()], 1)
    else:
        options.report("SSIM of the pairs whose thumbnails look alike")
        near = candidates.look_alikes(archive.small, per_image=_LOOK_ALIKES)
        values = ssim.ssim_pairs(archive.small, near)
        similar = _best_per_image(near, values, n)
    options.report("votes of local features")
    index = candidates.FeatureVotes(archive.features)
    votes = index.votes()
    mirrored_votes = index.votes(mirrored=True)
    identical = identical_pairs(archive.digest)
    direct = candidates.unique_pairs(
        np.concatenate(
            [
                similar,
                identical,
                candidates.strongest(votes, per_image=_VOTED_PER_IMAGE, least=_LEAST_VOTES),
            ]
        )
    )
    flipped = candidates.strongest(
        mirrored_votes, per_image=_VOTED_PER_IMAGE, least=_LEAST_MIRRORED_VOTES
    )
    options.report(f"geometric check of {len(direct):,} pairs and {len(flipped):,} mirrored ones")
    geometry = dict(zip(map(tuple, direct.tolist()), check_pairs(archive, direct), strict=True))
    for key, found in zip(
        map(tuple, flipped.tolist()), check_pairs(archive, flipped, mirrored=True), strict=True
    ):
        if key not in geometry or found.detail > geometry[key].detail:
            geometry[key] = found
    keys = sorted(geometry)
    if matrix is not None:
        values = [float(matrix[key]) for key in keys]
    else:
        values = ssim.ssim_pairs(archive.small, np.array(keys, np.int64)).tolist()
    pairs = [
        groups.Pair(
            first=key[0],
            second=key[1],
            ssim=value,
            votes=float((mirrored_votes if geometry[key].mirrored else votes)[key]),
            geometry=geometry[key],
            identical=archive.digest[key[0]] == archive.digest[key[1]],
        )
        for key, value in zip(keys, values, strict=True)
    ]
    return matrix, sorted(pairs, key=lambda p: (-p.ssim, p.first, p.second))


def _best_per_image(pairs: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Of each image's pairs, the `_SIMILAR_PER_IMAGE` of highest value."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.lexsort((-np.concatenate([values, values]), both[:, 0]))
    both = both[order]
    start = np.searchsorted(both[:, 0], np.arange(n))
    rank = np.arange(len(both)) - start[both[:, 0]]
    return both[rank < _SIMILAR_PER_IMAGE]


def accept(
    archive: Archive,
    pairs: Sequence[groups.Pair],
    names: Iterable[tuple[str, str]],
) -> list[groups.Pair]:
    """The pairs that a person accepted; a pair that was not a candidate is checked now.

    Args:
      archive: the images.
      pairs: the candidates.
      names: uids of each accepted pair.

    Raises:
      UserError: for an image that the archive does not hold.
    """
    number = {uid: index for index, uid in enumerate(archive.uid)}
    known = {(p.first, p.second): p for p in pairs}
    accepted, missing = [], []
    for names_of_pair in names:
        for uid in names_of_pair:
            if uid not in number:
                raise UserError(
                    f"--accepted names {uid!r}, which is not an image of this archive (or could "
                    "not be read). Give the file that the review sheet of this archive saved."
                )
        key = tuple(sorted(number[uid] for uid in names_of_pair))
        if key[0] == key[1]:
            raise UserError(f"--accepted pairs {names_of_pair[0]!r} with itself.")
        if key in known:
            accepted.append(known[key])
        else:
            missing.append(key)
    if missing:
        extra = np.array(missing, np.int64)
        values = ssim.ssim_pairs(archive.small, extra)
        for key, value, geometry in zip(missing, values, check_pairs(archive, extra), strict=True):
            same = archive.digest[key[0]] == archive.digest[key[1]]
            accepted.append(groups.Pair(*key, float(value), 0.0, geometry, same))
    unique = {(p.first, p.second): p for p in accepted}
    return [unique[key] for key in sorted(unique)]


def group_names(root: Path, pictures: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """Groups pictures that are near-duplicates of each other, by the automatic rule.

    Args:
      root: the folder that they lie in.
      pictures: name and file of each, two or more.

    Returns:
      Names of the groups by name of the picture; pictures in no group are left out.

    Raises:
      UserError: if fewer than two of them can be compared.
    """
    archive = read_archive(root, entries=[folder.Entry(uid, path) for uid, path in pictures])
    options = Options()
    _, pairs = find_pairs(archive, options)
    accepted = [pair for pair in pairs if pair.is_copy(options.threshold)]
    found = groups.form_groups(len(archive.entries), accepted)
    return {archive.entries[i].uid: group.name for group in found for i in group.members}


def curate(
    root: Path,
    options: Options | None = None,
    accepted: tuple[str, list[tuple[str, str]]] | None = None,
) -> Findings:
    """Finds the groups of copies in an archive.

    Args:
      root: folder of images.
      options: settings.
      accepted: name of the accepted-pairs file and its pairs of uids; without it the automatic
        rule decides.
    """
    options = options or Options()
    archive = read_archive(root, size=options.size, report=options.report)
    matrix, pairs = find_pairs(archive, options)
    if accepted is None:
        chosen = [p for p in pairs if p.is_copy(options.threshold)]
        decided_by = "automatic rule"
    else:
        chosen = accept(archive, pairs, accepted[1])
        decided_by = accepted[0]
    return Findings(
        archive=archive,
        ssim=matrix,
        pairs=pairs,
        accepted=chosen,
        groups=groups.form_groups(len(archive.entries), chosen),
        decided_by=decided_by,
        options=options,
    )
