"""Segmentations drawn with 3D Slicer: ``x.seg.nrrd`` beside ``x.png``.

The format is described at https://teem.sourceforge.net/nrrd/format.html, and Slicer's additions in
its developer guide, Segmentations. A picture is a volume of one slice. Slicer may store only the
part that is drawn on; the origin tells where that part lies.
"""

from __future__ import annotations

import gzip
import io
import pathlib
import zlib

import numpy as np

from mtbus_jax.errors import UserError

SUFFIX = ".nrrd"
_ENDINGS = (".seg.nrrd", "_mask.nrrd", "_seg.nrrd", "-label.nrrd", ".nrrd")

_TYPES = {
    "int8": ("int8", "int8_t", "signed char"),
    "uint8": ("uint8", "uint8_t", "uchar", "unsigned char"),
    "int16": ("int16", "int16_t", "short", "signed short", "short int"),
    "uint16": ("uint16", "uint16_t", "ushort", "unsigned short"),
    "int32": ("int32", "int32_t", "int", "signed int"),
    "uint32": ("uint32", "uint32_t", "uint", "unsigned int"),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
# Signs that turn coordinates into left, posterior, superior, as in ITK.
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_REFERENCE = "Reference image geometry|"
_MOST_PIXELS = 1 << 26
_TOLERANCE = 0.01  # pixels


def picture_of(path: pathlib.Path) -> str:
    """Stem of the picture that a file belongs to by its name: ``x`` of ``x.seg.nrrd``."""
    ending = next(each for each in _ENDINGS if path.name.lower().endswith(each))
    return path.name[: -len(ending)]


def read(path: pathlib.Path, size: tuple[int, int]) -> np.ndarray:
    """All segments of a file as one mask.

    Args:
      path: of the file.
      size: height and width of the picture in pixels.

    Returns:
      ``(height, width)`` bool, aligned with the picture.

    Raises:
      UserError: if the file is broken, of a kind that is not read, or does not lie on the picture.
    """
    try:
        header, content = _split(path.read_bytes())
        return _placed(_layers(header, content), header, size)
    except (EOFError, KeyError, OSError, OverflowError, ValueError, zlib.error) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path} is not a segmentation of 3D Slicer that can be read: {reason}. Save it again "
            "with the picture as its source volume, or export it as a PNG file."
        ) from None


def _split(content: bytes) -> tuple[dict[str, str], bytes]:
    """Fields of the header by name, and what follows it."""
    head, separator, rest = content.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    if not head.startswith(b"NRRD000"):
        raise ValueError("it does not begin like an NRRD file")
    if not separator:
        raise ValueError("its header does not end")
    header = {}
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        if not line.startswith("#"):
            name, _, value = line.partition(":")
            header[name.strip().lower()] = value.removeprefix("=").strip()
    return header, rest


def _layers(header: dict[str, str], content: bytes) -> np.ndarray:
    """``(width, height)`` bool: where any layer has a segment."""
    sizes = [int(number) for number in header["sizes"].split()]
    if len(sizes) not in (3, 4) or min(sizes) < 1 or sizes[-1] != 1:
        raise ValueError(f"it has the sizes {header['sizes']}, and a picture has one slice")
    if np.prod(sizes, dtype=float) > _MOST_PIXELS:
        raise ValueError(f"it has the sizes {header['sizes']}, which is too large")
    name = header["type"].lower()
    if name not in _DTYPES:
        raise ValueError(f"it holds {name}, no whole numbers of up to 32 bits")
    if "data file" in header or "datafile" in header:
        raise ValueError("its numbers lie in another file")
    dtype = np.dtype(_DTYPES[name])
    if dtype.itemsize > 1:
        dtype = dtype.newbyteorder({"little": "<", "big": ">"}[header["endian"].lower()])
    length = dtype.itemsize * int(np.prod(sizes))
    encoding = header["encoding"].lower()
    if encoding in ("gzip", "gz"):
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(length)
    elif encoding != "raw":
        raise ValueError(f"it is stored as {encoding}; raw and gzip are read")
    if len(content) < length:
        raise ValueError("it ends early")
    # The first axis is the fastest; overlapping segments lie in several layers, along it.
    volume = np.frombuffer(content[:length], dtype).reshape(sizes, order="F") > 0
    return (volume.any(axis=0) if len(sizes) == 4 else volume)[..., 0]


def _placed(part: np.ndarray, header: dict[str, str], size: tuple[int, int]) -> np.ndarray:
    """A part as a mask of the picture's size."""
    mask = np.zeros(size, bool)
    if part.size == 1:  # Slicer's way to say that nothing is drawn
        return mask
    signs = np.array(_SPACES[header["space"].lower()])[:, None]
    axes = [each for each in header["space directions"].split() if each.lower() != "none"]
    directions = signs * np.stack([_vector(axis) for axis in axes], axis=1)
    origin = signs[:, 0] * _vector(header["space origin"])
    reference, start = np.diag(np.linalg.norm(directions, axis=0)), np.zeros(3)
    if _REFERENCE in header.get("segmentation_conversionparameters", ""):
        reference, start, extent = _source(header["segmentation_conversionparameters"])
        if (extent[1] + 1, extent[0] + 1) != tuple(size):
            raise ValueError(
                f"it was drawn on a picture of {extent[1] + 1} × {extent[0] + 1} pixels (height × "
                f"width), and this one has {size[0]} × {size[1]}"
            )
    elif part.T.shape == tuple(size):
        start = origin  # a label map of a volume that lies elsewhere in space
    turn = np.linalg.solve(reference, directions)
    offset = np.linalg.solve(reference, origin - start)
    column, row, _ = whole = np.round(offset).astype(int)
    if abs(turn - np.eye(3)).max() > _TOLERANCE / max(part.shape):
        raise ValueError("its pixels are not those of the picture but turned, mirrored or finer")
    if abs(offset - whole).max() > _TOLERANCE:
        raise ValueError("its pixels lie between those of the picture")
    columns, rows = (np.nonzero(part.any(axis=1 - axis))[0] for axis in (0, 1))
    if not len(columns):
        return mask
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    top, left = row + rows[0], column + columns[0]
    bottom, right = row + rows[-1] + 1, column + columns[-1] + 1
    if min(top, left) < 0 or bottom > size[0] or right > size[1]:
        raise ValueError(f"what is drawn reaches beyond the picture ({size[0]} × {size[1]} pixels)")
    mask[top:bottom, left:right] = part.T[inside]
    return mask


def _vector(text: str) -> np.ndarray:
    vector = np.array([float(number) for number in text.strip("()").split(",")])
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{text} is not a place in space")
    return vector


def _source(parameters: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Directions, origin, and last column and row of the volume that was drawn on.

    Slicer writes the 16 numbers of a matrix from indices to right, anterior, superior, and the six
    numbers of the volume's extent.
    """
    text = parameters.partition(_REFERENCE)[2].partition("|")[0]
    numbers = [float(number) for number in text.strip(";").split(";")]
    if len(numbers) != 22 or not np.isfinite(numbers).all():
        raise ValueError("its reference image geometry is broken")
    matrix = np.reshape(numbers[:16], (4, 4))[:3] * np.array(_SPACES["ras"])[:, None]
    first, last = np.array(numbers[16::2]), np.array(numbers[17::2])
    if first.any() or last[2]:
        raise ValueError("it was drawn on a volume of several slices, or on a part of one")
    return matrix[:, :3], matrix[:, 3], (int(last[0]), int(last[1]))
