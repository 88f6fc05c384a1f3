"""Converts a Flax network to ONNX, in the environment of ``requirements-export.txt``.

    python -m mtbus_jax.export.to_onnx JOB

reads the folder JOB that `mtbus_jax.export.formats` prepared, and adds to it ``model.onnx``, or a
file for each member, ``outputs.npz`` (what onnxruntime computes with them) and ``versions.json``.
jax2onnx needs another version of orbax than the library, so only the library's networks are
imported here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax import models
from mtbus_jax.export import interface
from mtbus_jax.models import deformable, resampling

# Old enough for runtimes of 2023 (tried with onnxruntime 1.16); every network here converts to it.
OPSET, IR_VERSION = 18, 8
# `shorten` converts tensors with at least this many values.
SHORTENED_FROM = 1024
PACKAGES = ("flax", "jax", "jax2onnx", "onnx", "onnxruntime")


def convert(module: nn.Module, variables: dict[str, Any], image_size: tuple[int, int]) -> Any:
    """One network as an ONNX model with a free batch size; its parameters are initializers.

    Args:
      module: the network.
      variables: of the network, numpy arrays.
      image_size: (height, width) of its input.

    Returns:
      An ``onnx.ModelProto``.
    """
    import jax2onnx

    names = interface.output_names(module.tasks)

    def function(image):
        with replaced_layers():
            outputs = interface.probabilities(module.apply(variables, image, train=False))
        return tuple(outputs[name] for name in names)

    model = jax2onnx.to_onnx(
        function,
        [("batch", *image_size, 1)],
        opset=OPSET,
        input_names=[interface.IMAGE],
        output_names=names,
    )
    # jax2onnx leaves shapes of inner values that its own rewriting made wrong. Runtimes infer the
    # shapes anyway, and warn about the wrong ones.
    del model.graph.value_info[:]
    return model


# Saved before jax2onnx replaces them by its own.
_JAX_RESIZE, _DROPOUT = jax.image.resize, nn.Dropout.__call__
_RANDOM = {name: getattr(jax.random, name) for name in ("key", "fold_in", "bernoulli")}


@contextlib.contextmanager
def replaced_layers() -> Iterator[None]:
    """Replaces what jax2onnx 0.17.1 cannot convert by equivalents that it can.

    * Transposed convolutions: no ``transpose_kernel=True`` (the kernel is turned instead) and no
      explicit padding (the border is cut off instead).
    * `jax.image.resize` and `resampling.doubled`: not with a free batch size (two matrix products
      instead).
    * `deformable.sample`: it looks up single pixels of each image (a matrix product instead).
    * Dropout at test time, from fixed seeds: drawn during conversion, stored as a constant.
    * Code that depends on the platform: the default for all platforms.
    """
    convolve = nn.ConvTranspose.__call__
    replacements = [
        (nn.ConvTranspose, "__call__", lambda self, inputs: _transposed(self, inputs, convolve)),
        (nn.Dropout, "__call__", _DROPOUT),
        (jax.image, "resize", _resize),
        (resampling, "doubled", _doubled),
        (deformable, "sample", _sample),
        (jax.lax, "platform_dependent", _any_platform),
        *((jax.random, name, _at_once(function)) for name, function in _RANDOM.items()),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.enter_context(unittest.mock.patch.object(owner, name, replacement))
        yield


def _transposed(
    module: nn.ConvTranspose, inputs: jax.Array, convolve: Callable[..., jax.Array]
) -> jax.Array:
    if not module.transpose_kernel:
        return convolve(module, inputs)
    params = dict(module.variables["params"])
    params["kernel"] = np.flip(np.asarray(params["kernel"]), (0, 1)).swapaxes(2, 3)
    plain = nn.ConvTranspose(
        module.features,
        module.kernel_size,
        strides=module.strides,
        padding="VALID",
        use_bias=module.use_bias,
        parent=None,
    )
    image = plain.apply({"params": params}, inputs)
    if module.padding == "VALID":
        return image
    for axis, (kernel, padding) in enumerate(
        zip(module.kernel_size, module.padding, strict=True), 1
    ):
        # VALID pads the spread-out input by kernel - 1 on either side.
        low, high = (kernel - 1 - each for each in padding)
        image = jax.lax.slice_in_dim(image, low, image.shape[axis] - high, axis=axis)
    return image


def _resize(image: jax.Array, shape: tuple[int, ...], method: str) -> jax.Array:
    rows, cols = (_resize_matrix(image.shape[i], shape[i], method) for i in (1, 2))
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, image, cols)


def _any_platform(*operands: jax.Array, default: Callable, **of_platforms: Callable):
    return default(*operands)


@functools.cache
def _resize_matrix(source: int, target: int, method: str) -> np.ndarray:
    """The matrix ``(target, source)`` that resizes a column."""
    with jax.ensure_compile_time_eval():
        return np.asarray(_JAX_RESIZE(jnp.eye(source), (target, source), method))


def _doubled(image: jax.Array) -> jax.Array:
    rows, cols = (_doubling_matrix(image.shape[i]) for i in (1, 2))
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, image, cols)


def _doubling_matrix(length: int) -> np.ndarray:
    """The matrix ``(2·length, length)`` that doubles a column: a hat function for each place."""
    places = np.arange(2 * length)[:, None] * (length - 1) / (2 * length - 1)
    return np.maximum(1 - np.abs(places - np.arange(length)), 0).astype(np.float32)


def _sample(image: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
    """Samples with weights that are products of two hat functions, which are 0 one pixel away."""
    batch, height, width, channels = image.shape
    down, right = (
        jax.nn.relu(1 - jnp.abs(place[..., None] - np.arange(length, dtype=np.float32)))
        for place, length in ((row, height), (col, width))
    )
    shares = down[..., :, None] * right[..., None, :]
    shares = shares.reshape(batch, row[0].size, height * width)
    values = shares @ image.reshape(batch, height * width, channels)
    return values.reshape(batch, *row.shape[1:], channels)


def _at_once(function: Callable) -> Callable:
    """Makes a function compute at once what tracing would otherwise put into the model."""

    def call(*args, **kwargs):
        with jax.ensure_compile_time_eval():
            return function(*args, **kwargs)

    return call


def average(members: dict[str, Any]) -> Any:
    """One model that averages the outputs of several.

    Args:
      members: models from `convert`, by the name that prefixes their inner values.
    """
    import onnx

    if len(members) == 1:
        return next(iter(members.values()))
    prefixed = [
        onnx.compose.add_prefix(model, f"{name}/", rename_inputs=False)
        for name, model in members.items()
    ]
    outputs = next(iter(members.values())).graph.output
    whole = onnx.ModelProto()
    whole.CopyFrom(prefixed[0])
    for model in prefixed[1:]:
        whole.graph.node.extend(model.graph.node)
        whole.graph.initializer.extend(model.graph.initializer)
    for output in outputs:
        parts = [f"{name}/{output.name}" for name in members]
        whole.graph.node.append(onnx.helper.make_node("Mean", parts, [output.name]))
    del whole.graph.output[:]
    whole.graph.output.extend(outputs)
    return whole


def shorten(model: Any) -> None:
    """Stores large weights as 16-bit integers, with a scale for each slice along one axis.

    They become float32 again when the file is loaded. float16 would take the same space but has
    only 11 bits for every weight; integers use all 16 for the largest weight of a slice. Small
    tensors, such as biases and statistics of normalisation, stay as they are.

    Args:
      model: an ``onnx.ModelProto``, changed in place.
    """
    import onnx

    kept, nodes = [], []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SHORTENED_FROM:
            kept.append(tensor)
            continue
        # The channels are on one of these axes. The values tell which: its steps are finer.
        candidates = [_integers(values, axis) for axis in (0, values.ndim - 1)]
        integers, scale = min(candidates, key=lambda each: np.log(each[1]).mean())
        short, wide, scales = (f"{tensor.name}/{part}" for part in ("short", "wide", "scale"))
        kept.append(onnx.numpy_helper.from_array(integers, short))
        kept.append(onnx.numpy_helper.from_array(scale, scales))
        nodes.append(onnx.helper.make_node("Cast", [short], [wide], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [wide, scales], [tensor.name]))
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)


def _integers(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int16 of the shape of ``values``, and the float32 scale for each slice along an axis."""
    others = tuple(each for each in range(values.ndim) if each != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    most = np.iinfo(np.int16).max
    scale = (np.where(largest > 0, largest, 1) / most).astype(np.float32)
    return np.clip(np.rint(values / scale), -most, most).astype(np.int16), scale


def run(path: Path, images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Runs a file with onnxruntime on the CPU.

    Args:
      path: of the ``.onnx`` file.
      images: ``(n, height, width, 1)`` float32.
      batch_size: images per call.

    Returns:
      Outputs by name, n rows each.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    parts = [
        session.run(names, {interface.IMAGE: images[start : start + batch_size]})
        for start in range(0, len(images), batch_size)
    ]
    return {name: np.concatenate(arrays) for name, *arrays in zip(names, *parts, strict=True)}


def _save(model: Any, path: Path, task: dict[str, Any]) -> None:
    import onnx

    model.ir_version = IR_VERSION
    model.graph.name = task["network"]
    onnx.helper.set_model_props(model, task["properties"])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main(job: Path) -> None:
    """Converts, writes and runs what the folder ``job`` asks for."""
    task = json.loads((job / "job.json").read_text(encoding="utf-8"))
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in task["options"].items()}
    module = models.create(
        task["network"], tasks=tuple(task["tasks"]), classes=task["classes"], **options
    )
    members = {}
    for name in task["members"]:
        with np.load(job / f"{name}.npz") as stored:
            variables = flax.traverse_util.unflatten_dict(dict(stored), sep="/")
        members[name] = convert(module, variables, tuple(task["image_size"]))
    if not task["apart"]:
        members = {"model": average(members)}
    with np.load(job / "images.npz") as stored:
        images = stored["images"]
    arrays = {}
    for file, model in members.items():
        if task["short"]:
            shorten(model)
        _save(model, job / f"{file}.onnx", task)
        for batch_size in task["batch_sizes"]:
            for name, array in run(job / f"{file}.onnx", images, batch_size).items():
                arrays[f"{file}/{batch_size}/{name}"] = array
    np.savez(job / "outputs.npz", **arrays)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    (job / "versions.json").write_text(json.dumps(versions), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
