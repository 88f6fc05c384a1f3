"""Input and outputs of every exported model, whatever its file format."""

from __future__ import annotations

import jax

from mtbus_jax import types

IMAGE, TUMOUR, CLASSES = "image", "tumour_probability", "class_probability"
_OUTPUT_OF_TASK = {types.SEGMENTATION: TUMOUR, types.CLASSIFICATION: CLASSES}


def output_names(tasks: tuple[str, ...]) -> list[str]:
    """Names of the outputs for some tasks, in the order in which the model returns them."""
    return [name for task, name in _OUTPUT_OF_TASK.items() if task in tasks]


def probabilities(outputs: types.Outputs) -> dict[str, jax.Array]:
    """What an exported model returns, from what the network returns.

    Args:
      outputs: of a network.

    Returns:
      ``tumour_probability``, ``(batch, height, width, 1)``, and ``class_probability``,
      ``(batch, classes)``, as far as the network has the task.
    """
    result = {}
    if outputs.segmentation:
        result[TUMOUR] = jax.nn.sigmoid(outputs.segmentation[0])
    if outputs.class_logits is not None:
        result[CLASSES] = jax.nn.softmax(outputs.class_logits, axis=-1)
    return result
