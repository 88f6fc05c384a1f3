"""Decodes a DICOM file in a separate process, because GDCM ends its process on damaged data.

A process that gives no frame for two minutes is killed, which counts as a failure.

    python -m mtbus_jax.images.apart FILE TRANSFER_SYNTAX

writes the frames to standard output, each as a line of JSON (type and shape) and its bytes. With
``-`` for FILE its content comes from standard input.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_PATIENCE = 120.0  # seconds
_ROOT = Path(__file__).resolve().parents[2]  # holds the package


def frames(source: Path | bytes, syntax: str) -> Iterator[np.ndarray]:
    """Pixels of the frames, one at a time, as stored; YCbCr turned to RGB.

    Args:
      source: path of the file, or its content.
      syntax: UID of its transfer syntax.

    Raises:
      RuntimeError: if a frame cannot be decoded, or the process ends or hangs; frames before it
        have been given.
    """
    in_memory = isinstance(source, bytes)
    file = "-" if in_memory else os.path.abspath(source)
    command = [sys.executable, "-m", "mtbus_jax.images.apart", file, syntax]
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if in_memory else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        if in_memory:  # the process reads all of it before it writes anything
            with _watched(process), contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(source)
        while (pixels := _frame(process)) is not None:
            yield pixels
        if process.wait():
            raise RuntimeError(f"the decoder ended with code {process.returncode}")
    finally:  # the caller may stop early
        process.kill()
        process.stdout.close()
        process.wait()


def _frame(process: subprocess.Popen) -> np.ndarray | None:
    """The next frame that a process writes; None if the process ends before it is complete."""
    with _watched(process):
        line = process.stdout.readline()
        if not line:
            return None
        dtype, shape = json.loads(line)
        count = np.dtype(dtype).itemsize * int(np.prod(shape))
        content = process.stdout.read(count)
    return np.frombuffer(content, dtype).reshape(shape) if len(content) == count else None


@contextlib.contextmanager
def _watched(process: subprocess.Popen) -> Iterator[None]:
    """Kills a process if the block takes too long, which ends any reading from it."""
    timer = threading.Timer(_PATIENCE, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def main(path: str, syntax: str) -> None:
    """Writes the frames of a file to standard output."""
    from pydicom.pixels import iter_pixels

    source = io.BytesIO(sys.stdin.buffer.read()) if path == "-" else path
    for pixels in iter_pixels(source, transfer_syntax_uid=syntax):
        head = json.dumps([pixels.dtype.str, pixels.shape])
        sys.stdout.buffer.write(head.encode() + b"\n" + pixels.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
