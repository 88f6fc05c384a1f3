"""Input, outputs and reference values of every exported model, whatever its file format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError

IMAGE, TUMOUR, CLASSES = "image", "tumour_probability", "class_probability"
_OUTPUT_OF_TASK = {types.SEGMENTATION: TUMOUR, types.CLASSIFICATION: CLASSES}


def output_names(tasks: tuple[str, ...]) -> list[str]:
    """Names of the outputs for the tasks, in the order in which the model returns them."""
    return [name for task, name in _OUTPUT_OF_TASK.items() if task in tasks]


def probabilities(outputs: types.Outputs) -> dict[str, jax.Array]:
    """Turns the outputs of a network into those of an exported model.

    Args:
      outputs: what the network returned.

    Returns:
      ``tumour_probability``, ``(batch, height, width, 1)``, and ``class_probability``,
      ``(batch, classes)``, each if the network has the task.
    """
    result = {}
    if outputs.segmentation:
        result[TUMOUR] = jax.nn.sigmoid(outputs.segmentation[0])
    if outputs.class_logits is not None:
        result[CLASSES] = jax.nn.softmax(outputs.class_logits, axis=-1)
    return result


def ensemble(
    module: nn.Module, members: Sequence[dict[str, Any]]
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """The function to export: an image's probabilities, averaged over several sets of weights.

    Args:
      module: the network.
      members: the network's variables, one set per fold; numpy arrays.

    Returns:
      A function of ``(batch, height, width, 1)`` float32 grey values 0..255 that gives what
      `probabilities` says.
    """

    def average(image):
        parts = [
            probabilities(module.apply(variables, image, train=False)) for variables in members
        ]
        return jax.tree.map(lambda *each: sum(each) / len(members), *parts)

    return average


def reference(
    module: nn.Module, members: Sequence[dict[str, Any]], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Reference outputs of the network: one image and one set of weights at a time, on the CPU.

    Args:
      module: the network.
      members: the network's variables, one set per fold.
      images: ``(n, height, width, 1)`` float32, grey values 0..255.

    Returns:
      Outputs by name, n rows each.
    """
    apply = jax.jit(
        lambda variables, image: probabilities(module.apply(variables, image, train=False))
    )
    rows = []
    with on_cpu():
        for image in images:
            parts = [jax.device_get(apply(variables, image[None])) for variables in members]
            rows.append({name: np.mean([p[name] for p in parts], axis=0) for name in parts[0]})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def on_cpu():
    """A context in which JAX computes on the CPU, with the full precision of float32.

    Raises:
      UserError: if JAX_PLATFORMS excludes the CPU.
    """
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        raise UserError(
            "JAX_PLATFORMS leaves out the CPU, on which the result is checked. Add it, such as "
            "JAX_PLATFORMS=cuda,cpu."
        ) from None
