"""Files that appear whole or not at all; JSON and tables read with a clear word where it fails."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from mtbus_jax.errors import UserError

_SEPARATORS = ",;\t"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      line: of the file that it ends on, from 1.
      cells: by column, without spaces around them; "" for a cell that is missing.
      complete: whether it has a cell for each column, and no text beyond.
    """

    line: int
    cells: dict[str, str]
    complete: bool


def parse_table(content: bytes, name: str) -> tuple[list[str], list[Row]]:
    """Reads a CSV file as spreadsheets save it.

    The text is UTF-8 or UTF-16; commas, semicolons or tabs separate, whichever the first line has
    most of. Rows without any text are left out.

    Args:
      content: of the file.
      name: of the file, for messages.

    Returns:
      The columns, in order, and the rows.

    Raises:
      UserError: if it is no such text.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        separator = max(_SEPARATORS, key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{name} is no table in UTF-8 or UTF-16 ({error}). Save it as CSV, UTF-8."
        ) from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        return [], []
    columns = lines[0][1]
    rows = []
    for number, cells in lines[1:]:
        padded = cells + [""] * (len(columns) - len(cells))
        complete = len(cells) >= len(columns) and not any(cells[len(columns) :])
        rows.append(Row(number, dict(zip(columns, padded, strict=False)), complete))
    return columns, rows


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` so that a reader never sees half a file."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` (UTF-8) so that a reader never sees half a file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` so that a reader never sees half a file."""
    # A name of its own: folds of one run may be trained at the same time, on several machines.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # where writing failed


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run folder.

    Raises:
      UserError: if it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: {path.parent} is not a run folder. Give the --workdir of a run "
            "that main.py has started."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore or remove it.") from None
