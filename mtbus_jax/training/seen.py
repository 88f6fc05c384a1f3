"""Recognises the pictures of a run by their content, under any name and without the pictures.

``pictures.json`` in a run folder or a bundle has a digest of each picture as the network sees it,
so a copy is recognised at the same resolution, resizing and enhancement. A picture that was saved
again with lossy compression, cropped or rotated is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from mtbus_jax import files, types

PICTURES = "pictures.json"
_CONTENT = {
    "image_size": [int],
    "resize": str,
    "enhancement": str,
    "digests": [str],
    "uids?": [str],
}
_MEND = "Restore the file, or remove it: training pictures are then recognised by name alone"


class Seen(NamedTuple):
    """The pictures of a run.

    Attributes:
      how: height and width in pixels, resizing and enhancement behind the digests.
      digests: in the order of ``uids``, or sorted.
      uids: image ids; None in a bundle, which names no pictures.
    """

    how: tuple[int | str, ...]
    digests: list[str]
    uids: list[str] | None


def digests(cases: types.Cases) -> list[str]:
    """For each image 16 hexadecimal digits that are equal for equal pixels.

    "" for an image of one grey value, which says nothing about where it comes from.
    """
    return [
        hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()[:16]
        if image.min() < image.max()
        else ""
        for image in np.ascontiguousarray(cases.image, np.uint8)
    ]


def write(
    folder: Path,
    cases: types.Cases,
    config: config_dict.ConfigDict,
    *,
    named: bool = True,
    earlier: Sequence[Path] = (),
) -> None:
    """Writes ``pictures.json``.

    Args:
      folder: a run folder or a bundle.
      cases: the run's dataset.
      config: of the run.
      named: whether to include the ids of images.
      earlier: runs whose pictures count as well, without ids: those that the weights came from.
    """
    height, width = config.data.image_size
    found = digests(cases)
    for there in map(read, earlier):
        if there is not None and there.how == how(config):
            found += there.digests
    content = {
        "image_size": [height, width],
        "resize": config.data.resize,
        "enhancement": config.data.enhancement,
        "digests": found if named else sorted(set(found)),
    }
    if named:
        content["uids"] = cases.uid.tolist()
    files.write_json(folder / PICTURES, content)


def read(folder: Path) -> Seen | None:
    """What `write` wrote; None in a folder from before it was written.

    Raises:
      UserError: if the file is broken.
    """
    path = folder / PICTURES
    if not path.exists():
        return None
    content = files.read_json(path, _CONTENT, mend=_MEND)
    uids = content.get("uids")
    if uids is not None and len(uids) != len(content["digests"]):
        raise files.broken(path, "uids is not as long as digests", _MEND)
    how = (*content["image_size"], content["resize"], content["enhancement"])
    return Seen(how, content["digests"], uids)


def how(config: config_dict.ConfigDict) -> tuple[int | str, ...]:
    """How a configuration prepares pictures for the network, as in `Seen.how`."""
    return (*config.data.image_size, config.data.resize, config.data.enhancement)


def known(folder: Path, cases: types.Cases, config: config_dict.ConfigDict) -> np.ndarray | None:
    """Which images are pictures of a run.

    Args:
      folder: of the run, or a bundle.
      cases: n images.
      config: the configuration that prepared them.

    Returns:
      ``(n,)`` bool; None if the run does not say, or prepared its pictures differently.

    Raises:
      UserError: if the run's ``pictures.json`` is broken.
    """
    there = read(folder)
    if there is None or there.how != how(config):
        return None
    return np.isin(digests(cases), sorted({*there.digests} - {""}))
