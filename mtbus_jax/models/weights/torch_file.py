"""Reads the tensors of a PyTorch ``.pth`` file without PyTorch, and without running code in it.

A ``.pth`` file is a pickle, and a pickle can call any function. The unpickler here admits ordered
dictionaries, tensors and the storages behind them; it refuses everything else and names it. Both
formats in use are read: the zip archive of PyTorch 1.6 and later, and the stream of pickles before
it. The tar archives of PyTorch before 0.1.10 are not.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mtbus_jax.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# What to do with a file that cannot be read: convert it where PyTorch is installed.
_MEND = (
    "Where PyTorch is installed, convert it: `import torch, safetensors.torch as s; "
    's.save_file(torch.load("in.pth", weights_only=True), "out.safetensors")`, and give that file.'
)


class _Storage(NamedTuple):
    """A storage, identified by the key of its numbers in the file."""

    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    """A view of a storage, made into an array once the numbers have been read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not a tensor."""


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise _Refused("a parameter without a tensor")
    return tensor


class _Unpickler(pickle.Unpickler):
    """Admits only the parts of a dictionary of tensors.

    Attributes:
      storages: the storages that the pickle named, by their key.
    """

    _ADMITTED: ClassVar = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        # Names of storages stand for themselves.
        **{("torch", name): name for name in _TYPES},
    }

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise _Refused(f"the persistent object {pid!r}")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, str) or kind not in _TYPES:
            raise _Refused(f"the storage {kind!r}")
        storage = _Storage(str(key), _TYPES[kind], int(count))
        return self.storages.setdefault(storage.key, storage)


def read(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth`` file by name.

    Args:
      path: file that holds a dictionary of tensors (a state dict), or such a dictionary under the
        name ``state_dict`` or ``model``.

    Returns:
      Arrays by name, with the types of the file.

    Raises:
      UserError: if the file is missing, damaged, of an unknown format, or asks for anything but
        tensors.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            tree, storages = _read_zip(content)
        else:
            tree, storages = _read_stream(content)
        return _arrays(tree, storages)
    except _Refused as error:
        raise UserError(
            f"{path} asks for {error}, which is not a tensor: loading it could run a program. "
            f"It is not read. {_MEND}"
        ) from None
    except Exception as error:  # damaged bytes make unpickling raise nearly anything
        if _is_tar(content):
            raise UserError(f"{path} has PyTorch's tar format from before 2017. {_MEND}") from None
        raise UserError(
            f"{path} is damaged or not a file of PyTorch tensors ({type(error).__name__}: {error})."
            f" Download it again. {_MEND}"
        ) from None


def _read_zip(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """PyTorch 1.6 and later: ``data.pkl`` and a file for each storage, in one folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("the numbers are big-endian")
        infos = [i for i in archive.infolist() if i.filename.startswith(f"{folder}data/")]
        # PyTorch stores without compression, so members cannot be larger than the file.
        if sum(info.file_size for info in infos) > len(content):
            raise ValueError("the archive unpacks to more than it holds")
        storages = {i.filename.removeprefix(f"{folder}data/"): archive.read(i) for i in infos}
        return _Unpickler(io.BytesIO(archive.read(pickled))).load(), storages


def _read_stream(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """Before 1.6: several pickles in turn, then for each storage a count and its numbers."""
    file = io.BytesIO(content)
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("the magic number is missing")
    if (protocol := _Unpickler(file).load()) != _PROTOCOL:
        raise ValueError(f"protocol {protocol}")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("the numbers are big-endian")
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        size = count * unpickler.storages[key].dtype.itemsize
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise ValueError("the file ends early")
    return tree, storages


def _arrays(tree: Any, storages: dict[str, bytes]) -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        for name in ("state_dict", "model"):
            if isinstance(tree.get(name), dict):
                tree = tree[name]
    if not isinstance(tree, dict) or not any(isinstance(v, _Tensor) for v in tree.values()):
        raise ValueError("it holds no dictionary of tensors")
    return {
        str(name): _array(tensor, storages)
        for name, tensor in tree.items()
        if isinstance(tensor, _Tensor)
    }


def _array(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    """A copy of the numbers in a view."""
    flat = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise ValueError("a tensor has a negative size")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, flat.dtype)
    if last >= len(flat):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    return view.copy()


def _is_tar(content: bytes) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)):
            return True
    except tarfile.TarError:
        return False
