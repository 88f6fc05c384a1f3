"""The folder of results: which files in it are a prediction's, and which process writes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mtbus_jax import locks
from mtbus_jax.errors import UserError
from mtbus_jax.predict import progress
from mtbus_jax.predict.progress import PREDICTIONS, PROGRESS

SETTINGS, FAILURES = "settings.json", "failures.csv"
MASKS, OVERLAYS, PROBABILITIES, DICOM = "masks", "overlays", "probabilities", "dicom"
SEGMENTATION, CAPTURE = ".seg.dcm", ".sc.dcm"  # endings in DICOM
FOLDERS = (MASKS, OVERLAYS, PROBABILITIES, DICOM)
_LOCK = ".lock"
OURS = {SETTINGS, PREDICTIONS, FAILURES, PROGRESS, *FOLDERS}


def check_free(out: Path, *, overwrite: bool, go_on: bool = False) -> None:
    """Checks that results can be written to a folder; changes nothing.

    Args:
      out: the folder.
      overwrite: whether to replace results that are there.
      go_on: whether to complete them.

    Raises:
      UserError: if both flags are given; if ``out`` is a file; if it is not empty and neither flag
        is given; or if it holds files that no earlier prediction wrote. Only with ``overwrite``
        does that include files in its subfolders.
    """
    if overwrite and go_on:
        raise UserError("--overwrite begins anew and --continue does not: give one of them.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    held = {path.name for path in out.iterdir()} - {_LOCK} if out.is_dir() else set()
    held = {name for name in held if not _is_leftover(name)}
    if not held:
        return
    if not overwrite and not go_on:
        raise UserError(
            f"--out={out} is not empty. Give another folder, --continue to go on with a prediction "
            "that was stopped, or --overwrite to replace the results there."
        )
    if SETTINGS not in held or held - OURS:
        foreign = sorted(held - OURS) or sorted(held)
        raise UserError(
            f"--out={out} holds {', '.join(foreign[:3])}, which no prediction wrote, so "
            f"--{'overwrite' if overwrite else 'continue'} does not touch it. Give another folder."
        )
    if go_on:
        return
    added = sorted(files_in(out) - _written(out))
    if added:
        more = f" and {len(added) - 3} more" if len(added) > 3 else ""
        raise UserError(
            f"--out={out} holds {', '.join(added[:3])}{more}, which no prediction wrote, so "
            "--overwrite does not touch it. Move it elsewhere, or give another folder."
        )


def _is_leftover(name: str) -> bool:
    """Whether a killed process left it while writing a table or the settings."""
    return name.endswith(".partial") and name.startswith(tuple(f"{each}." for each in OURS))


def files_in(out: Path) -> set[str]:
    """The files in the folders of results, as ``masks/name.png``."""
    folders = [out / name for name in FOLDERS]
    found = [path for folder in folders for path in folder.rglob("*") if not path.is_dir()]
    return {path.relative_to(out).as_posix() for path in found}


def _written(out: Path) -> set[str]:
    """Files that an earlier prediction wrote: those in its table and those of begun sources."""
    held = files_in(out)
    unfinished = {name for name in held if name.endswith(".partial")}  # by `files.write_bytes`
    rows = progress.read_rows(out)
    begun = progress.read(out)[0] if (out / PROGRESS).exists() else set()
    known = {row[column] for row in rows for column in progress.result_columns(row)}
    return unfinished | known | {name for name in held if source_of(name) in begun}


def source_of(file: str) -> str:
    """The source's name ``sub/x`` of ``masks/sub/x.png`` and of ``dicom/sub/x#1.seg.dcm``."""
    name = file.partition("/")[2]
    for ending in (SEGMENTATION, CAPTURE):
        if name.endswith(ending):
            return progress.source_name(name.removesuffix(ending))
    return progress.source_name(name.rpartition(".")[0])


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Keeps other processes from writing results into the folder, which is made if missing.

    Raises:
      UserError: if another process is writing, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            holder = stack.enter_context(locks.hold(out / _LOCK))
        except OSError as error:
            raise UserError(f"--out={out} cannot be written ({error}).") from None
        if holder is not None:
            raise UserError(
                f"--out={out} is being written by {holder}. Wait for it, or give another folder."
            )
        yield
