"""Files that appear whole or not at all, and JSON that is read with a clear word where it fails."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from mtbus_jax.errors import UserError


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
