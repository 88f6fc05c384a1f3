"""The reader of PyTorch files: both formats written by hand, hostile and damaged ones refused."""

import collections
import io
import os
import pickle
import struct
import tarfile
import typing
import zipfile

import numpy as np
import pytest

from mtbus_jax.errors import UserError
from mtbus_jax.models.weights import torch_file

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(4, 3, 2, 5)).astype("<f4"),
    "norm.bias": RNG.normal(size=7).astype("<f8"),
    "norm.num_batches_tracked": np.array(12, "<i8"),
    "mask": np.array([True, False]),
}
KINDS = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage", "|b1": "BoolStorage"}


class Name:
    """Stands for an object that a pickle names by module and name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Tensor:
    """Stands for a tensor: a storage's key, and the view of it."""

    def __init__(self, key, array, *, offset=0, shape=None, strides=None):
        self.key, self.array = key, array
        self.offset = offset
        self.shape = array.shape if shape is None else shape
        self.strides = tuple(s // array.itemsize for s in array.strides)
        if strides is not None:
            self.strides = strides


def dumps(tree, *, extra=()):
    """Pickles as PyTorch does: tensors by _rebuild_tensor_v2, storages by a persistent id."""
    out = io.BytesIO()

    class Pickler(pickle._Pickler):
        dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

        def save_name(self, obj):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

        def save_tensor(self, obj):
            self.save_name(Name("torch._utils", "_rebuild_tensor_v2"))
            self.write(pickle.MARK)
            kind = Name("torch", KINDS[obj.array.dtype.str])
            self.save_storage(("storage", kind, obj.key, "cpu", obj.array.size))
            for each in (obj.offset, obj.shape, obj.strides, False, collections.OrderedDict()):
                self.save(each)
            self.write(pickle.TUPLE + pickle.REDUCE)

        def save_storage(self, pid):
            self.save(pid, save_persistent_id=False)
            self.write(pickle.BINPERSID)

        dispatch[Name] = save_name
        dispatch[Tensor] = save_tensor

    Pickler(out, protocol=2).dump(tree)
    return out.getvalue()


def tensors(arrays):
    return collections.OrderedDict(
        (name, Tensor(str(i), array)) for i, (name, array) in enumerate(arrays.items())
    )


def zip_bytes(tree, arrays, *, folder="archive", byteorder=b"little"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", dumps(tree))
        archive.writestr(f"{folder}/byteorder", byteorder)
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"{folder}/data/{i}", array.tobytes())
    return out.getvalue()


def stream_bytes(tree, arrays):
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
    parts += [pickle.dumps({"little_endian": True, "protocol_version": 1001}, 2), dumps(tree)]
    parts.append(pickle.dumps([str(i) for i in range(len(arrays))], 2))
    for array in arrays.values():
        parts += [struct.pack("<q", array.size), array.tobytes()]
    return b"".join(parts)


FORMATS = {"zip": zip_bytes, "stream": stream_bytes}


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("within", [None, "state_dict", "model"])
def test_both_formats_give_the_arrays(tmp_path, make, within):
    tree = tensors(ARRAYS)
    tree = tree if within is None else {within: tree, "epoch": 3}
    found = torch_file.read(written(tmp_path / "w.pth", make(tree, ARRAYS)))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_views_of_a_storage(tmp_path):
    """A transposed part of a larger storage."""
    base = np.arange(24, dtype="<f4")
    view = Tensor("0", base, offset=4, shape=(3, 4), strides=(1, 5))
    found = torch_file.read(written(tmp_path / "w.pth", zip_bytes({"w": view}, {"w": base})))
    expected = [[4 + row + 5 * col for col in range(4)] for row in range(3)]
    np.testing.assert_array_equal(found["w"], expected)


class Payload:
    """Runs a command where it is unpickled without a guard."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_a_program_in_the_file_is_refused_and_does_not_run(tmp_path, make):
    trace = tmp_path / "ran"
    tree = tensors(ARRAYS) | {"evil": Payload(trace)}
    path = written(tmp_path / "w.pth", make(tree, ARRAYS))
    with pytest.raises(UserError, match=r"posix\.system|nt\.system"):
        torch_file.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "named", [("builtins", "eval"), ("torch", "load"), ("torch.storage", "_load_from_bytes")]
)
def test_whatever_is_no_tensor_is_refused_by_name(tmp_path, named):
    path = written(tmp_path / "w.pth", zip_bytes({"x": Name(*named)}, {}))
    with pytest.raises(UserError, match=".".join(named)):
        torch_file.read(path)


@pytest.mark.parametrize(
    "view", [{"offset": 20}, {"shape": (7, 5)}, {"strides": (9, 9)}, {"strides": (-1, 1)}]
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, view):
    base = np.arange(12, dtype="<f4").reshape(3, 4)
    tree = {"w": Tensor("0", base, **view)}
    with pytest.raises(UserError, match="damaged"):
        torch_file.read(written(tmp_path / "w.pth", zip_bytes(tree, {"w": base})))


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_cut_and_flipped_files_end_in_words(tmp_path, make):
    content = make(tensors(ARRAYS), ARRAYS)
    rng = np.random.default_rng(1)
    for trial in range(60):
        damaged = bytearray(content)
        if trial % 2:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path = written(tmp_path / "w.pth", bytes(damaged))
        try:
            torch_file.read(path)  # a bit of a number may have flipped
        except UserError as error:
            assert str(path) in str(error)


def test_big_endian_and_packed_bombs_and_tar_are_refused(tmp_path):
    tree = tensors(ARRAYS)
    path = written(tmp_path / "w.pth", zip_bytes(tree, ARRAYS, byteorder=b"big"))
    with pytest.raises(UserError, match="big-endian"):
        torch_file.read(path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", dumps(tree))
        archive.writestr("a/data/0", bytes(50_000_000))
    with pytest.raises(UserError, match="unpacks to more"):
        torch_file.read(written(path, out.getvalue()))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UserError, match="tar format"):
        torch_file.read(written(path, out.getvalue()))
    with pytest.raises(UserError, match="cannot be read"):
        torch_file.read(tmp_path / "none.pth")
