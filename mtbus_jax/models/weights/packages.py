"""Files that installed packages carry."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def file_of(package: str, suffix: str) -> Path | None:
    """The first file of a package with a suffix; None if there is none, or no such package.

    The package is not imported: that could import TensorFlow or PyTorch, and only its file is
    wanted.

    Args:
      package: its name on PyPI.
      suffix: of the file, such as ``.pth``.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    located = (Path(file.locate()) for file in files if file.suffix == suffix)
    return next((path for path in located if path.is_file()), None)
