"""Tables that people write by hand or save from a spreadsheet: encoding, separator, empty rows."""

from __future__ import annotations

import csv
import io
import pathlib

from mtbus_jax.errors import UserError

_SEPARATORS = (";", ",", "\t")


def read_table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """A CSV file as text, by column name.

    UTF-8 or UTF-16, with a byte-order mark or without, else Windows' western encoding; separated by
    ``;``, ``,`` or tabs, whichever the first line has most of. Column names are in lower case.

    Args:
      path: of the file.

    Returns:
      The column names, and for every row that is not empty its line number and its cells.

    Raises:
      UserError: if it cannot be read, or a column has no name of its own.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    text = _decoded(content)
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names: list[str] = []
    found = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = [cell.lower() for cell in cells]
                continue
            found.append((rows.line_num, dict(zip(names, cells, strict=False))))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}.") from None
    while names and not names[-1]:  # a separator at the end of every line
        names.pop()
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{path}: the column {twice[0]!r} occurs twice.")
    return names, found


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")
