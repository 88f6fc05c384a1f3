"""The files of a table, written together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mtbus_jax import files
from mtbus_jax.errors import unwritable


def write_texts(workdir: Path, texts: Mapping[str, str]) -> list[Path]:
    """Writes files into the folder of ``--workdir``, which is made if it is missing.

    Args:
      workdir: the folder.
      texts: contents by file name.

    Returns:
      The paths, in the same order.

    Raises:
      UserError: if the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(f"--workdir={workdir}", error) from None
    for name, text in texts.items():
        files.write_text(workdir / name, text)
    return [workdir / name for name in texts]
