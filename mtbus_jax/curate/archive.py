"""The data kept in memory while an archive is searched for copies; the pixels stay on disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mtbus_jax.curate import folder, marks
from mtbus_jax.curate.features import LocalFeatures, local_features
from mtbus_jax.errors import UserError
from mtbus_jax.images.preprocess import resize_nearest

# Standard deviation in grey values. An image with less contrast shows nothing to compare.
_BLANK = 1.0
_THREADS = max(1, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Archive:
    """The data kept in memory of each readable image, ``n`` in all.

    Attributes:
      entries: the file of each image, with its class, patient and masks.
      small: ``(n, size, size)`` uint8.
      mask: ``(n, size, size)`` bool; empty where there is no mask.
      has_mask: ``(n,)`` bool.
      features: local features.
      digest: equal for identical pictures.
      marks: marks, text and colour found in each image.
      problems: files that were left out or whose mask was left out.
    """

    entries: list[folder.Entry]
    small: np.ndarray
    mask: np.ndarray
    has_mask: np.ndarray
    features: list[LocalFeatures]
    digest: list[str]
    marks: list[marks.Marks]
    problems: list[folder.Problem]

    @property
    def uid(self) -> list[str]:
        """Names, in order."""
        return [entry.uid for entry in self.entries]

    @property
    def label(self) -> list[str]:
        """Class names, in order; ``""`` where unknown."""
        return [entry.label for entry in self.entries]


def read_archive(
    root: Path,
    *,
    size: int = 128,
    report: Callable[[str], None] | None = None,
    entries: list[folder.Entry] | None = None,
) -> Archive:
    """Reads every image once.

    Args:
      root: folder of images.
      size: side in pixels of the square images that SSIM sees.
      report: receives one line before the work begins.
      entries: the images; None for all below ``root``.

    Returns:
      The images that can be compared, at least two.

    Raises:
      UserError: if fewer than two images can be compared.
    """
    listing = folder.list_folder(root) if entries is None else folder.Listing(entries, [])
    entries = listing.entries
    if report:
        report(f"reading {len(entries)} images below {root}")

    def read(entry: folder.Entry):
        try:
            return _read(entry, size)
        except Exception as error:  # one file must not stop the others
            reason = f"cannot be compared ({type(error).__name__})"
            return None, [folder.Problem(entry.path, reason)]

    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(read, entries))
    problems = listing.problems + [problem for _, found in results for problem in found]
    images = [image for image, _ in results if image is not None]
    if len(images) < 2:
        reasons = "; ".join(f"{p.file.rpartition('/')[2]} {p.reason}" for p in problems[:3])
        raise UserError(
            f"{root} holds {len(images)} image{'' if len(images) == 1 else 's'} that can be "
            f"compared; at least two are needed. {reasons}"
        )
    columns = list(zip(*images, strict=True))
    return Archive(
        entries=list(columns[0]),
        small=np.stack(columns[1]),
        mask=np.stack(columns[2]),
        has_mask=np.array(columns[3]),
        features=list(columns[4]),
        digest=list(columns[5]),
        marks=list(columns[6]),
        problems=problems,
    )


def _read(entry: folder.Entry, size: int) -> tuple[tuple | None, list[folder.Problem]]:
    """Reads an image: its values in the order of `Archive`, None if it cannot be compared."""
    try:
        picture = folder.read_picture(entry)
    except ValueError as error:
        return None, [folder.Problem(entry.path, str(error))]
    if picture.grey.std() < _BLANK:
        return None, [folder.Problem(entry.path, "shows a single colour, nothing to compare")]
    problems, mask = [], None
    if picture.count > 1:
        reason = f"holds {picture.count} pictures, of which the first is compared"
        problems.append(folder.Problem(entry.path, reason))
    try:
        mask, odd = folder.read_mask(entry, picture.grey.shape)
        problems += [folder.Problem(entry.path, each) for each in odd]
    except ValueError as error:
        problems.append(folder.Problem(entry.path, f"its mask is not used: {error}"))
    small_mask = np.zeros((size, size), bool)
    if mask is not None:
        small_mask = resize_nearest(mask, size, size)
    return (
        entry,
        resize_nearest(picture.grey, size, size),
        small_mask,
        mask is not None,
        local_features(picture.grey),
        picture.digest,
        marks.find_marks(picture.grey, picture.colour),
    ), problems
