"""Masks, overlays and a table for your own pictures.

    mtbus predict --input=PICTURES --out=predictions
    mtbus predict --run=runs/mt_unetpp --input=PICTURES --out=predictions

The first command uses the network that comes with the library, trained on Curated BUSI; the second
uses one that you trained. Both read PNG, JPEG, TIFF, BMP, GIF, WebP and DICOM files (DICOM needs
``pip install -e '.[dicom]'``) and write ``masks/``, ``overlays/``, ``predictions.csv`` and
``failures.csv``. With ``--dicom`` they also write DICOM objects for DICOM files, for an archive.
A file that cannot be read does not stop the others: it is listed, and the exit code is 2. To
continue a prediction that was stopped, give the same command with ``--continue``.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import mtbus_jax
from mtbus_jax import commandline, images
from mtbus_jax.errors import EXIT_USAGE, Stopped, UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.predict import batches
from mtbus_jax.predict.dicom_objects import Software, check_installed
from mtbus_jax.predict.dicom_output import DicomOutput
from mtbus_jax.predict.out_folder import DICOM, check_free, held
from mtbus_jax.predict.output import PROBABILITY_FORMATS, Output
from mtbus_jax.predict.predictor import REFINE, Predictor
from mtbus_jax.predict.progress import Done
from mtbus_jax.runtime import backend, host_memory, parallel, program_cache, stopping
from mtbus_jax.training import bundled
from mtbus_jax.training.bundled import CARD

_SHOWN = 20  # failures listed on the terminal


def main(argv: Sequence[str], *, program: str = "mtbus_jax.predict") -> int:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Returns:
      The exit code: 0, or 2 if a file could not be read.

    Raises:
      UserError: for wrong use, or if nothing can be done.
    """
    args = _parser(program).parse_args(argv)
    out = Path(args.out)
    check_free(out, overwrite=args.overwrite, go_on=args.go_on)
    _check_apart(args.input, out)
    if args.dicom:
        check_installed()
    found = images.find(args.input)
    host_memory.keep_for_prediction(args.batch_size)
    program_cache.open_cache()
    backend.check()
    predictor = Predictor(
        args.run,
        folds=args.folds,
        tta=args.tta,
        refine=args.refine,
        batch_size=args.batch_size,
    )
    if args.run is None:
        print(f"network: the one that comes with mtbus_jax, see {bundled.PRETRAINED / CARD}")
    _announce(predictor, found)
    dicom = DicomOutput(Software.of(predictor)) if args.dicom else None
    settings = _settings(args.run or bundled.PRETRAINED, predictor)
    settings |= {"dicom": args.dicom, "save_probabilities": args.save_probabilities}
    with held(out), stopping.on_sigterm():
        # Another prediction may have filled it while the network was read.
        check_free(out, overwrite=args.overwrite, go_on=args.go_on)
        output = Output(
            out,
            settings,
            found.sources,
            probabilities=args.save_probabilities,
            dicom=dicom,
            go_on=args.go_on,
        )
        if args.go_on:
            _tell_done(output)
        try:
            _predict(predictor, found, output, args.batch_size)
        except UserError as error:
            raise UserError(f"{error} {_how_to_go_on(output)}") from None
        except KeyboardInterrupt as stop:  # `Stopped`, too
            number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
            raise Stopped(f"stopped. {_how_to_go_on(output)}", number) from None
    if dicom is not None:
        _tell_dicom(dicom, out)
    return _report(output, out)


def _predict(predictor: Predictor, found: images.Found, output: Output, batch_size: int) -> None:
    """Predicts what is not done yet, and writes each result as it comes."""
    for path in found.unlisted:
        output.fail(images.ReadError(path, "is a folder that cannot be opened"))
    waiting: collections.deque[batches.Item] = collections.deque()  # pictures without a result

    def frames() -> Iterator[images.Frame]:
        for item in batches.items(_with_bar(found.sources), output.done, batch_size):
            waiting.append(item)
            if item.frame is not None:
                yield item.frame

    def end_sources() -> None:
        while waiting and waiting[0].frame is None:
            item = waiting.popleft()
            if item.error is not None:
                output.fail(item.error)
            elif item.stamp is not None:
                output.end(item.source, Done(item.source.file, item.stamp, item.frames))

    # If this many pictures are done, an earlier batch was full.
    full = sum(output.done.values()) >= batch_size
    for prediction in predictor.stream(frames(), full=full):
        end_sources()
        item = waiting.popleft()
        if not item.done:
            output.write(item.source, prediction)
    end_sources()
    output.finish()


def _parser(program: str) -> commandline.Parser:
    parser = commandline.Parser(program, __doc__)
    path = {"required": True, "type": commandline.file_path}
    parser.add_argument(
        "--run",
        type=commandline.file_path,
        help="run folder of main.py, or a folder of mtbus bundle; default: the network that comes "
        "with the library",
    )
    parser.add_argument("--input", nargs="+", action="extend", help="files and folders", **path)
    parser.add_argument("--out", help="folder for the results; made if missing", **path)
    add_ensemble_flags(parser)
    parser.add_argument(
        "--save_probabilities",
        nargs="?",
        const=PROBABILITY_FORMATS[0],
        choices=PROBABILITY_FORMATS,
        help="write tumour probabilities at the picture's size too: npy (float32) or png (8 bits)",
    )
    parser.switch(
        "--dicom",
        help="for DICOM files, also write a Segmentation and a Secondary Capture with their "
        "patient and study data; needs highdicom",
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="pictures that go through the network together"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier prediction in --out"
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="continue a stopped prediction in --out, if there is one; finished results stay as "
        "they are",
    )
    return parser


