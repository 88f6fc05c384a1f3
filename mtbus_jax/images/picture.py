"""PNG, JPEG, TIFF, BMP, GIF and WebP files, through Pillow and tifffile."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from mtbus_jax.images import complete, from_pillow, tiff
from mtbus_jax.images.depth import UnusableError
from mtbus_jax.images.frame import MAX_BYTES, MAX_PIXELS, Decoded, ReadError, check_size, decoded
from mtbus_jax.images.silence import quiet

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
FIRST_OF = "first of"  # begins the note on a file of which only the first picture is read
# How files of these kinds begin; WebP's signature has two parts, with a length between them.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8", *tiff.SIGNATURES)
_RIFF, _WEBP = b"RIFF", b"WEBP"


def looks_right(head: bytes) -> bool:
    """Whether a file begins like a picture of these kinds."""
    return head.startswith(_SIGNATURES) or (head[:4] == _RIFF and head[8:12] == _WEBP)


def decode(path: Path, file: BinaryIO, *, smallest: int) -> Iterator[Decoded]:
    """Decodes a file; a TIFF file gives one picture per page, other files give only their first.

    Args:
      path: of the file, for messages.
      file: the file, open.
      smallest: least height and width.

    Yields:
      Pictures in order.

    Raises:
      ReadError: if the file or a page in it cannot be read.
    """
    done = 0
    try:
        is_tiff = file.read(4).startswith(tiff.SIGNATURES)
        file.seek(0)
        pages = tiff.decode(file, smallest=smallest) if is_tiff else _single(file, smallest)
        for page in pages:
            yield page
            done += 1
    except UnidentifiedImageError:
        raise ReadError(path, "is not a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM picture") from None
    except Image.DecompressionBombError:
        raise ReadError(
            path,
            f"has more than the {MAX_PIXELS // 10**6} million pixels that are allowed as a guard "
            "against decompression bombs; scale it down",
        ) from None
    except UnusableError as error:
        raise ReadError(path, str(error), _later(done)) from None
    except Exception as error:  # a cut or damaged file raises nearly anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(
            path, f"cannot be decoded, it is cut or damaged ({text})", _later(done)
        ) from None


def _later(done: int) -> int | None:
    """Number of the first frame that was not read; None if nothing was read at all."""
    return done + 1 if done else None


def _single(file: BinaryIO, smallest: int) -> Iterator[Decoded]:
    # A decoder or `complete` may read the file as a whole.
    if file.seek(0, io.SEEK_END) > MAX_BYTES:
        raise UnusableError(f"has more than {MAX_BYTES // 10**6} MB, too many for one picture")
    file.seek(0)
    with from_pillow.opened(file) as image:
        width, height = image.size
        check_size(height, width, smallest=smallest)
        count, file_format = from_pillow.count(image), image.format
        with quiet():
            pixels, notes = from_pillow.pixels(image)
        orientation = from_pillow.orientation(image)
    complete.check(file, file_format, pixels)
    if 2 <= orientation <= 8:
        pixels = from_pillow.turned(pixels, orientation)
        notes.insert(0, from_pillow.TURNED)
    if count > 1:
        notes.insert(0, f"{FIRST_OF} {count} pictures in the file")
    found = decoded(pixels, smallest=smallest)
    yield dataclasses.replace(found, notes=(*notes, *found.notes))
