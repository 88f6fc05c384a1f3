"""Feeds pictures to the network in the same batches as a prediction that was never stopped.

The last digits of the results depend on which pictures share a batch. So a continued prediction
fills its batches up with pictures that are already done, and leaves their results as they are.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from mtbus_jax import images
from mtbus_jax.predict.progress import Stamp


class Item(NamedTuple):
    """A picture, or the end of a source.

    Attributes:
      source: the file.
      frame: the picture; None for the end.
      done: whether it already has its results and only fills up the batch.
      stamp: at the end, the file's stamp from before it was read; None if reading failed.
      frames: at the end, how many pictures the file gave.
      error: at the end, why reading failed; None if it did not.
    """

    source: images.Source
    frame: images.Frame | None = None
    done: bool = False
    stamp: Stamp | None = None
    frames: int = 0
    error: images.ReadError | None = None


def items(
    sources: Iterable[images.Source], done: Mapping[str, int], batch_size: int
) -> Iterator[Item]:
    """Reads the pictures to predict.

    Args:
      sources: all files, in order.
      done: number of pictures of each finished file, by name.
      batch_size: pictures that go through the network together.

    Yields:
      Pictures, and an end item after the pictures of each unfinished file. Batches whose pictures
      are all done are left out.
    """
    place, opened = 0, False  # pictures of the batch so far; whether one of them is not done
    held: list[tuple[images.Source, int, int]] = []  # done pictures in front: frames from and to
    for source in sources:
        if source.name in done:
            start, count = 0, done[source.name]
            while start < count:
                end = min(start + batch_size - place, count)
                if opened:
                    yield from _again(source, start, end)
                else:
                    held.append((source, start, end))
                place, start = place + end - start, end
                if place == batch_size:
                    place, opened = 0, False
                    held.clear()
            continue
        for item in _read(source):
            if item.frame is not None:
                if not opened:
                    for part in held:
                        yield from _again(*part)
                    held.clear()
                place, opened = place + 1, True
                if place == batch_size:
                    place, opened = 0, False
            yield item


def _read(source: images.Source) -> Iterator[Item]:
    """Yields the pictures of a file, then its end."""
    count, stamp, failure = 0, None, None
    with contextlib.suppress(OSError):  # `images.read` reports why
        stamp = Stamp.of(source.path)
    try:
        for frame in images.read(source.path):
            yield Item(source, frame)
            count += 1
    except images.ReadError as error:
        stamp, failure = None, error
    yield Item(source, stamp=stamp, frames=count, error=failure)


def _again(source: images.Source, start: int, end: int) -> Iterator[Item]:
    """Pictures of a file that is finished, to fill a batch."""
    try:
        for frame in itertools.islice(images.read(source.path), start, end):
            yield Item(source, frame, done=True)
    except images.ReadError:
        return  # it has its results; the batch goes without
