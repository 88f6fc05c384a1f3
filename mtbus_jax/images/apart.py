"""Decodes a DICOM file in a process of its own, for GDCM, which ends its process on damaged data.

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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]  # holds the package


def frames(source: Path | bytes, syntax: str) -> Iterator[np.ndarray]:
    """Pixels of the frames, one at a time, as stored; YCbCr turned to RGB.

    Args:
      source: path of the file, or its content.
      syntax: UID of its transfer syntax.

    Raises:
      RuntimeError: if a frame cannot be decoded, or the process ends; frames before it have been
        given.
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
        if in_memory:  # all of it is read there before anything is written
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(source)
        while line := process.stdout.readline():
            dtype, shape = json.loads(line)
            count = np.dtype(dtype).itemsize * int(np.prod(shape))
            content = process.stdout.read(count)
            if len(content) < count:
                break
            yield np.frombuffer(content, dtype).reshape(shape)
        if process.wait():
            raise RuntimeError(f"the decoder ended with code {process.returncode}")
    finally:  # a caller may want no more frames
        process.kill()
        process.stdout.close()
        process.wait()


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
