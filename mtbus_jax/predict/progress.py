"""Tells which files of a prediction are finished, from ``progress.jsonl`` and the table.

A file counts as finished only if all its pictures are: a clip that was stopped half way is
predicted again from its first frame.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtbus_jax import schema
from mtbus_jax.errors import UserError, reason
from mtbus_jax.files import cell
from mtbus_jax.images import Source

PREDICTIONS, PROGRESS = "predictions.csv", "progress.jsonl"
# Lines of PROGRESS: from here on, results of a source may exist; all of them exist.
_BEGUN = {"begun": str}
_DONE = {"done": str, "file": str, "size": int, "modified_ns": int, "frames": int}
_FRAME = re.compile(r"#\d+$")  # ends a result's name, but never a source's


class Stamp(NamedTuple):
    """Size and time of a file, to detect changes; a digest would need to read every file again.

    Attributes:
      size: bytes.
      modified_ns: when it was last written, nanoseconds.
    """

    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a file; raises `OSError`."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns)


class Done(NamedTuple):
    """A source with all its results.

    Attributes:
      file: its path as the table shows it.
      stamp: of the file, from before it was read.
      frames: pictures in it.
    """

    file: str
    stamp: Stamp
    frames: int


def begun_line(name: str) -> str:
    """The progress line that is written before the results of a source."""
    return _line({"begun": name})


def done_line(name: str, done: Done) -> str:
    """The progress line that is written after the results of a source."""
    stamp = done.stamp._asdict()
    return _line({"done": name, "file": done.file, **stamp, "frames": done.frames})


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def source_name(result: str) -> str:
    """The name of the source that a result's name comes from."""
    return _FRAME.sub("", result)


def read(out: Path) -> tuple[set[str], dict[str, Done]]:
    """Reads the progress of a folder of results.

    Returns:
      The names of all sources that were begun, and those that are done. A truncated last line is
      ignored.

    Raises:
      UserError: if the table is there without the progress file, or the latter is damaged.
    """
    path = out / PROGRESS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if not (out / PREDICTIONS).exists():
            return set(), {}  # stopped before it wrote anything
        raise UserError(
            f"{path} is missing, so it is unknown what is finished: a version before there was "
            "--continue wrote these results. Give --overwrite, or another folder."
        ) from None
    except OSError as error:
        raise _damaged(path, reason(error)) from None
    begun: set[str] = set()
    done: dict[str, Done] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise _damaged(path, f"line {number} is not JSON") from None
        if not schema.misfit(found, _BEGUN):
            begun.add(found["begun"])
        elif problem := schema.misfit(found, _DONE):
            raise _damaged(path, f"line {number}: {problem}")
        else:
            stamp = Stamp(found["size"], found["modified_ns"])
            done[found["done"]] = Done(found["file"], stamp, found["frames"])
    return begun, done


def read_rows(out: Path) -> list[dict[str, str]]:
    """The whole rows of the table of a folder of results; none if there is no table.

    Raises:
      UserError: if it cannot be read.
    """
    path = out / PREDICTIONS
    try:
        content = path.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if "name" not in (rows.fieldnames or ["name"]):
            raise ValueError("it has no column name")
        # A row that is truncated within quotes has too few cells.
        return [row for row in rows if None not in row and None not in row.values()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, reason(error)) from None


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path} is damaged ({problem}), so it is unknown what is finished. Give another folder."
    )


def rows_by_source(rows: Iterable[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows of the table by the names of their sources, as `files.cell` writes them."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(source_name(row["name"]), []).append(row)
    return found


def finished(
    out: Path, sources: Sequence[Source], rows: list[dict[str, str]], done: dict[str, Done]
) -> Iterator[tuple[Source, Done, list[dict[str, str]]]]:
    """Sources that have not changed and have all their rows, and all files that the rows name.

    Args:
      out: the folder of results.
      sources: the sources to predict.
      rows: rows of the table.
      done: finished sources by name, from `read`.

    Yields:
      The source, its entry in ``done``, and its rows, frame by frame.
    """
    by_source = rows_by_source(rows)
    for source in sources:
        known, own = done.get(source.name), by_source.get(cell(source.name), [])
        if known is None or known.file != source.file or len(own) != known.frames:
            continue
        try:
            same = Stamp.of(source.path) == known.stamp
        except OSError:
            continue
        if same and all(_has_its_files(out, row) for row in own):
            yield source, known, own


def _has_its_files(out: Path, row: dict[str, str]) -> bool:
    """Whether the files that a row names exist and are not empty; a crash leaves empty files."""
    named = [out / row[column] for column in result_columns(row) if row[column]]
    return all(path.is_file() and path.stat().st_size for path in named)


def result_columns(row: Iterable[str]) -> list[str]:
    """The columns of a row that hold paths of results."""
    paths = ("mask", "overlay", "probability_map", "dicom_segmentation", "dicom_capture")
    return [column for column in paths if column in row]


def check_same(path: Path, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses to continue with another network or other settings.

    Args:
      path: of the earlier settings, for the message.
      earlier: what the results there were made with.
      settings: what they would be made with now.

    Raises:
      UserError: if a setting differs.
    """
    now = json.loads(json.dumps(settings))
    differing = [name for name in now if name not in earlier or earlier[name] != now[name]]
    if not differing:
        return
    changes = "; ".join(
        f"{name} was {json.dumps(earlier.get(name), ensure_ascii=False)} and is "
        f"{json.dumps(now[name], ensure_ascii=False)}"
        for name in differing
    )
    raise UserError(
        f"--continue: the results in {path.parent} were made with other settings: {changes}. "
        "Give the command that began them, or --overwrite to begin anew, or another folder."
    )


def check_inputs(out: Path, sources: Sequence[Source], done: dict[str, Done]) -> None:
    """Refuses to continue without the sources that are done: the table would hold extra rows.

    Raises:
      UserError: if a source that is done is not among the sources now, or has another name.
    """
    missing = sorted(done.keys() - {source.name for source in sources})
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        names = ", ".join(done[name].file for name in missing[:3])
        raise UserError(
            f"--continue: {out} holds results of {names}{more}, which --input does not name now, "
            "or whose results would have another name. Give the --input that began them; files may "
            "be added to it as long as no two differ in their suffix alone."
        )
