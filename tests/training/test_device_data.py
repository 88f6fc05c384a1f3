"""The dataset on the devices, and batches cut into device programs."""

import jax
import numpy as np
import pytest
import tiny

from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.training import device_data


def test_images_masks_and_labels_are_those_of_the_cases():
    cases = tiny.make_cases()
    placed = device_data.place(cases, jax.local_devices()[:1])
    np.testing.assert_array_equal(placed.image, cases.image)
    np.testing.assert_array_equal(placed.mask, cases.mask)
    np.testing.assert_array_equal(placed.label, cases.label)
    assert placed.image.dtype == placed.mask.dtype == np.uint8


def test_more_images_than_a_device_holds_are_refused(monkeypatch):
    cases = tiny.make_cases()
    needed = cases.image.nbytes + cases.mask.nbytes
    monkeypatch.setattr(parallel, "memory_bytes", lambda device: needed)
    device_data.place(cases, jax.local_devices()[:1])
    monkeypatch.setattr(parallel, "memory_bytes", lambda device: needed - 1)
    with pytest.raises(UserError, match=r"data\.image_size"):
        device_data.place(cases, jax.local_devices()[:1])


@pytest.mark.parametrize("steps_per_call", [1, 2, 5, 9])
def test_parts_hold_every_batch_once_in_order(steps_per_call):
    index = np.arange(20).reshape(5, 4)
    valid = np.ones((5, 4), np.float32)
    valid[-1, 2:] = 0
    found = list(device_data.parts(index, valid, steps_per_call=steps_per_call, device_count=2))
    assert [part.step_count for part in found] == [
        min(steps_per_call, 5 - start) for start in range(0, 5, steps_per_call)
    ]
    # (devices, steps, share) back to (steps, batch).
    joined = np.concatenate([np.concatenate(list(part.index), axis=1) for part in found])
    np.testing.assert_array_equal(joined, index)
    joined = np.concatenate([np.concatenate(list(part.valid), axis=1) for part in found])
    np.testing.assert_array_equal(joined, valid)


def test_a_cpu_takes_one_step_a_program():
    index = np.zeros((3, 2), int)
    found = device_data.parts(index, np.ones((3, 2)), steps_per_call=0, device_count=1)
    assert [part.step_count for part in found] == [1, 1, 1]
