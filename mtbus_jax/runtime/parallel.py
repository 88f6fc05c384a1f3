"""The one place that knows devices and processes: data parallelism by pmap over all of them.

State and dataset are replicated (no leading device axis); only the index arrays that say which
images a step reads are spread, so a step costs the host a few hundred bytes. A dataset that does
not fit a device is refused, see `device_data`.

Where several processes train one run, each executes the same program on the whole dataset. What
pmap takes and returns is then local to a process: its copy of the state, its devices' share of the
index arrays. The run folder belongs to process 0; `on_primary` passes on what it reads there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mtbus_jax.errors import UserError
from mtbus_jax.runtime.cluster import Cluster, meet

AXIS = "devices"
# A process that stops alone waits this long for the others before all of them end.
_SHUTDOWN_SECONDS = 30
_MESSAGE_BYTES = 1024

T = TypeVar("T")


def start(cluster: Cluster, *, timeout: int) -> None:
    """Connects this process with the others; must be called before anything is computed.

    Args:
      cluster: who they are, see `cluster.find_cluster`.
      timeout: seconds to wait for them now, and later for a sign of life from each.

    Raises:
      UserError: if one does not come, or their numbers of devices differ.
    """
    meet(cluster, timeout=timeout)
    jax.distributed.initialize(
        coordinator_address=cluster.coordinator,
        num_processes=cluster.processes,
        process_id=cluster.process,
        local_device_ids=cluster.local_devices,
        # Otherwise JAX would read SLURM's variables again and always take one GPU per task.
        cluster_detection_method="deactivate",
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=timeout,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    counts = [len(devices) for devices in _devices_of_processes()]
    if len(set(counts)) > 1:
        raise UserError(
            f"the processes have different numbers of devices ({', '.join(map(str, counts))}); "
            "give each the same, for instance through CUDA_VISIBLE_DEVICES."
        )


def is_primary() -> bool:
    """Whether this is process 0, the one that reads and writes the run folder and the screen."""
    return jax.process_index() == 0


def process_count() -> int:
    """How many processes train the run."""
    return jax.process_count()


def any_process(holds: bool) -> bool:
    """Whether something holds in at least one process; each must call this at the same time."""
    if process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(np.array(holds)).any())


def _as_it_is(value: Any) -> Any:
    return value


def on_primary(
    work: Callable[[], T],
    *,
    to_json: Callable[[T], Any] = _as_it_is,
    from_json: Callable[[Any], T] = _as_it_is,
) -> T:
    """What ``work()`` returns in process 0, in every process; the others wait for it.

    It is sent as JSON, which holds data and no code.

    Args:
      work: called in process 0 alone.
      to_json: makes its result something that JSON can hold.
      from_json: the inverse.

    Raises:
      UserError: in every process, if ``work`` fails.
    """
    if jax.process_count() == 1:
        return work()
    result, message = None, b""
    with together():
        if is_primary():
            result = work()
            message = json.dumps(to_json(result)).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(message))))
    # Padded, because each size needs its own device program.
    padded = np.zeros(2 ** max(size - 1, 1).bit_length(), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded)
    return result if is_primary() else from_json(json.loads(received[:size].tobytes()))


def tree_from_primary(work: Callable[[], T], like: Any) -> T:
    """The arrays that ``work()`` returns in process 0, in every process.

    Args:
      work: called in process 0 alone; returns a tree like ``like``, or None.
      like: a tree of the same shapes and dtypes.

    Raises:
      UserError: in every process, if ``work`` fails.
    """
    if jax.process_count() == 1:
        return work()
    tree = None
    with together():
        if is_primary():
            tree = work()
    if not on_primary(lambda: tree is not None):
        return None
    if tree is None:
        tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    received = multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))
    return jax.tree.map(jnp.array, received)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that succeeds in all processes or fails in all: one failure is raised in all.

    Raises:
      UserError: after the block, if it failed in another process.
    """
    if jax.process_count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    text = ""
    if failure is not None:
        text = str(failure) if isinstance(failure, UserError) else repr(failure)
    message = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = text.encode()[:_MESSAGE_BYTES]
    message[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    messages = multihost_utils.process_allgather(message)
    if failure is not None:
        raise failure
    for process, row in enumerate(messages):
        if row.any():
            said = row.tobytes().rstrip(b"\0").decode(errors="ignore")
            raise UserError(f"stopped, because process {process} did: {said}")


def check_same(values: dict[str, Any]) -> None:
    """Refuses processes that were started with different things.

    Args:
      values: what must be equal everywhere, by name; values that JSON can hold.

    Raises:
      UserError: in every process, naming the first difference.
    """
    primary = on_primary(lambda: values)
    with together():
        for name, value in values.items():
            if value != primary.get(name):
                raise UserError(
                    f"process {jax.process_index()} has another {name} ({value!r}) than process 0 "
                    f"({primary.get(name)!r}); start all processes with the same command and data."
                )


def _devices_of_processes() -> list[list[jax.Device]]:
    """All devices of the run, by process."""
    devices = [[] for _ in range(jax.process_count())]
    for device in jax.devices():
        devices[device.process_index].append(device)
    return devices


def run_in_caller() -> None:
    """Makes a CPU run each program in the thread that calls it, which waits for it.

    Must be called before JAX's first computation. Otherwise a thread of JAX runs the program, whose
    memory is then kept only with `host_memory.keep_freed_memory` for all threads. The caller, which
    has nothing else to do in training, waits in either case.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def in_words(device: jax.Device) -> str:
    """A device by platform and kind, such as ``gpu (NVIDIA H200)``; ``cpu`` if both are equal."""
    kind = device.device_kind
    return device.platform if kind == device.platform else f"{device.platform} ({kind})"


def choose_devices(count: int, batch_size: int) -> list[jax.Device]:
    """The devices to train on, those of process 0 first.

    Args:
      count: how many of each process; 0 takes the largest number that divides the batch.
      batch_size: images per optimiser step, over all devices of all processes.

    Raises:
      UserError: if there are fewer devices, or the batch cannot be spread evenly.
    """
    everyones = _devices_of_processes()
    processes, available = len(everyones), len(everyones[0])
    if batch_size % processes:
        raise UserError(
            f"train.batch_size={batch_size} cannot be spread evenly over {processes} processes; "
            f"make it a multiple of {processes}, or start fewer."
        )
    share = batch_size // processes
    if count == 0:
        count = max(n for n in range(1, available + 1) if share % n == 0)
    if count > available:
        where = "this machine" if processes == 1 else "each process"
        raise UserError(
            f"train.devices={count}, but {where} has {available} "
            f"({everyones[0][0].platform}). Use --config.train.devices=0 to take what is there."
        )
    if share % count:
        over = f"train.devices={count}" + (f" of {processes} processes" if processes > 1 else "")
        raise UserError(
            f"train.batch_size={batch_size} cannot be spread evenly over {over}; "
            "make one a multiple of the other."
        )
    return [device for devices in everyones for device in devices[:count]]


def default_steps_per_call(steps: int) -> int:
    """Optimiser steps per device program: the whole epoch on accelerators, one on a CPU.

    On an accelerator, launch overhead dominates at batch size 2. On a CPU it is negligible, and
    between programs the progress bar moves and interrupts are handled.
    """
    return 1 if jax.default_backend() == "cpu" else steps


def memory_bytes(device: jax.Device) -> int | None:
    """Bytes of a device of this process that JAX may use; None if the platform does not say."""
    return (device.memory_stats() or {}).get("bytes_limit")


def pmap_train(train_steps: Callable, devices: list[jax.Device]) -> Callable:
    """`steps.train_steps` over ``devices``; state and totals are donated.

    The result takes index arrays spread by `spread`.

    Args:
      train_steps: with all but its positional arguments bound.
      devices: of all processes.
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
    """`steps.eval_steps` over ``devices``; predictions come back with a leading device axis.

    Arguments as for `pmap_train`.
    """
    return jax.pmap(
        eval_steps,
        axis_name=AXIS,
        in_axes=(None, None, 0, 0),
        out_axes=(None, 0),
        devices=devices,
    )


def replicate(tree, devices: list[jax.Device]):
    """Copies host arrays to every device of this process, so that no step transfers them again."""
    mesh = jax.sharding.Mesh(np.array(_own(devices)), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def _own(devices: list[jax.Device]) -> list[jax.Device]:
    return [device for device in devices if device.process_index == jax.process_index()]


def spread(array: np.ndarray, device_count: int) -> np.ndarray:
    """Splits batches over devices in order.

    Args:
      array: ``(steps, batch, ...)``, the same in every process.
      device_count: of all processes; divides ``batch``.

    Returns:
      ``(devices, steps, batch / devices, ...)``, the part of this process's devices.
    """
    steps, batch, *rest = array.shape
    shares = array.reshape(steps, device_count, batch // device_count, *rest)
    own = device_count // jax.process_count()
    first = own * jax.process_index()
    return np.moveaxis(shares, 1, 0)[first : first + own]


def gather_spread(array: np.ndarray) -> np.ndarray:
    """Undoes `spread` and joins the batches: ``(devices, steps, share, ...)`` → ``(n, ...)``.

    Every process gives the part of its devices, and gets the whole.
    """
    if jax.process_count() > 1:
        array = multihost_utils.process_allgather(array, tiled=True)
    devices, steps, share, *rest = array.shape
    return np.moveaxis(array, 0, 1).reshape(steps * devices * share, *rest)
