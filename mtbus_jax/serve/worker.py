"""The one thread that predicts, and the places for requests that wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from mtbus_jax import images
from mtbus_jax.predict import Prediction, Predictor

Result = TypeVar("Result")


class Full(Exception):
    """No place is free."""


class Unusable(Exception):
    """A picture that cannot be read, or has no such frame; the message is a whole sentence."""


class Worker:
    """Reads and predicts one picture after the other, in one thread.

    Attributes:
      predictor: the ensemble.
      places: requests that may be here at once: the one being worked on and those that wait.
      taken: occupied places; like `place`, used only from the thread of the event loop.
    """

    def __init__(self, predictor: Predictor, *, queue: int):
        """Starts no thread yet.

        Args:
          predictor: used by the thread alone from now on.
          queue: how many may wait.
        """
        self.predictor, self.places, self.taken = predictor, queue + 1, 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")

    def warm_up(self) -> None:
        """Predicts an empty picture, so that the first request finds everything compiled."""
        empty = images.from_array(np.zeros(self.predictor.image_size, np.uint8))
        self._pool.submit(lambda: list(self.predictor.stream([empty]))).result()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place during the block; only there may a request keep a picture in memory.

        Raises:
          Full: if none is free.
        """
        if self.taken >= self.places:
            raise Full
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def submit(
        self, content: bytes, name: str, number: int, finish: Callable[[Prediction], Result]
    ) -> Future[Result]:
        """Queues a picture for prediction.

        Args:
          content: content of the file.
          name: name of the file, for messages and to tell its type if the content does not.
          number: number of the frame, from 1.
          finish: makes the answer from the prediction, in the same thread: encoding a large mask
            takes a while, and the event loop has other clients.

        Returns:
          A future of the answer; it raises `Unusable` if there is no such picture.
        """
        return self._pool.submit(self._work, content, name, number, finish)

    def _work(
        self, content: bytes, name: str, number: int, finish: Callable[[Prediction], Result]
    ) -> Result:
        frame = _frame(content, name, number)
        (prediction,) = self.predictor.stream([frame])
        return finish(prediction)

    def close(self) -> None:
        """Ends the thread after its current picture."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _frame(content: bytes, name: str, number: int) -> images.Frame:
    """One picture of a file; those before it are decoded on the way, those after it are not."""
    count = 0
    found = images.read_content(content, name)
    try:
        for frame in found:
            count += 1
            if count == number:
                return frame
    except images.ReadError as error:
        raise Unusable(f"The file {error.reason}.") from None
    finally:
        found.close()
    raise Unusable(f"The file has {count} picture{'s' * (count != 1)}, so there is no {number}.")