def add_ensemble_flags(parser: commandline.Parser) -> None:
    """Adds the flags that choose the networks of a `Predictor` and how they predict."""
    parser.add_argument(
        "--folds",
        type=commandline.numbers,
        help="folds of the ensemble, such as 0,1; by default all trained ones",
    )
    parser.add_argument(
        "--tta",
        action=argparse.BooleanOptionalAction,
        help="test-time augmentation: average over flipped and turned versions as in training, "
        "2 to 8 times the work; by default as in the run's evaluation",
    )
    parser.add_argument(
        "--refine", choices=REFINE, help="how mask and class are made to agree; default: the run's"
    )


def _check_apart(inputs: list[str], out: Path) -> None:
    """Refuses results among the inputs: they would be read as pictures, or overwrite them.

    Raises:
      UserError: if an input lies in ``out``, or ``out`` in an input.
    """
    for given in inputs:
        first, second = Path(given).resolve(), out.resolve()
        if second.is_relative_to(first) or first.is_relative_to(second):
            raise UserError(
                f"--out={out} and --input={given} lie in one another; give a folder elsewhere."
            )


def _announce(predictor: Predictor, found: images.Found) -> None:
    """Prints what will run and on which device: a silent fall-back to the CPU is a classic trap."""
    print(
        f"{_count(len(found.sources), 'file')}; fold{'s' * (len(predictor.folds) > 1)} "
        f"{', '.join(map(str, predictor.folds))}, "
        f"{_count(predictor.members, 'prediction')} a picture at {predictor.image_size[0]}×"
        f"{predictor.image_size[1]} pixels, refining: {predictor.refine}; on "
        f"{parallel.in_words(jax.devices()[0])}",
        flush=True,
    )
    for fold in predictor.untested:
        print(
            f"left out: fold {fold}, not tested yet, so its training may not be finished; name it "
            "in --folds to include it"
        )
    for fold in predictor.in_training:
        print(f"fold {fold} is still in training: these are its weights so far")
    for fold in predictor.without_weights:
        print(f"left out: fold {fold}, which has no finished checkpoint")
    if found.masks:
        print(f"left out: {_count(len(found.masks), 'mask')} of other files (*_mask.*, masks/)")
    if found.others:
        print(f"left out: {_count(len(found.others), 'file')}, no picture by name or content")
    if not predictor.calibrated:
        print("not calibrated: no trust.json for these folds, so no uncertainties or warnings")
    if predictor.fitted_otherwise:
        how = "without" if predictor.tta else "with"
        print(
            f"trust.json was fitted {how} flipped and turned versions of the images: leave "
            f"--{'' if predictor.tta else 'no-'}tta out for reliable uncertainties and warnings"
        )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _settings(run: str, predictor: Predictor) -> dict:
    trusted = trust.read_content(Path(run)) if predictor.calibrated else None
    return {
        "run": str(Path(run).resolve()),
        "folds": list(predictor.folds),
        "weights": predictor.trained.digest(),
        "test_time_augmentation": predictor.tta,
        "refine": predictor.refine,
        "calibrated": predictor.calibrated,
        "calibration": trusted and _digest(trusted),
        "tasks": list(predictor.tasks),
        "class_names": list(predictor.classes.names),
        "image_size": list(predictor.image_size),
        "version": mtbus_jax.__version__,
        "note": "Research software, not a medical device.",
    }


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _with_bar(sources: Iterable[images.Source]) -> Iterator[images.Source]:
    """The files one by one, with a progress bar."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield from bar.track(sources, description="files")


def _tell_done(output: Output) -> None:
    again = ", ".join(output.again[:3]) + (" …" if len(output.again) > 3 else "")
    changed = f"; changed since, or without all results, so done again: {again}" if again else ""
    print(f"going on: {_count(len(output.done), 'file')} done before{changed}", flush=True)


def _how_to_go_on(output: Output) -> str:
    return (
        f"{_count(output.count, 'picture')} done so far; to go on, give the same command with "
        "--continue, and without --overwrite."
    )


def _tell_dicom(dicom: DicomOutput, out: Path) -> None:
    for reason, count in dicom.without.items():
        print(f"no DICOM objects for {_count(count, 'picture')}: {reason}")
    if dicom.count:
        print(
            f"{_count(dicom.count, 'picture')} as DICOM in {out / DICOM}, which holds patient "
            "data, as the sources do; nothing else in the folder does"
        )


def _report(output: Output, out: Path) -> int:
    print(f"{_count(output.count, 'picture')} predicted; results in {out}")
    failures = output.failures
    if not failures:
        return 0
    print(f"{len(failures)} could not be read:", file=sys.stderr)
    for failure in failures[:_SHOWN]:
        frame = f" (from frame {failure.number} on)" if failure.number else ""
        print(f"  {failure.file}{frame}: {failure.reason}", file=sys.stderr)
    if len(failures) > _SHOWN:
        print(f"  … and {len(failures) - _SHOWN} more, see failures.csv", file=sys.stderr)
    return EXIT_USAGE
