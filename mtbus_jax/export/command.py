"""Takes a trained run away: StableHLO and ONNX files, a model card, a script that needs no JAX.

    python -m mtbus_jax.export --run=runs/mt_unetpp --out=export

Each model file is read again and compared with the network before anything appears in ``--out``.
ONNX needs an environment of its own, see docs/export.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import commandline, data, files, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.export import card, formats, predict_onnx
from mtbus_jax.images import phantom, preprocess
from mtbus_jax.training import run_files, trained_folds

PREPROCESSING, CARD, SCRIPT = "preprocessing.json", "model_card.md", "predict_onnx.py"
_ALL_FILES = {PREPROCESSING, CARD, SCRIPT, *formats.FILES.values()}

# Images to compare on, spread evenly over the classes.
_CHECK_IMAGES = 6


def export_run(
    run: Path | str,
    out: Path | str,
    *,
    folds: tuple[int, ...] | None = None,
    wanted: tuple[str, ...] = tuple(formats.FILES),
    onnx_python: str = formats.ONNX_PYTHON,
) -> list[formats.Written]:
    """Writes the folder ``out``: model files, `PREPROCESSING`, `CARD` and, with ONNX, `SCRIPT`.

    Args:
      run: the run folder.
      out: the folder to make; an earlier export there is replaced.
      folds: whose probabilities to average; None for all trained ones.
      wanted: formats of `formats.FILES`.
      onnx_python: interpreter of the environment of ``requirements-export.txt``.

    Returns:
      The model files.

    Raises:
      UserError: for wrong use, an unfinished run, or a file that does not equal the network;
        ``out`` is as it was then.
    """
    run, out = Path(run), Path(out).absolute()
    _check_out(out)
    formats.check_available(wanted, onnx_python)
    original = load(run, folds)
    rows = read_cases(run)
    split_info = run_files.read_splits(run)
    images, checked_on = check_images(original.config)
    result = summary.summarise(
        rows[rows.fold.isin(original.folds)], original.config.to_dict(), split_info
    )
    with _appears_at_once(out) as folder:
        written = [
            formats.write(form, original, images, folder, onnx_python)
            for form in formats.FILES
            if form in wanted
        ]
        files.write_json(folder / PREPROCESSING, card.preprocessing(original, written))
        text = card.model_card(
            original,
            written,
            result=result,
            split_info=split_info,
            environment=run_files.read_environment(run),
            checked_on=checked_on,
        )
        files.write_text(folder / CARD, text)
        if formats.ONNX in wanted:
            shutil.copyfile(predict_onnx.__file__, folder / SCRIPT)
    return written


def load(run: Path, folds: tuple[int, ...] | None = None) -> trained_folds.Trained:
    """The folds to export, with their variables as numpy arrays.

    Args:
      run: the run folder.
      folds: which, in any order; None for all that have been started.

    Raises:
      UserError: see `trained.load`; and if a fold is not trained and tested to the end, so that
        nothing is known of its network, or a file about the run is missing.
    """
    original = trained_folds.load(run, folds)
    unfinished = {fold for fold in original.folds if not trained_folds.is_tested(run, fold)}
    if folds is None:
        unfinished.update(original.untested, original.without_weights)
    if unfinished:
        done = ",".join(str(fold) for fold in original.folds if fold not in unfinished)
        others = f", or export the others with --folds={done}" if done else ""
        raise UserError(
            f"fold {min(unfinished)} of {run} is not trained and tested to the end, so nothing is "
            "known of its network. Give main.py the command again that started the run"
            f"{others}."
        )
    for read in (run_files.read_splits, run_files.read_environment, run_files.read_summary):
        read(run)
    members = sorted(jax.device_get(original.members), key=lambda member: member.fold)
    return dataclasses.replace(original, members=tuple(members))


def check_images(config: config_dict.ConfigDict) -> tuple[np.ndarray, str]:
    """Images of the run's dataset, or simulated ones where it is not at hand; builds nothing.

    Args:
      config: of the run.

    Returns:
      ``(n, height, width, 1)`` float32 grey values 0..255, and what they are in words.
    """
    height, width = config.data.image_size
    cases = _dataset(config)
    if cases is not None:
        index = np.linspace(0, len(cases) - 1, _CHECK_IMAGES).round().astype(int)
        return cases.image[index].astype(np.float32), f"{_CHECK_IMAGES} images of {cases.name}"
    images = []
    for i in range(_CHECK_IMAGES):
        picture = phantom.make_phantom(i, label=i % len(types.CLASS_NAMES))
        method = config.data.resize
        images.append(preprocess.resize(picture.image, height, width, method=method))
    words = f"{_CHECK_IMAGES} simulated images"
    if config.data.name != "phantom":
        words += f" ({config.data.name} was not at hand)"
    return np.stack(images)[..., None].astype(np.float32), words


def _dataset(config: config_dict.ConfigDict) -> types.Cases | None:
    """The run's dataset if it is on this machine; nothing is built or downloaded."""
    name, image_size = config.data.name, tuple(config.data.image_size)
    if config.data.arrays_file:
        if not Path(config.data.arrays_file).is_file():
            return None
        cases = data.load_arrays(
            config.data.arrays_file, name=name, image_size=image_size, resize=config.data.resize
        )
    elif name == "phantom":
        return None
    else:
        from tfds_busi.tfds_busi_dataset_builder import Builder

        root = config.data.data_dir or os.environ.get("TFDS_DATA_DIR")
        if not Builder(config=name, data_dir=root or None).is_prepared():
            return None
        cases = data.load_cases(
            name,
            image_size=image_size,
            resize=config.data.resize,
            data_dir=config.data.data_dir,
            cache_dir=config.data.cache_dir,
        )
    return data.only_classes(cases, tuple(config.data.classes))


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
            f"--out={out} holds other things than an earlier export ({other[0]}); give an empty or "
            "a new folder."
        )


@contextlib.contextmanager
def _appears_at_once(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` at the end, or is removed after an error."""
    hidden = out.with_name(f".{out.name}")
    files.remove_leftovers(out.parent, f"{hidden.name}.")
    folder = files.partial_path(hidden)
    try:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"--out={out} cannot be made: {error}.") from None
        yield folder
        if out.exists():
            shutil.rmtree(out)
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str], *, program: str = "mtbus_jax.export") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: see `export_run`.
    """
    parser = commandline.Parser(program, __doc__)
    path = {"required": True, "type": commandline.file_path}
    parser.add_argument("--run", help="run folder (--workdir of main.py)", **path)
    parser.add_argument("--out", help="folder to write", **path)
    parser.add_argument(
        "--folds",
        type=commandline.numbers,
        help="whose average to export, such as 0,1; default: all trained",
    )
    parser.add_argument(
        "--formats",
        default=",".join(formats.FILES),
        type=commandline.names,
        help="with commas; default: %(default)s",
    )
    parser.add_argument(
        "--onnx_python",
        type=commandline.file_path,
        default=os.environ.get("MTBUS_ONNX_PYTHON") or formats.ONNX_PYTHON,
        help="interpreter of the environment of requirements-export.txt; default: %(default)s",
    )
    args = parser.parse_args(argv)
    written = export_run(
        args.run,
        args.out,
        folds=args.folds,
        wanted=args.formats,
        onnx_python=args.onnx_python,
    )
    for each in written:
        size = (Path(args.out) / each.name).stat().st_size / 1e6
        print(f"{each.name}: {size:.1f} MB, largest difference {each.difference:.1e}")
    print(
        f"Exported to {args.out}; {CARD} says what it is. Research software, not a medical device."
    )
