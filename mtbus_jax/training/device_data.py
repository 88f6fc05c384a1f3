"""The dataset on the devices: all images on each, copied once; a program reads them by index.

The public datasets of breast ultrasound are small: Curated BUSI takes 15 MB at 128×128, images and
masks, and 50,000 images 1.6 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.models import lossnet
from mtbus_jax.runtime import parallel
from mtbus_jax.training import steps


class Part(NamedTuple):
    """The batches of one device program.

    Attributes:
      index: ``(devices, steps, share)`` int32 into the dataset, see `parallel.spread`.
      valid: the same shape, float32, 0 for padding.
      step_count: number of steps.
    """

    index: np.ndarray
    valid: np.ndarray
    step_count: int


def place(cases: types.Cases, devices: list[jax.Device]) -> steps.Dataset:
    """The dataset as device arrays, whole on each device.

    Raises:
      UserError: if it takes more memory than the first device has. A CPU does not report its size.
    """
    needed = cases.image.nbytes + cases.mask.nbytes
    # All processes must run the same programs, so one of them decides.
    available = parallel.on_primary(lambda: parallel.memory_bytes(devices[0]))
    if available is not None and needed > available:
        raise UserError(
            f"the {len(cases)} images and masks take {needed / 2**30:.1f} GiB, a device has "
            f"{available / 2**30:.1f} GiB. Use a smaller --config.data.image_size, or fewer images."
        )
    image, mask = map(np.ascontiguousarray, (cases.image, cases.mask))
    known = (
        None if each.all() else each.astype(np.float32)
        for each in (cases.mask_known, cases.label_known)
    )
    label = np.maximum(cases.label, 0)
    return parallel.replicate(steps.Dataset(image, mask, label, *known), devices)


def with_lossnet(
    data: steps.Dataset, vgg: lossnet.Vgg | None, devices: list[jax.Device]
) -> steps.Dataset:
    """The dataset to train on, with the weights of LossNet on each device if there are any."""
    return data if vgg is None else data._replace(lossnet=parallel.replicate(vgg, devices))


def parts(
    index: np.ndarray, valid: np.ndarray, *, steps_per_call: int, device_count: int
) -> Iterator[Part]:
    """Cuts batches into the inputs of device programs.

    Args:
      index: ``(steps, batch)`` integers into the dataset.
      valid: ``(steps, batch)`` float32, 0 for padding.
      steps_per_call: steps of a program, 0 for the default.
      device_count: number of devices that a batch is spread over.

    Yields:
      The parts, in order.
    """
    chunk = steps_per_call or parallel.default_steps_per_call(len(index))
    for start in range(0, len(index), chunk):
        of_part = slice(start, start + chunk)
        yield Part(
            parallel.spread(index[of_part], device_count),
            parallel.spread(valid[of_part], device_count),
            len(index[of_part]),
        )
