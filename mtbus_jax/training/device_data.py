"""Where images wait to be trained on: all on the device, or on the host and copied part by part.

Resident: the whole dataset is copied to every device once, and a device program reads the images
it needs by index. Streamed: for each device program the host gathers just those images, in the
order in which they are read, and copies to each device its own share of them. Both give a program
the same images in the same order, so they give the same results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.training import steps

# Images and masks may take this share of a device's memory. Testing keeps a flipped copy beside
# the dataset, and the network needs the rest.
RESIDENT_SHARE = 0.25
# Images and masks that a device is given for one program. Two such parts are on it at a time.
PART_BYTES = 256 << 20


class Part(NamedTuple):
    """The input of one device program.

    Attributes:
      data: the images that ``index`` refers to, on the devices.
      index: ``(devices, steps, share)`` int32, see `parallel.spread`.
      valid: the same shape, float32, 0 for padding.
      step_count: steps that are not padding.
    """

    data: steps.Dataset
    index: np.ndarray
    valid: np.ndarray
    step_count: int


class Resident:
    """The whole dataset on every device.

    Attributes:
      per_device: whether a part's images differ between devices (``data`` has a device axis).
    """

    per_device = False

    def __init__(self, cases: types.Cases, devices: list[jax.Device]):
        """Copies the dataset."""
        self._devices = devices
        self._data = resident_dataset(cases, devices)

    def other(self, cases: types.Cases) -> Resident:
        """Another dataset of the same shape, kept in the same way."""
        return Resident(cases, self._devices)

    def parts(self, index: np.ndarray, valid: np.ndarray, steps_per_call: int) -> Iterator[Part]:
        """Cuts batches into the inputs of device programs.

        Args:
          index: ``(steps, batch)`` integers into the dataset.
          valid: ``(steps, batch)`` float32, 0 for padding.
          steps_per_call: steps of a program, 0 for the default.

        Yields:
          The parts, in order.
        """
        chunk = steps_per_call or parallel.default_steps_per_call(len(index))
        count = len(self._devices)
        for start in range(0, len(index), chunk):
            of_part = slice(start, start + chunk)
            yield Part(
                self._data,
                parallel.spread(index[of_part], count),
                parallel.spread(valid[of_part], count),
                len(index[of_part]),
            )

    def wait(self, tree) -> None:
        """Does nothing: the host may run ahead of the devices."""


class Streamed:
    """The dataset on the host; see `Resident` for the attributes and methods of both."""

    per_device = True

    def __init__(self, cases: types.Cases, devices: list[jax.Device]):
        """Copies nothing."""
        self._cases, self._devices = cases, devices

    def other(self, cases: types.Cases) -> Streamed:
        """Another dataset of the same shape, kept in the same way."""
        return Streamed(cases, self._devices)

    def parts(self, index: np.ndarray, valid: np.ndarray, steps_per_call: int) -> Iterator[Part]:
        """As `Resident.parts`, with the images of one part at a time.

        All parts have the same number of steps, so that one program serves them; the last one is
        filled up with empty batches, which change nothing. ``steps_per_call`` is the most that a
        part has.
        """
        most = steps_per_call or self._default_steps_per_call(*index.shape)
        part_count = math.ceil(len(index) / most)
        chunk = math.ceil(len(index) / part_count)
        for start in range(0, len(index), chunk):
            of_part = slice(start, start + chunk)
            missing = [(0, chunk - len(index[of_part])), (0, 0)]
            batches = np.pad(index[of_part], missing, constant_values=index[0, 0])
            yield self._gather(
                batches, np.pad(valid[of_part], missing), step_count=len(index[of_part])
            )

    def wait(self, tree) -> None:
        """Waits for what a program computes; else parts would pile up on the devices.

        Called between gathering a part and starting its program, so that the host gathers while
        the devices compute.
        """
        jax.block_until_ready(tree)

    def _gather(self, index: np.ndarray, valid: np.ndarray, *, step_count: int) -> Part:
        """The images at ``index``, each as often as it occurs, copied to the device it is for."""
        count = len(self._devices)
        own = parallel.spread(index, count)
        positions = np.arange(own[0].size, dtype=np.int32).reshape(own.shape[1:])
        own_devices, size = len(own), own[0].size
        cases = self._cases

        def take(array: np.ndarray) -> np.ndarray:
            return array[own.ravel()].reshape(own_devices, size, *array.shape[1:])

        data = steps.Dataset(take(cases.image), take(cases.mask), take(cases.label))
        return Part(
            parallel.scatter(data, self._devices),
            np.broadcast_to(positions, own.shape),
            parallel.spread(valid, count),
            step_count,
        )

    def _default_steps_per_call(self, step_count: int, batch: int) -> int:
        share = batch // len(self._devices)
        per_step = share * _image_bytes(self._cases) / len(self._cases)
        fitting = max(1, int(PART_BYTES / per_step))
        return min(parallel.default_steps_per_call(step_count), fitting)


def place(
    config: config_dict.ConfigDict, cases: types.Cases, devices: list[jax.Device]
) -> Resident | Streamed:
    """The dataset where ``data.resident`` wants it.

    Raises:
      UserError: see `is_resident`.
    """
    kind = Resident if is_resident(config, cases, devices) else Streamed
    return kind(cases, devices)


def is_resident(
    config: config_dict.ConfigDict, cases: types.Cases, devices: list[jax.Device]
) -> bool:
    """Whether the whole dataset is to be on every device.

    ``data.resident`` decides. Where it is None, images and masks are resident if they take at most
    `RESIDENT_SHARE` of the memory that the first device has for this process; a platform that does
    not tell (a CPU) keeps them resident.

    Raises:
      UserError: if they are to be resident and take more than all of that memory.
    """
    # A run that was started before this field existed does not have it.
    wanted = config.data.get("resident")
    if wanted is False:
        return False
    needed = _image_bytes(cases)
    # All processes must run the same programs, so one of them decides.
    available = parallel.on_primary(lambda: parallel.memory_bytes(devices[0]))
    if available is None:
        return True
    if wanted is None:
        return needed <= RESIDENT_SHARE * available
    if needed > available:
        raise UserError(
            f"data.resident=True: the {len(cases)} images and masks take {needed / 2**30:.1f} GiB, "
            f"the device has {available / 2**30:.1f} GiB. Leave the field out or set it to False "
            "to have them copied part by part."
        )
    return True


def resident_dataset(cases: types.Cases, devices: list[jax.Device]) -> steps.Dataset:
    """The dataset as device arrays, copied once."""
    image, mask = map(np.ascontiguousarray, (cases.image, cases.mask))
    return parallel.replicate(steps.Dataset(image, mask, cases.label), devices)


def _image_bytes(cases: types.Cases) -> int:
    return cases.image.nbytes + cases.mask.nbytes
