"""The device program of a prediction, compiled for a few batch sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax.models.cpu import precomputed
from mtbus_jax.training import steps, trained_folds

# For a program that runs once, a short compile time matters more than speed.
_RUN_ONCE = {"xla_backend_optimization_level": 0}


class Program(NamedTuple):
    """A network for batches of one size.

    Attributes:
      size: pictures per batch.
      compiled: (variables, ``(size, height, width, 1)`` uint8) → `steps.Predictions`.
      variables: each member's variables, prepared for this size.
    """

    size: int
    compiled: jax.stages.Compiled
    variables: list[dict[str, Any]]


class Programs:
    """Programs by batch size, compiled when they are first asked for; not thread-safe."""

    def __init__(self, network: trained_folds.Trained, batch_size: int):
        """Compiles nothing yet.

        Args:
          network: the trained network; its members differ only in their weights.
          batch_size: pictures in the largest batch.
        """
        self._network, self._batch_size = network, batch_size
        self._by_size: dict[int, Program] = {}

        def program(variables, image):
            outputs = network.module.apply(variables, image.astype(jnp.float32), train=False)
            probability = None
            if outputs.segmentation:
                probability = jax.nn.sigmoid(outputs.segmentation[0])
            return steps.Predictions(probability, outputs.class_logits)

        self._program = jax.jit(program)

    def at_least(self, count: int) -> Program:
        """A program for at least ``count`` pictures; makes one for a power of two if needed.

        Args:
          count: at most the largest batch.
        """
        fitting = [size for size in self._by_size if size >= count]
        size = min(fitting or [self._batch_size, 1 << (count - 1).bit_length()])
        if size not in self._by_size:
            self._by_size[size] = self._compile(size)
        return self._by_size[size]

    def _compile(self, size: int) -> Program:
        pictures = jax.ShapeDtypeStruct((size, *self._network.image_size, 1), np.uint8)
        module = self._network.module
        prepare = jax.jit(
            lambda variables: precomputed.prepare(module, variables, pictures.shape),
            compiler_options=_RUN_ONCE if jax.default_backend() == "cpu" else None,
        )
        variables = [prepare(each) for each in self._network.variables]
        return Program(size, self._program.lower(variables[0], pictures).compile(), variables)
