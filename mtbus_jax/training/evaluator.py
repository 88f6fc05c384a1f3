"""Running a network without training over chosen images of a dataset."""

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
from mtbus_jax.training.experiment import Setup


def make_batches(index: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts ``index`` into batches; the last one is filled up with invalid entries.

    Args:
      index: ``(n,)`` integers.
      batch_size: images per batch.

    Returns:
      ``(steps, batch)`` int32 indices and ``(steps, batch)`` float32, 1 for real entries.
    """
    count = math.ceil(len(index) / batch_size)
    padded = np.full(count * batch_size, index[0], np.int32)
    padded[: len(index)] = index
    valid = np.zeros(count * batch_size, np.float32)
    valid[: len(index)] = 1
    return padded.reshape(count, batch_size), valid.reshape(count, batch_size)


class Evaluator:
    """Runs the network without training over chosen images; compiled once."""

    def __init__(
        self,
        setup: Setup,
        data: device_data.Resident | device_data.Streamed,
        *,
        batch_size: int,
        steps_per_call: int,
    ):
        """Prepares the device program.

        Args:
          setup: of the run.
          data: the dataset, from `device_data.place`.
          batch_size: images per device and step.
          steps_per_call: batches per device program, 0 for the default.
        """
        self._data, self._devices = data, setup.devices
        self._symmetries = setup.symmetries
        self._batch_size = batch_size * len(setup.devices)
        self._steps_per_call = steps_per_call
        self._program = parallel.pmap_eval(
            setup.eval_steps(parallel.AXIS), setup.devices, data_per_device=data.per_device
        )

    def __call__(
        self,
        variables: dict,
        index: np.ndarray,
        *,
        predictions: bool = False,
        data: device_data.Resident | device_data.Streamed | None = None,
    ) -> tuple[dict[str, float], steps.Predictions | None]:
        """Means over the images at ``index`` and, if asked for, the predictions on the host.

        Args:
          variables: of the network.
          index: ``(n,)`` integers into the dataset.
          predictions: whether to return them.
          data: another dataset of the same shape to read instead, kept in the same way.

        Returns:
          Means by name (see `steps.Totals`), and `steps.Predictions` of numpy arrays in the order
          of ``index``, or None.
        """
        batches, valid = make_batches(index, min(self._batch_size, _round_up(len(index), self)))
        data = self._data if data is None else data
        totals, collected = None, []
        for part in data.parts(batches, valid, self._steps_per_call):
            data.wait(totals)
            sums, outputs = self._program(variables, part.data, part.index, part.valid)
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
        for number in self._symmetries:
            turned = dataclasses.replace(
                cases,
                image=augment.symmetry(cases.image, number),
                mask=augment.symmetry(cases.mask, number),
            )
            data = self._data.other(turned)
            _, found = self(variables, index, predictions=True, data=data)
            if found.probability is not None:
                back = augment.undo_symmetry(found.probability, number)
                found = found._replace(probability=back)
            yield found

    @property
    def device_count(self) -> int:
        """Devices a batch is spread over."""
        return len(self._devices)


def _round_up(count: int, evaluator: Evaluator) -> int:
    """The smallest batch that holds ``count`` images and spreads over the devices."""
    devices = evaluator.device_count
    return math.ceil(count / devices) * devices
