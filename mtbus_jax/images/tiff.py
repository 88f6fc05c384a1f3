"""TIFF files: up to 8 bits through Pillow, above 8 bits or signed through tifffile.

For pictures above 8 bits, Pillow shows WhiteIsZero as a negative, scrambles separate planes, cuts
colour to its upper 8 bits, and does not support many types. tifffile supports them, but needs
another package for some kinds of compression; those go through Pillow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mtbus_jax.images import from_pillow
from mtbus_jax.images.depth import Extents, UnusableError, of_bits
from mtbus_jax.images.frame import Decoded, check_size, decoded
from mtbus_jax.images.silence import quiet

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # values of the photometric interpretation
_SEPARATE_PLANES = 2  # of the planar configuration
_SIGNED = 2  # of the sample format
_ORIENTATION = 274  # tag
_DEFLATE, _LZMA = (8, 32946), 34925  # values of the compression that Python unpacks for tifffile
_SLACK = 1 << 16  # bytes behind the data that some writers leave


def decode(file: BinaryIO, *, smallest: int) -> Iterator[Decoded]:
    """The pages of a file in order, those above 8 bits on a common scale.

    Args:
      file: open file.
      smallest: least height and width.

    Raises:
      UnusableError: for a page of a kind that cannot be read.
      Exception: of nearly any other type where the file is damaged.
    """
    with contextlib.ExitStack() as stack:
        pages = _Pages(file, stack)
        extents = Extents()
        if pages.count > 1:
            for index in filter(pages.is_deep, range(pages.count)):
                try:
                    extents.add(pages.values(index, smallest)[0])
                except Exception:  # reported when the page is decoded
                    break
        for index in range(pages.count):
            number = index + 1 if pages.count > 1 else None
            found = _page(pages, index, extents, smallest)
            yield dataclasses.replace(found, number=number, count=pages.count)


def _page(pages: _Pages, index: int, extents: Extents, smallest: int) -> Decoded:
    values, notes = pages.values(index, smallest)
    scale = None
    if pages.is_deep(index):
        bits = pages.bits(index)
        declared = values.dtype.kind == "u" and 8 < bits < 8 * values.dtype.itemsize
        scale = of_bits(bits) if declared else extents.scale(values.dtype)
    found = decoded(values, scale, smallest=smallest)
    pixels = found.pixels
    if pages.is_negative(index) and values.dtype.kind == "f":
        pixels = 255 - pixels
    return dataclasses.replace(found, pixels=pixels, notes=(*notes, *found.notes))


class _Pages:
    """The pages of an open file.

    Attributes:
      count: how many there are.
    """

    def __init__(self, file: BinaryIO, stack: contextlib.ExitStack):
        """Reads the table of contents; the stack closes what is opened."""
        import tifffile

        self._file, self._stack = file, stack
        self._size = file.seek(0, io.SEEK_END)
        self._image: Image.Image | None = None
        file.seek(0)
        with quiet():
            self._tiff = stack.enter_context(tifffile.TiffFile(file))
            self.count = len(self._tiff.pages)

    def bits(self, index: int) -> int:
        """Bits per value of a page."""
        return int(np.max(self._page(index).bitspersample))

    def is_deep(self, index: int) -> bool:
        """Whether a page is grey or RGB of more than 8 bits, or of 8 with a sign."""
        page, known = self._page(index), (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
        signed = page.sampleformat == _SIGNED and self.bits(index) == 8
        return page.photometric in known and (self.bits(index) > 8 or signed)

    def is_negative(self, index: int) -> bool:
        """Whether a page is deep and its smallest value is white."""
        return self.is_deep(index) and self._page(index).photometric == _WHITE_IS_ZERO

    def values(self, index: int, smallest: int) -> tuple[np.ndarray, list[str]]:
        """Values of a page, upright, and notes; whole numbers grow from black to white."""
        page = self._page(index)
        check_size(page.imagelength, page.imagewidth, smallest=smallest)
        tag = page.tags.get(_ORIENTATION)
        orientation = int(tag.value) if tag is not None else 1
        notes = [from_pillow.TURNED] if 2 <= orientation <= 8 else []
        values = None
        if self.is_deep(index):
            self._check_whole(page)
            self._check_unpacked(page)
            values = _through_tifffile(page)
        if values is not None:
            values = from_pillow.turned(values, orientation)
        else:
            values, more = self._through_pillow(index)
            notes += more
        if self.is_negative(index) and values.dtype.kind in "iu":
            unused = 8 * values.dtype.itemsize - self.bits(index)
            values = ~values if values.dtype.kind == "i" else ~values >> unused
        return values, notes

    def _page(self, index: int) -> Any:
        with quiet():
            return self._tiff.pages[index]

    def _check_whole(self, page: Any) -> None:
        """Refuses missing data, which tifffile would replace with zeros."""
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            if start + length > self._size:
                raise UnusableError("cannot be decoded, it is cut or damaged (data is missing)")

    def _check_unpacked(self, page: Any) -> None:
        """Refuses strips or tiles that unpack to more than their size; tifffile unpacks it all."""
        if page.compression not in (*_DEFLATE, _LZMA):
            return
        most = int(np.prod(page.chunks)) * page.dtype.itemsize
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            self._file.seek(start)
            unpacker = (
                lzma.LZMADecompressor() if page.compression == _LZMA else zlib.decompressobj()
            )
            try:
                unpacked = len(unpacker.decompress(self._file.read(length), most + _SLACK))
            except (zlib.error, lzma.LZMAError):  # the decoder reports it
                return
            if unpacked == most + _SLACK:
                raise UnusableError("unpacks to more than it says; it is damaged, or made so")

    def _through_pillow(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Values of a page through Pillow, which turns TIFF files upright as it loads them."""
        try:
            if self._image is None:
                self._file.seek(0)
                self._image = self._stack.enter_context(from_pillow.opened(self._file))
            with quiet():
                self._image.seek(index)
                return from_pillow.pixels(self._image)
        except Exception:
            page = self._page(index)
            if not self.is_deep(index):
                raise
            raise UnusableError(
                f"is a TIFF file of a kind that cannot be read ({self.bits(index)} bits, "
                f"photometric interpretation {int(page.photometric)}, compression "
                f"{int(page.compression)}); save it uncompressed or as PNG"
            ) from None


def _through_tifffile(page: Any) -> np.ndarray | None:
    """``(height, width)`` or ``(height, width, channels)``, None for what it cannot unpack."""
    try:
        with quiet():
            values = page.asarray()
    except Exception:  # of any type; Pillow tries next, and says what is wrong
        return None
    if page.planarconfig == _SEPARATE_PLANES and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    return values
