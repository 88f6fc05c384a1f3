"""Writes the page of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtbus_jax import files
from mtbus_jax.errors import UserError
from mtbus_jax.export import formats, source
from mtbus_jax.export.web import contents, page, runtime
from mtbus_jax.export.web.about import about

SUFFIX = ".html"


@dataclasses.dataclass(frozen=True)
class WrittenPage:
    """A page that was written.

    Attributes:
      path: of the file.
      difference: largest absolute difference between its networks' probabilities and the
        original's.
    """

    path: Path
    difference: float


def export_page(
    run: Path | str,
    out: Path | str,
    *,
    folds: tuple[int, ...] | None = None,
    weights: str = contents.WEIGHTS[0],
    onnx_python: str = formats.ONNX_PYTHON,
    runtime_from: Path | str | None = None,
) -> WrittenPage:
    """Writes one HTML file that runs the networks in a browser, from disk, without requests.

    Args:
      run: the run folder, or a bundle.
      out: the file to write, ``….html``; an earlier one is replaced.
      folds: the folds whose probabilities are averaged; None for all trained ones.
      weights: how the weights are stored, one of `contents.WEIGHTS`.
      onnx_python: interpreter of the environment of ``requirements-export.txt``.
      runtime_from: the npm package of the runtime, see `runtime.load`.

    Raises:
      UserError: for wrong use, an unfinished run, a missing converter or runtime, or networks that
        do not equal the original; ``out`` is then unchanged.
    """
    run, out = Path(run), Path(out)
    if out.suffix.lower() != SUFFIX or out.is_dir() or not out.parent.is_dir():
        raise UserError(
            f"--out={out}: with --web, give a file NAME{SUFFIX} to write, in a folder that exists."
        )
    if weights not in contents.WEIGHTS:
        raise UserError(f"--weights={weights}: give {' or '.join(contents.WEIGHTS)}.")
    formats.check_available((formats.ONNX,), onnx_python)
    original = source.load(run, folds)
    code = runtime.load(None if runtime_from is None else Path(runtime_from))
    measured = source.about(run, original)
    images, checked_on = source.check_images(original.config)
    held = contents.collect(run, original, images, checked_on, onnx_python, weights)
    text = page.document(held, code, about(original, held, measured))
    files.write_text(out, text)
    return WrittenPage(out, held.difference)
