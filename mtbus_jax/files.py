"""Writes files that appear whole or not at all; reads JSON and tables with clear errors."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtbus_jax import locks, schema
from mtbus_jax.errors import UserError, reason, unwritable

_PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.(?P<process>\d+)@(?P<host>.+)\.partial")
# After this time a partial file of another machine or an earlier version counts as a leftover.
_LEFTOVER_SECONDS = 3600

_LONGEST_NAME = 255  # bytes

# The column names are looked for in this many lines of a table.
_TITLES = 10
_SEPARATORS = ",;\t"
# Excel writes this line above the columns.
_NAMED_SEPARATOR = re.compile(r"sep=([,;\t])", re.IGNORECASE)
_FORMULA = "=+-@\t\r\n"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      line: number of the line that it ends on, from 1.
      cells: by column, without spaces around them; "" for a cell that is missing.
      complete: whether it has a cell for each column and no text beyond them.
    """

    line: int
    cells: dict[str, str]
    complete: bool


def parse_table(content: bytes, name: str, *, titles: bool = False) -> tuple[list[str], list[Row]]:
    """Reads a CSV file as spreadsheets save it.

    The text is UTF-8 or UTF-16. The separator is a comma, semicolon or tab: the one that the first
    line names, as in ``sep=;``, or else has most of. Rows without any text are left out.

    Args:
      content: of the file.
      name: of the file, for messages.
      titles: whether lines of one cell may come before the columns, see `header`.

    Returns:
      The columns, in order, and the rows.

    Raises:
      UserError: if it is not such a text.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        named = _NAMED_SEPARATOR.fullmatch(first.strip().strip('"'))
        if named:
            text = "\n" + text.lstrip().partition("\n")[2]  # lines keep their numbers
        if titles:  # which hold no separator
            above = text.lstrip().split("\n")[:_TITLES]
            first = next((line for line in above if any(map(line.count, _SEPARATORS))), first)
        separator = named[1] if named else max(_SEPARATORS, key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{name} is not a table in UTF-8 or UTF-16 ({error}). Save it as CSV, UTF-8."
        ) from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        return [], []
    start = header([cells for _, cells in lines]) if titles else 0
    columns = lines[start][1]
    rows = []
    for number, cells in lines[start + 1 :]:
        padded = cells + [""] * (len(columns) - len(cells))
        complete = len(cells) >= len(columns) and not any(cells[len(columns) :])
        rows.append(Row(number, dict(zip(columns, padded, strict=False)), complete))
    return columns, rows


def header(lines: Sequence[Sequence[str]]) -> int:
    """Which line of a table names its columns.

    Spreadsheets often have titles above the columns. So this is the first line with two or more
    cells if it is among the first ten lines, else the first line.

    Args:
      lines: cells of each line.
    """
    several = (i for i, cells in enumerate(lines[:_TITLES]) if sum(map(bool, cells)) > 1)
    return next(several, 0)


def cell(value: Any) -> Any:
    """A value for a table that people open in a spreadsheet.

    A text that begins with ``=``, ``+``, ``-``, ``@`` or a control character would be read as a
    formula there; an apostrophe in front marks it as text. Numbers stay numbers.
    """
    formula = isinstance(value, str) and value[:1] in _FORMULA and value[:1]
    return f"'{value}" if formula else value


def without_sign(text: str) -> str:
    """Removes the apostrophe that `cell` adds to a text."""
    return text[1:] if text[:1] == "'" and text[1:2] and text[1:2] in _FORMULA else text


def csv_line(cells: Sequence[Any]) -> str:
    """A row of a CSV file, with its end of line; every reader finds the same cells in it.

    A cell with a carriage return is quoted. Up to Python 3.12 the csv module does that only if
    lines end with one, and its reader takes an unquoted one for the end of the row.
    """
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` so that a reader never sees half a file."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` (UTF-8) so that a reader never sees half a file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` so that a reader never sees half a file.

    Raises:
      UserError: if it cannot be written, for example because the disk is full.
    """
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # where writing failed


