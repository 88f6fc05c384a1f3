"""Where compiled programs are kept between starts, and what keeps them from doing harm.

A compiled program is machine code that JAX loads without checking it: one flipped bit gives wrong
numbers or a crash. So each program has its digest beside it. One whose digest differs, or that has
none because the process that wrote it was killed, is removed before JAX is told of the folder.
Nothing is kept unless only its owner can write to the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import stat
import sys
from pathlib import Path

import jax

from mtbus_jax import files
from mtbus_jax.errors import UserError, reason

# JAX's name for an entry; other files of the folder are left alone.
_ENTRIES = "*-cache"
_DIGESTS = "digests"


def open_cache() -> None:
    """Keeps compiled programs on disk, so that a second start need not compile again.

    In ``$XDG_CACHE_HOME/mtbus_jax/xla`` (default ``~/.cache``), unless JAX's own
    ``JAX_COMPILATION_CACHE_DIR`` names a folder, which JAX then uses as usual. A folder that cannot
    be made, or that others can write to, is reported on standard error, and nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(root).expanduser() / "mtbus_jax" / "xla"
    problem = make_private(folder)
    if problem:
        print(f"compiled programs are not kept: {problem}", file=sys.stderr, flush=True)
        return
    forget_changed(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    atexit.register(sign, folder)


def make_private(folder: Path) -> str:
    """Makes a folder that only its owner can write to; returns why that failed, or ""."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid"):
            if status.st_uid != os.getuid():
                return f"{folder} belongs to another user. Set XDG_CACHE_HOME to a folder of yours."
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return f"{folder} can be written by others. Remove it, or set XDG_CACHE_HOME."
    except OSError as error:
        return f"{folder} cannot be made ({reason(error)})."
    return ""


def sign(folder: Path) -> None:
    """Writes the digest of each entry that has none."""
    for path in folder.glob(_ENTRIES):
        known = _digest_path(path)
        with contextlib.suppress(
            OSError, UserError
        ):  # a full disk costs no more than a compilation
            if not known.exists():
                known.parent.mkdir(exist_ok=True, mode=0o700)
                files.write_text(known, _digest(path))


def forget_changed(folder: Path) -> int:
    """Removes each entry that is not what was signed; returns how many."""
    removed = 0
    for path in folder.glob(_ENTRIES):
        known = _digest_path(path)
        try:
            same = known.read_text(encoding="utf-8", errors="replace") == _digest(path)
        except OSError:
            same = False
        if not same:
            removed += 1
            for each in (path, known):
                with contextlib.suppress(OSError):
                    each.unlink(missing_ok=True)
    return removed


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_path(entry: Path) -> Path:
    return entry.parent / _DIGESTS / entry.name
