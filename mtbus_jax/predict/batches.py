"""The pictures that go through the network, in the batches of a prediction that never stopped.

Numbers depend, in their last digits, on which pictures a batch holds. So a prediction that goes on
fills up batches with pictures that are done, whose results it leaves as they are.
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
      done: whether it has its results already, and only fills its batch.
      stamp: at the end, of the file before it was read; None if it could not be read to its end.
      frames: at the end, how many pictures it gave.
      error: at the end, why it gave no more of them.
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
    """Reads what is to be predicted.

    Args:
      sources: all files, in order.
      done: how many pictures those have that are finished, by name.
      batch_size: pictures that go through the network together.

    Yields:
      Pictures, and after those of each file that is not finished its end. Batches of which all
      pictures are done are left out.
    """
    place, opened = 0, False  # pictures of the batch so far; whether one of them is not done
    held: list[tuple[images.Source, int, int]] = []  # the done ones in front, frames from and to
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
    """The pictures of a file, and its end."""
    count, stamp, failure = 0, None, None
    with contextlib.suppress(OSError):  # reading it says why
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
