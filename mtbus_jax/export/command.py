"""Writes a trained run for use without this library: StableHLO and ONNX, or a page for browsers.

    mtbus export --run=runs/mt_unetpp --out=export
    mtbus export --run=runs/mt_unetpp --web --out=mt_unetpp.html

The second writes one HTML file that runs in a browser. Each model file is read again and compared
with the network before anything appears in ``--out``. ONNX needs a separate environment, see
docs/export.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline, files
from mtbus_jax.errors import UserError
from mtbus_jax.export import card, formats, predict_onnx, source, web
from mtbus_jax.export.web.contents import WEIGHTS
from mtbus_jax.export.web.runtime import ARCHIVE
from mtbus_jax.images import enhancement
from mtbus_jax.training import bundled, run_files

PREPROCESSING, CARD, SCRIPT = "preprocessing.json", "model_card.md", "predict_onnx.py"
ENHANCEMENT = "enhancement.py"  # of a run that enhances its pictures; the script calls it
_ALL_FILES = {PREPROCESSING, CARD, SCRIPT, ENHANCEMENT, *formats.FILES.values()}


def export_run(
    run: Path | str,
    out: Path | str,
    *,
    folds: tuple[int, ...] | None = None,
    wanted: tuple[str, ...] = tuple(formats.FILES),
    onnx_python: str = formats.ONNX_PYTHON,
) -> list[formats.Written]:
    """Writes the folder ``out``: model files, `PREPROCESSING`, `CARD` and, with ONNX, `SCRIPT`.

    If the run enhances its pictures, the folder also holds `ENHANCEMENT`, which needs no JAX.

    Args:
      run: the run folder, or a bundle.
      out: the folder to make; an earlier export there is replaced.
      folds: the folds whose probabilities are averaged; None for all trained ones.
      wanted: formats to write, keys of `formats.FILES`.
      onnx_python: Python interpreter of the environment of ``requirements-export.txt``.

    Returns:
      The model files.

    Raises:
      UserError: for wrong use, an unfinished run, or a file that does not equal the network;
        ``out`` is then unchanged.
    """
    run, out = Path(run), Path(out).absolute()
    _check_out(out)
    formats.check_available(wanted, onnx_python)
    original = source.load(run, folds)
    about = source.about(run, original)
    environment = None if bundled.is_bundle(run) else run_files.read_environment(run)
    images, checked_on = source.check_images(original.config)
    with files.folder_at_once(out) as folder:
        written = [
            formats.write(form, original, images, folder, onnx_python)
            for form in formats.FILES
            if form in wanted
        ]
        files.write_json(folder / PREPROCESSING, card.preprocessing(original, written))
        text = card.model_card(
            original, written, about=about, environment=environment, checked_on=checked_on
        )
        files.write_text(folder / CARD, text)
        if formats.ONNX in wanted:
            shutil.copyfile(predict_onnx.__file__, folder / SCRIPT)
        if original.config.data.enhancement != enhancement.NONE:
            shutil.copyfile(enhancement.__file__, folder / ENHANCEMENT)
    return written


def _check_out(out: Path) -> None:
    """Refuses to replace anything but an earlier export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    found = {path.name for path in out.iterdir()}
    made_here = (
        PREPROCESSING in found
        and files.read_json(out / PREPROCESSING).get("made_by") == card.MADE_BY
    )
    if found and not (made_here and found <= _ALL_FILES):
        other = sorted(found - _ALL_FILES) or sorted(found)
        raise UserError(
            f"--out={out} holds something other than an earlier export ({other[0]}); give an empty "
            "or a new folder."
        )


def main(argv: Sequence[str], *, program: str = "mtbus_jax.export") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: see `export_run`.
    """
    parser = commandline.Parser(program, __doc__)
    parser.add_argument(
        "--run",
        default=str(bundled.PRETRAINED),
        type=commandline.file_path,
        help="run folder (--workdir of main.py), or a folder of mtbus bundle; default: the network "
        "that comes with the library",
    )
    parser.add_paths(required=True, out="folder to write, or with --web NAME.html")
    parser.add_argument(
        "--folds",
        type=commandline.numbers,
        help="folds to average, such as 0,1; default: all trained",
    )
    parser.add_argument(
        "--formats",
        type=commandline.names,
        help=f"separated by commas; default: {','.join(formats.FILES)}",
    )
    parser.add_argument(
        "--onnx_python",
        type=commandline.file_path,
        default=os.environ.get("MTBUS_ONNX_PYTHON") or formats.ONNX_PYTHON,
        help="interpreter of the environment of requirements-export.txt; default: %(default)s",
    )
    parser.switch("--web", help="write one HTML file that runs in a browser, from disk")
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help=f"with --web: how weights are stored; default: {WEIGHTS[0]}",
    )
    parser.add_argument(
        "--runtime",
        type=commandline.file_path,
        help=f"with --web: {ARCHIVE}, or the folder it was unpacked to, if there is no npm",
    )
    args = parser.parse_args(argv)
    if args.web:
        _export_page(args)
    else:
        _export_folder(args)


def _export_folder(args: argparse.Namespace) -> None:
    for flag in ("weights", "runtime"):
        if getattr(args, flag) is not None:
            raise UserError(f"--{flag} goes with --web, which writes one HTML file.")
    written = export_run(
        args.run,
        args.out,
        folds=args.folds,
        wanted=tuple(formats.FILES) if args.formats is None else args.formats,
        onnx_python=args.onnx_python,
    )
    for each in written:
        size = (Path(args.out) / each.name).stat().st_size / 1e6
        print(f"{each.name}: {size:.1f} MB, largest difference {each.difference:.1e}")
    print(
        f"Exported to {args.out}; {CARD} says what it is. Research software, not a medical device."
    )


def _export_page(args: argparse.Namespace) -> None:
    if args.formats is not None:
        raise UserError("--formats goes without --web, which writes one HTML file.")
    written = web.export_page(
        args.run,
        args.out,
        folds=args.folds,
        weights=args.weights or WEIGHTS[0],
        onnx_python=args.onnx_python,
        runtime_from=args.runtime,
    )
    size = written.path.stat().st_size / 1e6
    print(f"{written.path}: {size:.1f} MB, largest difference {written.difference:.1e}")
    print("Open it in a browser; it needs nothing else. Research software, not a medical device.")
