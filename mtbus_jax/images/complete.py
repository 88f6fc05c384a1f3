"""Whether a PNG or JPEG file holds all rows of its picture; Pillow fills missing rows silently."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

import numpy as np

from mtbus_jax.images import from_pillow
from mtbus_jax.images.depth import UnusableError
from mtbus_jax.images.silence import quiet

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of PNG
# First row and column, and steps between rows and columns, of the passes of an interlaced PNG.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
           (1, 0, 2, 1))  # fmt: skip
_AT_ONCE = 1 << 20
_BLOCK = 8  # side of the blocks that JPEG codes
# Entropy-coded bytes that change the picture if the decoder still waits for data, with the restart
# markers that some files have between their parts.
_MORE_JPEG = b"".join(bytes(range(1, 255)) + bytes([0xFF, 0xD0 + i % 8]) for i in range(16))
_END_OF_JPEG = b"\xff\xd9"


def check(file: BinaryIO, file_format: str, pixels: np.ndarray) -> None:
    """Refuses a file that is well-formed but ends early.

    Args:
      file: the file.
      file_format: Pillow's name of it; others than PNG and JPEG pass.
      pixels: ``(height, width, ...)`` as decoded from it, not turned.

    Raises:
      UnusableError: if rows are missing.
    """
    if file_format == "PNG":
        complete = _png_is_complete(file)
    elif file_format == "JPEG":
        complete = _jpeg_is_complete(file, pixels)
    else:
        complete = True
    if not complete:
        raise UnusableError("is cut: rows are missing at the end of the picture")


def _png_is_complete(file: BinaryIO) -> bool:
    """Compares the size of its unpacked data with the expected one."""
    file.seek(8)
    expected, found = None, 0
    unpacker = zlib.decompressobj()
    while len(head := file.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IHDR":
            expected = _png_bytes(file.read(length))
        elif name == b"IDAT":
            content = file.read(length)
            try:
                while content and found < expected:
                    found += len(unpacker.decompress(content, _AT_ONCE))
                    content = unpacker.unconsumed_tail
            except zlib.error:  # Pillow, which has decoded it, is more lenient
                return True
            if found >= expected:
                return True
        elif name == b"IEND":
            break
        else:
            file.seek(length, io.SEEK_CUR)
        file.seek(4, io.SEEK_CUR)  # its checksum
    return found >= expected


def _png_bytes(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte."""
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (0, 4))
    bits = header[8] * _CHANNELS[header[9]]
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    total = 0
    for row, col, row_step, col_step in passes:
        rows = len(range(row, height, row_step))
        cols = len(range(col, width, col_step))
        total += rows * (1 + (cols * bits + 7) // 8) if cols else 0
    return total


def _jpeg_is_complete(file: BinaryIO, pixels: np.ndarray) -> bool:
    """Decodes it again with extra data at its end, which changes only an incomplete picture.

    Missing blocks at the end are flat, so if the last block is not flat, nothing is missing.
    """
    last = pixels[-(pixels.shape[0] % _BLOCK or _BLOCK) :, -(pixels.shape[1] % _BLOCK or _BLOCK) :]
    if np.ptp(last.reshape(-1, *last.shape[2:]), axis=0).any():
        return True
    file.seek(0)
    content = file.read()
    end = content.rfind(_END_OF_JPEG)
    if end < 0:
        return True  # Pillow refuses such files
    more = io.BytesIO(content[:end] + _MORE_JPEG + content[end:])
    with quiet(), from_pillow.opened(more) as image:
        return np.array_equal(from_pillow.pixels(image)[0], pixels)
