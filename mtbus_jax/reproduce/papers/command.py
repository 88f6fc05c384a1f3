"""What ``mtbus reproduce --paper`` does."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtbus_jax.errors import UserError
from mtbus_jax.reproduce.papers import runs as runs_lib
from mtbus_jax.reproduce.papers import write
from mtbus_jax.reproduce.papers.tables import PAPERS, PaperTable


def run(args: argparse.Namespace, manual_dir: str, command: str) -> None:
    """Writes a table of a paper with our figures from the runs that are given.

    Args:
      args: values of the flags.
      manual_dir: folder with the raw BUSI download; "" takes that of each run.
      command: as given, to put into the table.

    Raises:
      UserError: for wrong use, or a folder that is not a run of the row's network.
    """
    paper = PAPERS[args.paper]
    number = args.table
    if number is None and len(paper.tables) == 1:
        (number,) = paper.tables
    if number not in paper.tables:
        known = ", ".join(map(str, paper.tables))
        raise UserError(f"--paper={args.paper} needs --table, one of {known}.")
    if not args.workdir:
        raise UserError("--workdir is missing: the folder for the table.")
    table = paper.tables[number]
    found = {
        name: runs_lib.read(paper, row, folder, manual_dir)
        for name, (row, folder) in _given(args.runs, table).items()
    }
    paths = write.write(paper, table, found, Path(args.workdir), command=command)
    print(paths[0].read_text(encoding="utf-8"))
    print("Written:", *paths)


def _given(pairs: tuple[str, ...], table: PaperTable):
    """Row and folder by name, from texts such as ``acsnet=runs/acsnet``."""
    rows = {row.name: row for row in table.rows if row.fields is not None}
    found = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--runs={pair}: give ROW=FOLDER, such as acsnet=runs/acsnet.")
        if name not in rows:
            raise UserError(f"--runs={pair}: the table has no such row. Known: {', '.join(rows)}.")
        if name in found:
            raise UserError(f"--runs={pair}: the row {name} is given twice.")
        found[name] = rows[name], Path(folder).expanduser()
    return found
