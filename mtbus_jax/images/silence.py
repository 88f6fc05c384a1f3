"""Silences the decoding libraries, whose warnings and logs are about metadata, or quote it."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_LOGS = ("pydicom", "tifffile")
_lock = threading.Lock()
_inside = 0  # number of running blocks, in all threads
_before = contextlib.ExitStack()  # restores what was before the first of them


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses warnings, and log entries of these libraries, in the block.

    Warning filters belong to the whole process, and `warnings.catch_warnings` in several threads
    restores them in any order. So the first block sets them here, and the last one restores them.
    """
    global _inside
    with _lock:
        if not _inside:
            _before.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in _LOGS:
                log = logging.getLogger(name)
                _before.callback(setattr, log, "disabled", log.disabled)
                log.disabled = True
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _before.close()
