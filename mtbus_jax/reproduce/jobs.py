"""Runs jobs: skips finished ones, resumes stopped ones and records failed ones.

Besides its folds, a run folder of a study holds ``jobs/fold_<k>.json`` with the state of each fold
and, for a failed one, ``jobs/fold_<k>.log``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mtbus_jax import crossval, files, locks
from mtbus_jax.errors import UserError, unwritable
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.reproduce.plan import Job
from mtbus_jax.training import checkpoint, run_files, run_folder, run_splits
from mtbus_jax.training.logbook import METRICS, read_metrics
from mtbus_jax.training.run_folder import CASES

# Starts `run_job` for each job, waits until all have ended, and returns the log of each, or None.
Launcher = Callable[[list[Job]], list[Path | None]]


@dataclasses.dataclass(frozen=True)
class Record:
    """The state of a job.

    Attributes:
      state: ``new``, ``running``, ``stopped`` (from the keyboard), ``finished``, ``failed``.
      starts: how often it was started.
      attempts: how many of the starts failed.
      epochs: number of epochs that it was to train, at the last start.
      stop_patience: epochs without improvement after which it was to stop, at the last start.
      from_epoch: epochs on disk at the last start.
      error: of the last failure, one paragraph.
      log: file with the details of the last failure.
    """

    state: str = "new"
    starts: int = 0
    attempts: int = 0
    epochs: int = 0
    stop_patience: int = 0
    from_epoch: int = 0
    error: str = ""
    log: str = ""


_RECORD = {field.name: {"str": str, "int": int}[field.type] for field in dataclasses.fields(Record)}


def read_record(job: Job) -> Record:
    """The record as it stands on disk."""
    path = _path(job, "json")
    if not path.exists():
        return Record()
    mend = "Remove the file: it only says how often the job was started and failed"
    content = files.read_json(path, _RECORD, mend=mend)
    return Record(**{name: content[name] for name in _RECORD})


def is_finished(job: Job) -> bool:
    """Whether the fold is tested, and trained to the number of epochs that is wanted now.

    Reads small files only. A fold done by `main.py` counts too, even if it failed here before.
    """
    directory = run_folder.fold_dir(job.workdir, job.fold)
    if not all((directory / name).exists() for name in (CASES, *_predictions(job))):
        return False
    record = read_record(job)
    if record.state != "new" and not _tested_since(job, record):
        return record.state == "finished" and (record.epochs, record.stop_patience) == _asked(job)
    rows = read_metrics(directory)
    if not rows or (directory / CASES).stat().st_mtime < (directory / METRICS).stat().st_mtime:
        return False  # tested before its latest training
    epochs, stop_patience = _asked(job)
    epoch = rows[-1]["epoch"]
    return epoch >= epochs or epoch - rows[-1]["best_epoch"] > stop_patience


def _tested_since(job: Job, record: Record) -> bool:
    """Whether `main.py` has tested the fold after it failed or was stopped here."""
    tested = run_folder.fold_dir(job.workdir, job.fold) / CASES
    ended = record.state in ("failed", "stopped")
    return ended and tested.stat().st_mtime > _path(job, "json").stat().st_mtime


def _predictions(job: Job) -> list[str]:
    """Prediction files of a tested fold: one for each part of its split that has images."""
    if not (job.workdir / run_splits.SPLITS).exists():
        return list(stored_predictions.NAMES.values())
    folds = run_files.read_splits(job.workdir)["folds"]
    images = folds[job.fold] if job.fold < len(folds) else {}
    return [name for part, name in stored_predictions.NAMES.items() if images.get(part)]


def is_running(job: Job) -> bool:
    """Whether another process is doing the job now."""
    if not _path(job, "lock").exists():
        return False
    with _lock(job) as free:
        return not free


def has_failed(job: Job) -> bool:
    """Whether the last start of the job failed."""
    return read_record(job).state == "failed"


def state_in_words(job: Job) -> str:
    """Says that a job is not finished, and why."""
    record = read_record(job)
    if is_running(job):
        return f"{job.name} is being trained by another process"
    if has_failed(job):
        log = f" ({record.log})" if record.log else ""
        times = "once" if record.attempts == 1 else f"{record.attempts} times"
        return f"{job.name} failed {times}{log}: {record.error}"
    return f"{job.name} is not finished"


def forget_failures(jobs: list[Job]) -> None:
    """Lets jobs that failed too often be tried again."""
    for job in jobs:
        record = read_record(job)
        if record.attempts:
            _write(job, dataclasses.replace(record, attempts=0))


def attempt_all(jobs: list[Job], launch: Launcher, *, max_attempts: int) -> None:
    """Launches every unfinished job until it is finished or has failed too often.

    Args:
      jobs: the jobs; finished ones are skipped.
      launch: how to run them.
      max_attempts: failures after which a job is left alone.
    """
    for job in jobs:
        _note_death(job)
    while pending := [job for job in jobs if _is_pending(job, max_attempts)]:
        starts = [read_record(job).starts for job in pending]
        logs = launch(pending)
        for job, before, log in zip(pending, starts, logs, strict=True):
            if is_running(job):
                continue
            record = read_record(job)
            if record.starts == before:
                _write_failure(job, record, "it ended before it began", log)
            _note_death(job, log)


def _is_pending(job: Job, max_attempts: int) -> bool:
    return not is_finished(job) and not is_running(job) and read_record(job).attempts < max_attempts


def run_job(job: Job) -> None:
    """Trains and tests one fold; a failure is recorded, not raised.

    Does nothing if another process is doing the job.

    Raises:
      UserError: if the record cannot be written.
    """
    with _lock(job) as free:
        if not free:
            return
        files.remove_leftovers(_path(job, "json").parent)
        _note_death(job, locked=True)
        record = read_record(job)
        record = dataclasses.replace(
            record,
            state="running",
            starts=record.starts + 1,
            epochs=job.config.train.epochs,
            stop_patience=job.config.train.stop_patience,
            from_epoch=epochs_on_disk(job),
            error="",
            log="",
        )
        _write(job, record)
        try:
            crossval.train_and_evaluate(job.config, job.workdir, folds=(job.fold,))
        except KeyboardInterrupt:
            _write(job, dataclasses.replace(record, state="stopped"))
            raise
        except Exception as error:
            log = _path(job, "log")
            files.write_text(log, traceback.format_exc())
            _write_failure(job, record, _paragraph(error), log)
        else:
            _write(job, dataclasses.replace(record, state="finished"))


def _note_death(job: Job, log: Path | None = None, *, locked: bool = False) -> None:
    """Corrects a record that says ``running`` although the job's process has vanished.

    This counts as a failed attempt unless the job trained an epoch since its last start, so that a
    job that a time limit stops again and again still gets done.
    """
    record = read_record(job)
    if record.state != "running" or (not locked and is_running(job)):
        return
    if epochs_on_disk(job) > record.from_epoch:
        _write(job, dataclasses.replace(record, state="stopped"))
    else:
        _write_failure(job, record, "it was killed or ran out of memory", log)


def _write_failure(job: Job, record: Record, error: str, log: Path | None) -> None:
    failed = dataclasses.replace(
        record,
        state="failed",
        attempts=record.attempts + 1,
        error=error,
        log=str(log) if log else "",
    )
    _write(job, failed)


def _paragraph(error: Exception) -> str:
    """The error in one line; XLA's messages can be pages."""
    text = " ".join(str(error).split())
    if len(text) > 500:
        text = text[:500] + " …"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _asked(job: Job) -> tuple[int, int]:
    return job.config.train.epochs, job.config.train.stop_patience


def epochs_on_disk(job: Job) -> int:
    """Epochs of the latest checkpoint; 0 if there is none."""
    directory = run_folder.fold_dir(job.workdir, job.fold) / "checkpoints"
    return checkpoint.epoch_on_disk(directory, checkpoint.LATEST)


def _path(job: Job, suffix: str) -> Path:
    return job.workdir / "jobs" / f"fold_{job.fold}.{suffix}"


def _write(job: Job, record: Record) -> None:
    path = _path(job, "json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    files.write_json(path, dataclasses.asdict(record))


@contextlib.contextmanager
def _lock(job: Job) -> Iterator[bool]:
    """Holds the job for this process; gives False if another one holds it.

    The lock ends with the process, however that ends.
    """
    path = _path(job, "lock")
    with contextlib.ExitStack() as stack:
        try:
            holder = stack.enter_context(locks.hold(path))
        except OSError as error:
            raise unwritable(path, error) from None
        yield holder is None
