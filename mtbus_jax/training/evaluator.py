"""Runs a network, without training it, on chosen images of a dataset."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from mtbus_jax import augment, types
from mtbus_jax.runtime import parallel
from mtbus_jax.training import device_data, steps
from mtbus_jax.training.experiment import Experiment


def make_batches(index: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts ``index`` into batches; the last one is filled up with invalid entries.

    These repeat the first images, not one image many times, because batch norm sees them.

    Args:
      index: ``(n,)`` integers.
      batch_size: images per batch.

    Returns:
      ``(steps, batch)`` int32 indices and ``(steps, batch)`` float32, 1 for real entries.
    """
    count = math.ceil(len(index) / batch_size)
    padded = np.resize(index, count * batch_size).astype(np.int32)
    valid = np.zeros(count * batch_size, np.float32)
    valid[: len(index)] = 1
    return padded.reshape(count, batch_size), valid.reshape(count, batch_size)


class Evaluator:
    """Runs the network, without training it, on chosen images; compiled once."""

    def __init__(self, experiment: Experiment, data: steps.Dataset):
        """Prepares the device program.

        Args:
          experiment: of the run.
          data: the dataset, from `device_data.place`.
        """
        self._experiment, self._data = experiment, data
        self._devices = experiment.devices
        self._program = parallel.pmap_eval(experiment.eval_steps(parallel.AXIS), self._devices)

    def __call__(
        self,
        variables: dict,
        index: np.ndarray,
        *,
        predictions: bool = False,
        data: steps.Dataset | None = None,
    ) -> tuple[dict[str, float], steps.Predictions | None]:
        """Means over the images at ``index`` and, if asked for, the predictions on the host.

        Args:
          variables: of the network.
          index: ``(n,)`` integers into the dataset.
          predictions: whether to return them.
          data: another dataset of the same shape to read instead.

        Returns:
          Means by name (see `Totals`), and `steps.Predictions` of numpy arrays in the order
          of ``index``, or None.
        """
        count = len(self._devices)
        config = self._experiment.config
        # The smallest batch that holds all images and spreads over the devices may be enough.
        most = math.ceil(len(index) / count) * count
        batches = make_batches(index, min(config.eval.batch_size * count, most))
        totals, collected = None, []
        for part in device_data.parts(
            *batches, steps_per_call=config.train.steps_per_call, device_count=count
        ):
            sums, outputs = self._program(
                variables, self._data if data is None else data, part.index, part.valid
            )
            totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
            if predictions:
                collected.append(jax.tree.map(parallel.gather_spread, jax.device_get(outputs)))
        means = totals.means()
        if not predictions:
            return means, None
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(index)], *collected)
        return means, joined

    def symmetric_predictions(
        self, variables: dict, index: np.ndarray, cases: types.Cases
    ) -> Iterator[steps.Predictions]:
        """Predictions for every flipped and turned version of the images, turned back.

        Args:
          variables: of the network.
          index: ``(n,)`` integers into ``cases``.
          cases: the dataset that the evaluator was given.

        Yields:
          `steps.Predictions` of numpy arrays, first those of the images as they are.
        """
        for number in self._experiment.symmetries:
            turned = dataclasses.replace(
                cases,
                image=augment.symmetry(cases.image, number),
                mask=augment.symmetry(cases.mask, number),
            )
            data = device_data.place(turned, self._devices)
            _, found = self(variables, index, predictions=True, data=data)
            if found.probability is not None:
                back = augment.undo_symmetry(found.probability, number)
                found = found._replace(probability=back)
            yield found