class GrowingFile:
    """A text file that grows piece by piece; each piece is written whole or not at all.

    Only a killed process or a power failure can leave half of the last piece.
    """

    def __init__(self, path: Path, content: str):
        """Replaces the file ``path`` with ``content`` and keeps it open.

        Raises:
          UserError: if it cannot be written.
        """
        write_text(path, content)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from None
        self._path = path

    def append(self, piece: str) -> None:
        """Adds a piece to the end at once.

        Raises:
          UserError: if it cannot be written; the file is then unchanged.
        """
        start = self._file.seek(0, os.SEEK_END)
        left = memoryview(piece.encode("utf-8"))
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:  # a signal, too
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            if isinstance(error, OSError):
                raise unwritable(self._path, error) from None
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@contextlib.contextmanager
def folder_at_once(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` at the end, or is removed after an error.

    Args:
      out: absolute path; an existing folder is replaced.

    Raises:
      UserError: if it cannot be made.
    """
    out = out.resolve()  # follows a link and keeps it
    if os.path.ismount(out):
        raise UserError(
            f"{out} is a mount point, which cannot be replaced; give a folder inside it."
        )
    hidden = out.with_name(f".{out.name}")
    remove_leftovers(out.parent, f"{hidden.name}.")
    folder, before = partial_path(hidden), partial_path(hidden)
    try:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise unwritable(out, error) from None
        yield folder
        try:
            if out.exists():
                os.rename(out, before)
            os.rename(folder, out)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.rename(before, out)
            raise unwritable(out, error) from None
    finally:
        for each in (folder, before):
            shutil.rmtree(each, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """Temporary path for a file or folder that must appear whole; different at each call.

    The name says who writes it. Folds of one run may be trained at the same time on several
    machines, and `remove_leftovers` must distinguish files being written from leftovers.
    """
    writer = f"{os.getpid()}@{socket.gethostname()}"
    ending = f".{uuid.uuid4().hex[:8]}.{writer}.partial"
    # File systems allow 255 bytes for a name, and the target's may take all of them.
    name = os.fsencode(path.name)[: _LONGEST_NAME - len(os.fsencode(ending))]
    return path.with_name(name.decode("utf-8", "ignore") + ending)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes half-written files and folders of killed processes from a folder.

    Args:
      folder: searched without its subfolders; it need not exist.
      name: beginning of the final names of what is removed.
    """
    for path in folder.glob("*.partial") if folder.is_dir() else ():
        if path.name.startswith(name) and _is_leftover(path):
            with contextlib.suppress(OSError):  # already removed by another, or not permitted
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_leftover(path: Path) -> bool:
    written_by = _PARTIAL.fullmatch(path.name)
    if written_by and written_by["host"] == socket.gethostname():
        return not locks.is_running(int(written_by["process"]))
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS
    return False


def read_json(path: Path, wanted: Any = None, *, mend: str = "Restore or remove it") -> Any:
    """Reads a JSON file of a run folder.

    Args:
      path: the file.
      wanted: what it must hold, see `schema`; None for anything.
      mend: what to do about a broken file, a sentence without its full stop.

    Raises:
      UserError: if it is missing, broken, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: {path.parent} is not a run folder. Give the --workdir of a run "
            "that main.py has started."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). {mend}.") from None
    except (OSError, RecursionError) as error:  # a folder of that name, no permission
        raise UserError(f"{path} cannot be read: {reason(error)}. {mend}.") from None
    if wanted is not None and (problem := schema.misfit(content, wanted)):
        raise broken(path, problem, mend)
    return content


def broken(path: Path, problem: str, mend: str) -> UserError:
    """The error to raise for a file that does not hold what it must."""
    return UserError(f"{path} is damaged, incomplete or of another version: {problem}. {mend}.")
