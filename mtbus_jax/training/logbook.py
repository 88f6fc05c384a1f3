"""The record of one fold's training: ``metrics.jsonl``, TensorBoard events, progress on screen."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from mtbus_jax import schema
from mtbus_jax.errors import UserError, reason, unwritable
from mtbus_jax.files import write_text
from mtbus_jax.runtime import parallel
from mtbus_jax.schema import Each

METRICS = "metrics.jsonl"
_ROW = {"epoch": int}


class Logbook:
    """Writes one JSON line and one set of TensorBoard scalars per epoch.

    On opening, lines after the epoch that training resumes from are dropped: those epochs are
    computed again. Of several processes only process 0 writes.
    """

    def __init__(self, directory: Path, *, resume_epoch: int, tensorboard: bool):
        """Opens the files in ``directory``.

        Args:
          directory: folder of the fold.
          resume_epoch: epochs already done according to the checkpoint.
          tensorboard: whether to write event files.
        """
        self._path = directory / METRICS
        self._writer = None
        if not parallel.is_primary():
            return
        kept = [row for row in read_metrics(directory) if row["epoch"] <= resume_epoch]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        if tensorboard:
            try:
                self._writer = EventFile(directory / "tensorboard", first_epoch=resume_epoch + 1)
            except OSError as error:
                raise unwritable(directory / "tensorboard", error) from None

    def write(self, row: dict[str, Any]) -> None:
        """Appends one epoch; ``row`` holds ``epoch`` (from 1) and numbers by name.

        Raises:
          UserError: if it cannot be written, for example because the disk is full.
        """
        if not parallel.is_primary():
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if self._writer is not None:
                self._writer.write(row)
        except OSError as error:
            raise unwritable(self._path.parent, error) from None

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *exc_info) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # lines are flushed; a full disk has been reported
                self._writer.close()


class EventFile:
    """TensorBoard scalars of a training, written to disk after each epoch.

    tensorboardX writes the format without TensorFlow. Its `SummaryWriter` is not used: it writes
    from its own thread, which a full disk ends, and training would then wait for it forever.
    """

    def __init__(self, folder: Path, *, first_epoch: int):
        """Starts a file in ``folder``; it replaces earlier scalars from ``first_epoch`` on."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        self._event = event_pb2.Event
        self._file = EventsWriter(str(folder / "events"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._file.write_event(self._event(step=first_epoch, session_log=start))
        self._file.flush()

    def write(self, row: dict[str, Any]) -> None:
        """Appends the numbers of one epoch, see `Logbook.write`."""
        event = self._event(wall_time=time.time(), step=row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                # TensorBoard groups curves by what stands before the slash.
                tag = name.replace("train_", "train/").replace("validation_", "validation/")
                event.summary.value.add(tag=tag, simple_value=value)
        self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def check_epochs(directory: Path, epochs: int) -> None:
    """Refuses a fold that has been trained for more epochs than asked for.

    Args:
      directory: the fold's folder.
      epochs: number of epochs asked for.

    Raises:
      UserError: if it has.
    """
    rows = read_metrics(directory)
    if rows and rows[-1]["epoch"] > epochs:
        raise UserError(
            f"{directory} was trained for {rows[-1]['epoch']} epochs already, more than the "
            f"{epochs} asked for. Choose another --workdir, or ask for as many epochs."
        )


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The rows of a fold's ``metrics.jsonl``, by epoch; empty if there is none.

    A last line cut short by a kill is left out: its epoch was not saved.

    Raises:
      UserError: if another line is broken, or an epoch appears twice.
    """
    path = directory / METRICS
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}. Restore it.") from None
    *lines, rest = text.split("\n")
    rows = []
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            row = json.loads(line)
            problem = schema.misfit(row, _ROW) or schema.misfit(row, Each(float))
        except ValueError as error:
            if number > len(lines):
                break
            problem = f"it is not valid JSON ({error})"
        if not problem and rows and row["epoch"] <= rows[-1]["epoch"]:
            problem = f"epoch {row['epoch']} comes after epoch {rows[-1]['epoch']}"
        if problem:
            raise UserError(
                f"{path}, line {number}, is broken: {problem}. Restore or remove the line; the "
                "curves in the report will lack its epoch, and nothing else."
            )
        rows.append(row)
    return rows


class TrainingProgress:
    """A progress bar over the steps of one fold, with loss, Dice, accuracy and time left.

    On anything but a terminal only the line per epoch is printed.
    """

    # Reading a device value makes the host wait; a few times a second is enough for the eye.
    _REFRESH_SECONDS = 0.5

    def __init__(
        self,
        *,
        fold: int,
        epochs: int,
        steps: int,
        first_epoch: int,
        shown: bool,
    ):
        """Prepares the bar.

        Args:
          fold: its number, shown on the left.
          epochs: of the whole training.
          steps: optimiser steps per epoch.
          first_epoch: epochs already done.
          shown: whether to show anything; of several processes only process 0 does.
        """
        shown = shown and parallel.is_primary()
        self._console = Console(highlight=False, soft_wrap=True, quiet=not shown)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),  # all columns together fit a terminal of 80
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
        )
        self._fold, self._epochs = fold, epochs
        self._task = self._bar.add_task(
            f"fold {fold}", total=epochs * steps, completed=first_epoch * steps, figures=""
        )
        self._last_refresh = 0.0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._bar.stop()

    def advance(self, steps: int, epoch: int, totals) -> None:
        """Moves on by ``steps``; ``totals`` are the epoch's sums so far."""
        self._bar.advance(self._task, steps)
        now = time.monotonic()
        if self._bar.disable or now - self._last_refresh < self._REFRESH_SECONDS:
            return
        self._last_refresh = now
        means = totals.means()
        figures = (
            f"epoch {epoch} loss {means['loss']:.3f} Dice {means['dice']:.3f} "
            f"acc {means['accuracy']:.3f}"
        )
        self._bar.update(self._task, figures=figures)

    def epoch_line(self, row: dict[str, Any]) -> None:
        """Prints the line of a finished epoch."""
        validation = ""
        if "validation_loss" in row:
            validation = (
                f"  validation loss {row['validation_loss']:.3f} Dice {row['validation_dice']:.3f}"
                f" acc {row['validation_accuracy']:.3f}"
            )
        self._console.print(
            f"fold {self._fold} epoch {row['epoch']:>3}/{self._epochs}"
            f"  train loss {row['train_loss']:.3f} Dice {row['train_dice']:.3f}"
            f" acc {row['train_accuracy']:.3f}"
            f"{validation}  lr {row['learning_rate']:.1e}  {row['seconds']:.0f} s"
        )

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text)
