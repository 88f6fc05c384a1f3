"""Orbax checkpoints of one fold: the latest whole states, and the best weights.

A checkpoint names the data and the split it was trained on, and is refused on others. It also
names the order of its channels (`models.channel_order`); an earlier order is converted on reading.
All weights of run folders are read here. A checkpoint has a digest of every array, see `packing`;
only one from an earlier version may lack it. With several processes, only process 0 writes and
reads; the others get what it has read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mtbus_jax import schema
from mtbus_jax.errors import UserError, reason
from mtbus_jax.models import channel_order
from mtbus_jax.runtime import parallel
from mtbus_jax.training import orbax_items, origins, packing
from mtbus_jax.training.orbax_items import LEAVES, ORIGIN, STATE
from mtbus_jax.training.packing import Damaged
from mtbus_jax.training.state import TrainState

LATEST, BEST = "latest", "best"
# Also the state before the latest one, to continue from if that is damaged.
_KEPT = {LATEST: 2, BEST: 1}
_BEST_LEAVES = ".best_"  # how paths of the best weights begin within a state


class Unreadable(UserError):
    """A checkpoint that is damaged, incomplete or of another network; the message names it."""


def epoch_on_disk(directory: Path, name: str) -> int:
    """Epoch of the newest finished checkpoint in ``directory``, 0 if there is none; opens nothing.

    Args:
      directory: the folder ``checkpoints`` of a fold.
      name: `LATEST` or `BEST`.
    """
    return max(_epochs(directory / name), default=0)


def _epochs(entries: Path) -> list[int]:
    # Orbax names a finished entry after its epoch; one that is being written has a longer name.
    names = [path.name for path in entries.iterdir()] if entries.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and int(name) > 0)


class Checkpoints:
    """The two checkpoint folders of one fold: two states in ``latest``, one entry in ``best``.

    Orbax writes an entry beside the old one and renames it when complete, so a killed run finds
    either the old or the new state. Reading changes nothing on disk. Use as a context manager, or
    `close` it.
    """

    def __init__(self, directory: Path, origin: dict[str, str]):
        """Opens nothing yet.

        Args:
          directory: parent of ``latest`` and ``best``.
          origin: what the weights depend on besides the configuration, by name: fingerprints of
            data and split.
        """
        self._directory = directory.absolute()
        self._origin = origin
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, trace) -> None:
        # Only the first error is reported: a full disk also fails the writes under way.
        with contextlib.suppress(*([UserError] if error is not None else [])):
            self.close()

    def close(self) -> None:
        """Waits for writes under way and releases the folders.

        Raises:
          UserError: if one of them has failed.
        """
        managers, self._managers = self._managers, {}
        for name, manager in managers.items():
            with self._told(name):
                try:
                    manager.wait_until_finished()
                finally:
                    manager.close()

    def save(self, state: TrainState, best_epoch: int) -> None:
        """Writes both checkpoints (process 0); returns once the state's buffers may be reused.

        Args:
          state: the whole one.
          best_epoch: epoch of its best weights, see `state.kept_epoch`; 0 if there are none yet.

        Raises:
          UserError: if they cannot be written, for example because the disk is full.
        """
        if parallel.is_primary():
            # The best weights come first: `latest` never refers to weights that are not on disk.
            self._save_best(state, best_epoch)
            self._write(LATEST, int(state.epoch), *packing.pack(state))

    def save_best(self, state: TrainState, best_epoch: int) -> None:
        """Writes only the best weights, if those on disk differ; arguments as for `save`.

        A continued run needs this if ``best`` was removed or is from an earlier training.
        """
        if parallel.is_primary():
            self._save_best(state, best_epoch)

    def _save_best(self, state: TrainState, best_epoch: int) -> None:
        if not best_epoch:
            return
        arrays, leaves = packing.pack(state.best_variables)
        if epoch_on_disk(self._directory, BEST) == best_epoch:
            with contextlib.suppress(Damaged):
                written = self._leaves(BEST, best_epoch)
                if written is None or written == leaves:  # earlier versions have no digests
                    return
        self._write(BEST, best_epoch, arrays, leaves)
        with self._told(BEST):
            self._managers[BEST].wait_until_finished()

    def _write(self, name: str, epoch: int, arrays: dict, leaves: list[packing.Leaf]) -> None:
        origin = self._origin | {origins.ORDER: channel_order.CURRENT}
        args = ocp.args.Composite(
            **{
                STATE: ocp.args.StandardSave(arrays),
                ORIGIN: ocp.args.JsonSave(origin),
                LEAVES: ocp.args.JsonSave(leaves),
            }
        )
        with self._told(name):
            manager = self._manager(name)
            # Left from an abandoned course: a damaged state, or weights from before a restart.
            # Orbax would keep them and decline to save an earlier epoch.
            for stale in [step for step in manager.all_steps() if step >= epoch]:
                manager.delete(stale)
            if not manager.save(epoch, args=args):
                raise RuntimeError(f"Orbax declined to save epoch {epoch}")

    def _manager(self, name: str) -> ocp.CheckpointManager:
        if name not in self._managers:
            (self._directory / name).mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT[name],
                create=False,
                # Half-written by a killed process; only one process at a time works on a fold.
                cleanup_tmp_directories=True,
                multiprocessing_options=orbax_items.alone(),
            )
            self._managers[name] = ocp.CheckpointManager(
                self._directory / name, options=options, item_handlers=orbax_items.handlers()
            )
        return self._managers[name]

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turns whatever Orbax raises while it writes into one paragraph."""
        try:
            yield
        except Exception as error:
            kept = epoch_on_disk(self._directory, LATEST)
            raise UserError(
                f"a checkpoint cannot be written to {self._directory / name}: {reason(error)}. "
                "Make room there, or make it writable, and run the same command again: it goes on "
                + (f"after epoch {kept}." if kept else "from the start of this fold.")
            ) from None

    def check_origin(self) -> None:
        """Refuses weights of other data or another split; passes if there are none.

        Raises:
          UserError: naming what differs.
        """
        for name in (LATEST, BEST):
            for epoch in reversed(_epochs(self._directory / name)):
                # A damaged checkpoint is reported where it is needed.
                with contextlib.suppress(Damaged):
                    origin = self._restore(name, epoch, ORIGIN, ocp.args.JsonRestore())
                    origins.check(self._directory / name / str(epoch), origin, self._origin)
                    return

    def has_latest(self) -> bool:
        """Whether there is a state to restore."""
        return parallel.on_primary(lambda: epoch_on_disk(self._directory, LATEST) > 0)

    def restore_latest(self, like: TrainState) -> TrainState | None:
        """The latest undamaged state, or None if there is no state yet.

        A damaged state is reported on standard error.

        Args:
          like: a state of the same shapes.

        Raises:
          UserError: if it was trained on other data or another split, or all are damaged.
        """
        return parallel.tree_from_primary(lambda: self._read_latest(like), like)

    def _read_latest(self, like: TrainState) -> TrainState | None:
        damages = []
        for epoch in reversed(_epochs(self._directory / LATEST)):
            try:
                state = self._read(LATEST, epoch, like)
            except Damaged as error:
                damages.append(f"{self._directory / LATEST / str(epoch)} is damaged: {error}")
                continue
            for damage in damages:
                print(f"{damage}. Continuing from epoch {epoch}.", file=sys.stderr, flush=True)
            return state
        if damages:
            raise Unreadable(
                f"{'; '.join(damages)}. There is no earlier state to continue from. Copy the run "
                f"folder again, or remove {self._directory} to train this fold from its start."
            )
        return None

    def restore_best(self, like: TrainState) -> dict[str, Any]:
        """Variables of the best epoch.

        Args:
          like: a state of the same shapes.

        Raises:
          UserError: if there are none yet, they were trained on other data or another split, or
            they are damaged or not those of the latest state.
        """
        return parallel.tree_from_primary(lambda: self._read_best(like), like.best_variables)

    def _read_best(self, like: TrainState) -> dict[str, Any]:
        epoch = epoch_on_disk(self._directory, BEST)
        if not epoch:
            raise UserError(
                f"{self._directory} holds no finished checkpoint; train this fold first "
                "(main.py --mode=train_and_evaluate)."
            )
        path = self._directory / BEST / str(epoch)
        state = epoch_on_disk(self._directory, LATEST)
        mend = "Copy the run folder again"
        if state:
            mend += (
                f", or remove {path} and repeat the command that trained the fold: its latest "
                "state has these weights, too"
            )
        try:
            # A process killed between the two writes leaves weights newer than its state.
            if state >= epoch and self._is_stale(epoch, state):
                raise Damaged("its weights are not those that the latest state names as the best")
            return self._read(BEST, epoch, like.best_variables)
        except Damaged as error:
            raise Unreadable(f"{path} cannot be read: {error}. {mend}.") from None

    def _is_stale(self, best: int, latest: int) -> bool:
        """Whether the weights in ``best`` are known to be of another training than the state."""
        try:
            written, named = self._leaves(BEST, best), self._leaves(LATEST, latest)
        except Damaged:
            return False  # a state that cannot be read says nothing about them
        if written is None or named is None:
            return False
        of_state = {leaf["sha256"] for leaf in named if leaf["path"].startswith(_BEST_LEAVES)}
        return not {leaf["sha256"] for leaf in written} <= of_state

    def _leaves(self, name: str, epoch: int) -> list[packing.Leaf] | None:
        """The list of leaves of a checkpoint; None for one of an earlier version.

        Raises:
          Damaged: if there is a list that cannot be read.
        """
        if not (self._directory / name / str(epoch) / LEAVES).exists():
            return None
        found = self._restore(name, epoch, LEAVES, ocp.args.JsonRestore())
        if problem := schema.misfit(found, packing.LEAVES, LEAVES):
            raise Damaged(problem)
        return found

    def _restore(self, name: str, epoch: int, item: str, args: Any) -> Any:
        path = self._directory / name / str(epoch)
        handler, alone = ocp.CompositeCheckpointHandler(), orbax_items.alone()
        try:
            with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
                return checkpointer.restore(path, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:  # Orbax raises nearly anything on a damaged or foreign entry
            raise Damaged(
                f"{item} is incomplete or of another configuration ({type(error).__name__})"
            ) from None

    def _read(self, name: str, epoch: int, like: Any) -> Any:
        """One checkpoint, as arrays of the default device.

        Raises:
          Damaged: if it is damaged.
          UserError: if it is whole but cannot be used here.
        """
        path = self._directory / name / str(epoch)
        origin = self._restore(name, epoch, ORIGIN, ocp.args.JsonRestore())
        origins.check(path, origin, self._origin)
        order = origins.channel_order_of(path, origin, goes_on=name == LATEST)
        leaves = self._leaves(name, epoch)
        # Host arrays: device arrays could only be restored to the devices they came from.
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        wanted = abstract if leaves is None else packing.room(leaves)
        found = self._restore(name, epoch, STATE, ocp.args.StandardRestore(wanted))
        try:
            if leaves is not None:
                found = packing.unpack(found, leaves, abstract)
            else:  # Orbax restores any shape into host arrays
                packing.check_shapes(dict(packing.leaves(found)), abstract)
        except packing.OtherTree as error:
            raise Unreadable(
                f"{path} belongs to another configuration: {error}. Restore the run's config.json, "
                "or choose another --workdir."
            ) from None
        return jax.tree.map(jnp.array, channel_order.to_current(found, order))
