"""Several folds in one device program: stacked on the same devices, or each on its own.

Both ways map the steps over a leading axis of folds and offer the same methods, so that the loop in
`train_folds` does not know which one it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mtbus_jax.runtime import parallel

FOLD_AXIS = "folds"


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure → one tree of host arrays with a leading axis, an entry per tree."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(list(trees)))


def unstack(tree: Any) -> list[Any]:
    """Undoes `stack`; host arrays (reads the device)."""
    host = jax.device_get(tree)
    count = len(jax.tree.leaves(host)[0])
    return [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), host) for k in range(count)]


class StackedFolds:
    """Every device holds all folds (vmap); batches are spread over devices as for one fold.

    Attributes:
      axis_name: the mapped axis over which a fold's batch is spread …
      batch_devices: … and over how many devices it is.
    """

    axis_name = parallel.AXIS

    def __init__(self, devices: list[jax.Device]):
        """Takes the devices that one fold alone would have."""
        self._devices = devices
        self.batch_devices = len(devices)

    def put(self, tree: Any) -> Any:
        """Places a tree with a leading axis of folds."""
        return parallel.replicate(tree, self._devices)

    def put_shared(self, tree: Any) -> Any:
        """Places a tree that all folds read, such as the dataset."""
        return parallel.replicate(tree, self._devices)

    def spread(self, array: np.ndarray) -> np.ndarray:
        """``(folds, steps, batch)`` → ``(devices, folds, steps, batch / devices)``."""
        return np.stack([parallel.spread(of_fold, len(self._devices)) for of_fold in array], axis=1)

    def map_train(self, train_steps: Callable) -> Callable:
        """`steps.train_steps` of all folds; state and totals are donated."""
        mapped = jax.vmap(train_steps, in_axes=(0, 0, None, 0, 0, 0))
        return parallel.pmap_train(mapped, self._devices)

    def map_eval(self, eval_steps: Callable) -> Callable:
        """`steps.eval_steps` of all folds."""
        return parallel.pmap_eval(jax.vmap(eval_steps, in_axes=(0, None, 0, 0)), self._devices)

    def map_states(self, function: Callable) -> Callable:
        """``function(state, value)`` of all folds; the states are donated."""
        return jax.jit(jax.vmap(function), donate_argnums=0)


class FoldPerDevice:
    """Every device holds one fold (pmap); nothing passes between devices.

    Attributes:
      axis_name: None, because a fold's batch is not spread …
      batch_devices: … but lies on one device.
    """

    axis_name = None
    batch_devices = 1

    def __init__(self, devices: list[jax.Device]):
        """Takes one device per fold."""
        self._devices = devices
        self._mesh = jax.sharding.Mesh(np.array(devices), (FOLD_AXIS,))

    def put(self, tree: Any) -> Any:
        """Places a tree with a leading axis of folds."""
        spec = jax.sharding.PartitionSpec(FOLD_AXIS)
        return jax.device_put(tree, jax.sharding.NamedSharding(self._mesh, spec))

    def put_shared(self, tree: Any) -> Any:
        """Places a tree that all folds read, such as the dataset."""
        return parallel.replicate(tree, self._devices)

    def spread(self, array: np.ndarray) -> np.ndarray:
        """``(folds, steps, batch)`` as it is: the leading axis goes over the devices."""
        return array

    def map_train(self, train_steps: Callable) -> Callable:
        """`steps.train_steps` of all folds; state and totals are donated."""
        return self._pmap(train_steps, (0, 0, None, 0, 0, 0), donate=(0, 1))

    def map_eval(self, eval_steps: Callable) -> Callable:
        """`steps.eval_steps` of all folds."""
        return self._pmap(eval_steps, (0, None, 0, 0), donate=())

    def map_states(self, function: Callable) -> Callable:
        """``function(state, value)`` of all folds; the states are donated."""
        return self._pmap(function, (0, 0), donate=(0,))

    def _pmap(self, function: Callable, in_axes: tuple, *, donate: tuple[int, ...]) -> Callable:
        return jax.pmap(
            function,
            axis_name=FOLD_AXIS,
            in_axes=in_axes,
            devices=self._devices,
            donate_argnums=donate,
        )
