"""Handles SIGTERM, which schedulers send before they kill: finishes and saves the current epoch.

The scheduler then waits a while, 30 seconds on SLURM and Kubernetes, and kills what is left. An
epoch that cannot finish in time is abandoned; `training.fold` has then saved the one before it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from mtbus_jax.errors import Stopped
from mtbus_jax.runtime import parallel

# For computing; the rest of the 30 seconds is for writing.
GRACE_SECONDS = 20.0


class _Request:
    """The request to stop; signals belong to the process, so there is only one."""

    at: float | None = None
    deferred = False


_request = _Request()


@contextlib.contextmanager
def on_sigterm() -> Iterator[None]:
    """SIGTERM in the block raises `Stopped`, or within `deferred` waits for `check`.

    Does nothing outside the main thread, or if SIGTERM already has another handler.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    _request.at = None
    signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _request.at = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """SIGTERM in the block is only recorded; the code in it calls `check` and `asked`."""
    _request.deferred = True
    try:
        yield
    finally:
        _request.deferred = False


def _handle(number: int, frame: object) -> None:
    if not _request.deferred:
        raise stopped()
    # Often it comes twice, to the process and to its group; the second must not interrupt saving.
    if _request.at is None:
        _request.at = time.monotonic()


def stopped() -> Stopped:
    """What ends a process that SIGTERM has asked to end."""
    return Stopped("stopped by SIGTERM.", signal.SIGTERM)


def check(seconds_to_go: float) -> None:
    """Abandons an epoch that cannot finish in time.

    With several processes it does nothing: they must leave an epoch together.

    Args:
      seconds_to_go: estimated seconds until its end.

    Raises:
      Stopped: if SIGTERM has come and the time is too short.
    """
    if _request.at is None or parallel.process_count() > 1:
        return
    if time.monotonic() + seconds_to_go > _request.at + GRACE_SECONDS:
        raise stopped()


def asked() -> bool:
    """Whether SIGTERM has come, to any of the processes; all of them must ask at the same time."""
    return parallel.any_process(_request.at is not None)
