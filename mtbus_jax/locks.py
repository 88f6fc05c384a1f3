"""One process at a time: a lock file that says who holds it.

The operating system keeps the lock (``flock``), so it ends with its process, however that ends.
Where a file system has no such locks, the text in the file decides: the process that it names holds
the lock until it is gone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Between taking the lock and writing its text, the holder of a lock is nameless for a moment.
_TEXT_SECONDS = 1.0


@contextlib.contextmanager
def hold(path: Path) -> Iterator[str | None]:
    """Holds a lock for the block, if no other process does; never waits for it.

    Args:
      path: the lock file, made with its folder if missing. It is left empty afterwards and not
        removed: a process that has opened it meanwhile must not lock a file without a name.

    Yields:
      None if the lock is held now; else a text saying who holds it.

    Raises:
      OSError: if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _is_free(file):
            yield _in_words(_text(file))
            return
        own = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        file.truncate(0)
        file.write(json.dumps(own) + "\n")
        file.flush()
        try:
            yield None
        finally:
            file.truncate(0)


def _is_free(file: IO[str]) -> bool:
    """Takes the lock of an open file if it is free; returns whether it was."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return not _is_alive(_read(file))


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process of a text may still run; one on another machine always may."""
    if not holder:
        return False
    return holder["host"] != socket.gethostname() or is_running(holder["process"])


def is_running(process: int) -> bool:
    """Whether this machine has a process with that number; True if that cannot be told."""
    if os.name == "nt":  # signal 0 does more than ask there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs but belongs to another user
        return True
    return True


def _text(file: IO[str]) -> dict[str, Any]:
    deadline = time.monotonic() + _TEXT_SECONDS
    while not (found := _read(file)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _read(file: IO[str]) -> dict[str, Any]:
    """What the holder wrote; empty if it is not there yet, or not this module's."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    whole = isinstance(found, dict) and isinstance(found.get("host"), str)
    return found if whole and type(found.get("process")) is int and "since" in found else {}


def _in_words(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder['process']} on {holder['host']}, started {holder['since']}"
