"""The one place that knows devices: data parallelism by pmap over this process's devices.

State and dataset are replicated (no leading device axis); only the index arrays that say which
images a step reads are spread, so a step costs the host a few hundred bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from mtbus_jax.errors import UserError

AXIS = "devices"


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start need not compile again.

    In ``$XDG_CACHE_HOME/mtbus_jax/xla`` (default ``~/.cache``), unless JAX's own
    ``JAX_COMPILATION_CACHE_DIR`` names a place. JAX warns and goes on if it cannot be written.
    """
    if jax.config.jax_compilation_cache_dir is None:
        root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = Path(root).expanduser() / "mtbus_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def in_words(device: jax.Device) -> str:
    """A device by platform and kind, such as ``gpu (NVIDIA H200)``; ``cpu`` where both are one."""
    kind = device.device_kind
    return device.platform if kind == device.platform else f"{device.platform} ({kind})"


def choose_devices(count: int, batch_size: int) -> list[jax.Device]:
    """The local devices to train on.

    Args:
      count: how many; 0 takes the largest number that divides the batch.
      batch_size: images per optimiser step, over all devices.

    Raises:
      UserError: if there are fewer devices, or the batch cannot be spread evenly.
    """
    local = jax.local_devices()
    if count == 0:
        count = max(n for n in range(1, len(local) + 1) if batch_size % n == 0)
    if count > len(local):
        raise UserError(
            f"train.devices={count}, but this machine has {len(local)} "
            f"({local[0].platform}). Use --config.train.devices=0 to take what is there."
        )
    if batch_size % count:
        raise UserError(
            f"train.batch_size={batch_size} cannot be spread evenly over train.devices={count}; "
            "make one a multiple of the other."
        )
    return local[:count]


def default_steps_per_call(steps: int) -> int:
    """Optimiser steps per device program: the whole epoch on accelerators, one on a CPU.

    On an accelerator at batch 2 launch overhead rules; on a CPU it is nothing, and XLA runs loops
    of convolutions slowly there (see `steps`).
    """
    return 1 if jax.default_backend() == "cpu" else steps


def pmap_train(train_steps: Callable, devices: list[jax.Device]) -> Callable:
    """`steps.train_steps` over ``devices``; state and totals are donated.

    The result takes index arrays spread by `spread`.
    """
    return jax.pmap(
        train_steps,
        axis_name=AXIS,
        in_axes=(None, None, None, 0, 0, None),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=(0, 1),
    )


def pmap_eval(eval_steps: Callable, devices: list[jax.Device]) -> Callable:
    """`steps.eval_steps` over ``devices``; predictions come back with a leading device axis."""
    return jax.pmap(
        eval_steps,
        axis_name=AXIS,
        in_axes=(None, None, 0, 0),
        out_axes=(None, 0),
        devices=devices,
    )


def replicate(tree, devices: list[jax.Device]):
    """Copies host arrays to every device once, so that no step transfers them again."""
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(tree, everywhere)


def spread(array: np.ndarray, device_count: int) -> np.ndarray:
    """Splits batches over devices in order.

    Args:
      array: ``(steps, batch, ...)``.
      device_count: divides ``batch``.

    Returns:
      ``(devices, steps, batch / devices, ...)``.
    """
    steps, batch, *rest = array.shape
    shares = array.reshape(steps, device_count, batch // device_count, *rest)
    return np.moveaxis(shares, 1, 0)


def gather_spread(array: np.ndarray) -> np.ndarray:
    """Undoes `spread` and joins the batches: ``(devices, steps, share, ...)`` → ``(n, ...)``."""
    devices, steps, share, *rest = array.shape
    return np.moveaxis(array, 0, 1).reshape(steps * devices * share, *rest)
