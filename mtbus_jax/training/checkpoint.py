"""Orbax checkpoints of one fold: the latest whole state, and the best weights.

A checkpoint names the data and the split it was trained on, and is refused on others. It also
names the order of its channels (`models.channel_order`); one of a former order is converted as it
is read, which all weights of run folders are here. Of several processes, process 0 alone writes and
reads; the others get what it has read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mtbus_jax.errors import UserError
from mtbus_jax.models import channel_order
from mtbus_jax.runtime import parallel
from mtbus_jax.training.state import TrainState

_STATE, _ORIGIN = "state", "origin"
_ORDER = "channel_order"  # in the origin; checkpoints without it have order 1
LATEST, BEST = "latest", "best"


def epoch_on_disk(directory: Path, name: str) -> int:
    """Epoch of the finished checkpoint in ``directory``, 0 if there is none; opens nothing.

    Args:
      directory: see `Checkpoints`.
      name: `LATEST` or `BEST`.
    """
    entries = directory / name
    names = [path.name for path in entries.iterdir()] if entries.is_dir() else []
    # Orbax names a finished entry after its epoch; one that is being written has a longer name.
    return max((int(name) for name in names if name.isdecimal()), default=0)


class Checkpoints:
    """The two checkpoint folders of one fold, ``latest`` and ``best``; one entry is kept in each.

    Orbax writes an entry beside the old one and renames it when complete, so a killed run finds
    either the old or the new state. Use as a context manager, or `close` it.
    """

    def __init__(self, directory: Path, origin: dict[str, str]):
        """Opens (or creates) the folders.

        Args:
          directory: parent of ``latest`` and ``best``.
          origin: what the weights depend on besides the configuration, by name: fingerprints of
            data and split.
        """
        self._directory = directory.absolute()
        self._origin = origin
        self._managers: dict[str, ocp.CheckpointManager] = {}
        parallel.on_primary(self._open)

    def _open(self) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=False)
        if jax.process_count() > 1:
            # Orbax expects all processes to take part unless told otherwise.
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}
            )
        for name in (LATEST, BEST):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
            self._managers[name] = ocp.CheckpointManager(self._directory / name, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Waits for writes under way and releases the folders."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()

    def save(self, state: TrainState, best_epoch: int) -> None:
        """Writes both checkpoints (process 0); returns once the state's buffers may be reused.

        Args:
          state: the whole one.
          best_epoch: of its best weights, see `state.kept_epoch`; 0 if there are none yet.
        """
        if not parallel.is_primary():
            return
        if best_epoch and self._managers[BEST].latest_step() != best_epoch:
            self._write(BEST, best_epoch, state.best_variables)
        # The best weights come first: `latest` never refers to weights that are not on disk.
        self._write(LATEST, int(state.epoch), state)

    def _write(self, name: str, epoch: int, tree: Any) -> None:
        manager = self._managers[name]
        if manager.latest_step() == epoch:
            return
        if jax.process_count() > 1:
            # Orbax takes an array on one process's devices for a part of a larger one.
            tree = jax.tree.map(np.array, tree)
        origin = self._origin | {_ORDER: channel_order.CURRENT}
        args = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(tree), _ORIGIN: ocp.args.JsonSave(origin)}
        )
        manager.save(epoch, args=args)

    def has_latest(self) -> bool:
        """Whether there is a state to restore."""
        return parallel.on_primary(lambda: self._managers[LATEST].latest_step() is not None)

    def restore_latest(self, like: TrainState) -> TrainState | None:
        """The latest state, or None if there is none yet.

        Args:
          like: a state of the same shapes.

        Raises:
          UserError: if it was trained on other data or another split.
        """
        return parallel.on_primary(lambda: self._read(LATEST, like))

    def restore_best(self, like: TrainState) -> dict[str, Any]:
        """Variables of the best epoch.

        Args:
          like: a state of the same shapes.

        Raises:
          UserError: if there are none yet, or they were trained on other data or another split.
        """
        variables = parallel.on_primary(lambda: self._read(BEST, like.best_variables))
        if variables is None:
            raise UserError(
                f"{self._directory} holds no finished checkpoint; train this fold first "
                "(main.py --mode=train_and_evaluate)."
            )
        return variables

    def _read(self, name: str, like: Any) -> Any:
        manager = self._managers[name]
        epoch = manager.latest_step()
        if epoch is None:
            return None
        origin = manager.restore(
            epoch, args=ocp.args.Composite(**{_ORIGIN: ocp.args.JsonRestore()})
        )[_ORIGIN]
        changed = [k for k in self._origin if origin.get(k) != self._origin[k]]
        if changed:
            raise UserError(
                f"the checkpoint in {self._directory / name} was trained on a different "
                f"{' and '.join(changed)} than the run has now. Restore it, or choose another "
                "--workdir."
            )
        order = origin.get(_ORDER, 1)
        if order not in range(1, channel_order.CURRENT + 1):
            raise UserError(
                f"the checkpoint in {self._directory / name} has the channel order {order!r}, "
                "which this version of mtbus_jax does not know. Use the version that wrote it, or "
                "a newer one."
            )
        if name == LATEST and order < channel_order.CURRENT:
            raise UserError(
                f"the checkpoint in {self._directory / name} was written by a version whose "
                "learning rate was lowered, and whose training stopped, one bad epoch earlier. Its "
                "training cannot go on here: train again in another --workdir, or go on with the "
                "version that wrote it. Its best weights can still be tested and predict."
            )
        # Host arrays: as device arrays they could go to the devices alone that they came from.
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        restored = manager.restore(
            epoch, args=ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(abstract)})
        )[_STATE]
        # Into host arrays Orbax restores any shape.
        for (path, found), wanted in zip(
            jax.tree.leaves_with_path(restored), jax.tree.leaves(abstract), strict=True
        ):
            if found.shape != wanted.shape:
                raise ValueError(
                    f"{jax.tree_util.keystr(path)} has shape {found.shape} in the checkpoint, but "
                    f"{wanted.shape} in the network"
                )
        return jax.tree.map(jnp.array, channel_order.to_current(restored, order))
