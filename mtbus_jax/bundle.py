"""Packs a trained network to pass it on: weights, trust and a model card, without images.

    mtbus bundle --run=runs/best --out=network
    mtbus bundle --run=runs/final --evidence=runs/best --out=network

``mtbus predict`` takes the folder written here in place of a run folder. With ``--evidence``,
``--run`` was trained on every image (``data.split=all``), and cross-validated runs of the same
recipe show how good it is: their figures go into the card, and trust is fitted on the predictions
of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from ml_collections import config_dict

from mtbus_jax import commandline, data, files, splits, types
from mtbus_jax.data.places import final_names, may_have_moved, with_places
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary, trust
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.evaluation.trust import out_of_fold
from mtbus_jax.export import bundle_card
from mtbus_jax.export.bundle_card import Rounding
from mtbus_jax.runtime import parallel, program_cache
from mtbus_jax.training import (
    bundled,
    device_data,
    fold_access,
    run_files,
    run_folder,
    seen,
    trained_folds,
    warm_start,
)
from mtbus_jax.training.bundled import CARD
from mtbus_jax.training.evaluator import Evaluator
from mtbus_jax.training.experiment import Experiment

_ALL_FILES = {
    bundled.BUNDLE,
    bundled.WEIGHTS,
    run_folder.CONFIG,
    seen.PICTURES,
    trust.TRUST,
    CARD,
}
# Fields in which the network and its evidence may differ.
_MAY_DIFFER = {
    "name",
    "seed",
    "data.split",
    "data.fold_count",
    "data.validation",
    "data.folds_file",
}


def make_bundle(
    run: Path | str,
    out: Path | str,
    *,
    evidence: Sequence[Path | str] = (),
    places: dict[str, str] | None = None,
) -> Rounding:
    """Writes the folder ``out``; an earlier bundle there is replaced.

    Args:
      run: run folder with trained folds.
      out: the folder to make.
      evidence: cross-validated runs of the same recipe; none if ``run`` was tested itself.
      places: fields of ``config.data`` that say where the dataset lies here, by name.

    Returns:
      What float16 changes.

    Raises:
      UserError: for a run without weights, evidence that is not of the same recipe or not complete,
        data that cannot be found, or an ``out`` that holds other things.
    """
    run, out = Path(run), Path(out).absolute()
    sources = [Path(each) for each in evidence] or [run]
    _check_out(out)
    trained = trained_folds.load(run)
    if not bundled.is_bundle(run):
        trained_folds.check_finished(run, trained)
    config = run_folder.load_config(sources[0])
    cases = data.load_configured(with_places(config, places or {}))
    for each in {run, *sources}:
        if not bundled.is_bundle(each):
            fold_access.check_dataset(each, cases)
    results, configs = [], []
    for source in sources:
        rows = read_cases(source)
        if evidence:
            _check_evidence(run, source, trained, len(rows), len(cases))
        split_info = run_files.read_splits(source)
        configs.append(run_folder.load_config(source))
        results.append(summary.summarise(rows, configs[-1].to_dict(), split_info))
    trusted = _trust(sources[0], cases, trained, pooled=bool(evidence))
    with files.folder_at_once(out) as folder:
        files.write_json(folder / run_folder.CONFIG, _packed(trained.config).to_dict())
        bundled.write(folder, trained.members)
        started = warm_start.earlier_runs(trained.config)
        earlier = [other for other, found in started if found is not None]
        seen.write(folder, cases, config, named=False, earlier=earlier)
        if trusted is not None:
            files.write_json(folder / trust.TRUST, trusted)
        rounding = _rounding(trained, trained_folds.load(folder), cases)
        tested = trained_folds.load(sources[0]) if evidence else trained
        text = bundle_card.text(
            trained,
            tested,
            results,
            len(cases),
            rounding,
            evidence=configs if evidence else (),
        )
        files.write_text(folder / CARD, text)
    return rounding


def _check_out(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    found = {path.name for path in out.iterdir()}
    if found and not (bundled.BUNDLE in found and found <= _ALL_FILES):
        other = sorted(found - _ALL_FILES) or sorted(found)
        raise UserError(
            f"--out={out} holds other things than an earlier bundle ({other[0]}); give an empty or "
            "a new folder."
        )


def _check_evidence(
    run: Path, source: Path, trained: trained_folds.Trained, tested: int, images: int
) -> None:
    """Refuses evidence that says nothing about the network.

    Raises:
      UserError: naming what differs.
    """
    if trained.config.data.split != splits.ALL:
        raise UserError(
            f"--evidence is for a network that was trained on every image; {run} has "
            f"data.split={trained.config.data.split} and was tested itself. Leave --evidence out."
        )
    config = run_folder.load_config(source)
    differing = [
        f"{field} ({here} and {there})"
        for field, here, there in run_folder.differences(trained.config, config, whole=True)
        if field not in _MAY_DIFFER | may_have_moved(trained.config, config)
    ]
    if differing:
        raise UserError(
            f"--evidence={source} is of another recipe than {run}: {'; '.join(differing)}. Its "
            "figures say nothing about this network."
        )
    if tested != images:
        raise UserError(
            f"--evidence={source} has tested {tested} of the {images} images; train all its folds."
        )


def _trust(
    source: Path,
    cases: types.Cases,
    trained: trained_folds.Trained,
    *,
    pooled: bool,
) -> dict[str, Any] | None:
    """The content of ``trust.json``; None without one."""
    if not pooled:
        return trust.read_content(source)
    listed = run_files.read_splits(source)["folds"]
    folds = [splits.Split.from_uids(fold, cases.uid) for fold in listed]
    return out_of_fold.content(source, cases, folds, fold=trained.folds[0])


def _packed(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """The configuration that a bundle keeps: it names no folder and no table of folds."""
    config = final_names(config)
    config.data.folds_file = ""
    return config


def _rounding(
    before: trained_folds.Trained, after: trained_folds.Trained, cases: types.Cases
) -> Rounding:
    experiment = Experiment.from_config(before.config)
    evaluator = Evaluator(experiment, device_data.place(cases, experiment.devices))
    index = np.arange(len(cases))
    probability, pixels, classes = 0.0, 0.0, 0
    for old, new in zip(before.variables, after.variables, strict=True):
        first, second = (
            evaluator(parallel.replicate(each, experiment.devices), index, predictions=True)[1]
            for each in (old, new)
        )
        if first.probability is not None:
            probability = max(probability, np.abs(first.probability - second.probability).max())
            sides = (first.probability > 0.5) != (second.probability > 0.5)
            pixels = max(pixels, float(sides.mean()))
        if first.class_logits is not None:
            each = [scipy.special.softmax(p.class_logits, axis=-1) for p in (first, second)]
            probability = max(probability, np.abs(each[0] - each[1]).max())
            changed = (each[0].argmax(-1) != each[1].argmax(-1)).sum()
            classes = max(classes, int(changed))
    return Rounding(len(cases), float(probability), pixels, classes)


def main(argv: Sequence[str], *, program: str = "mtbus_jax.bundle") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: see `make_bundle`.
    """
    parser = commandline.Parser(program, __doc__)
    parser.add_paths(required=True, run="run folder of main.py", out="folder to write")
    parser.add_argument(
        "--evidence",
        nargs="+",
        default=[],
        type=commandline.file_path,
        help="cross-validated runs of the same recipe, for --run on all images",
    )
    parser.add_places()
    args = parser.parse_args(argv)
    program_cache.open_cache()
    rounding = make_bundle(
        args.run,
        args.out,
        evidence=args.evidence,
        places=commandline.places(args),
    )
    megabytes = sum(path.stat().st_size for path in Path(args.out).iterdir()) / 1e6
    print(
        f"{args.out}, {megabytes:.1f} MB. float16 moves a probability by at most "
        f"{rounding.probability:.1e} and changes the class of {rounding.classes} of "
        f"{rounding.images} images. Research software, not a medical device."
    )


if __name__ == "__main__":
    commandline.run("mtbus_jax.bundle", main)
