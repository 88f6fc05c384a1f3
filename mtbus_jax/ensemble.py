"""Several trainings of one configuration as one run: a deep ensemble.

    mtbus ensemble --runs runs/seed_1 runs/seed_2 runs/seed_3 --out=runs/ensemble

The runs differ in ``seed``. Otherwise they may differ only in the weights they started from and in
how they were tested. The new run predicts the mean of their probabilities (Lakshminarayanan,
Pritzel, Blundell 2017, NeurIPS), fold by fold: each fold's networks are tested together on its test
images, and their trust is fitted together on its validation images. Predict, report and export
accept the folder like any other run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax import commandline, configuration, crossval, data, files
from mtbus_jax.data import places
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import markdown
from mtbus_jax.runtime import host_memory, program_cache
from mtbus_jax.training import (
    fold_access,
    logbook,
    run_files,
    run_folder,
    run_splits,
    trained_folds,
)
from mtbus_jax.training.run_folder import CASES

# Files of a run that go into the ensemble, if present: all of its record but the latest state.
_OF_RUN = (run_folder.CONFIG, run_folder.ENVIRONMENT)
_OF_FOLD = (CASES, logbook.METRICS, run_folder.TRAINED)
_WEIGHTS = "checkpoints/best"
_MAY_DIFFER = ("seed", "name", "eval.average", "train.start_from")


def make_ensemble(
    runs: Sequence[Path | str], out: Path | str, *, changes: Mapping[str, str] | None = None
) -> dict:
    """Makes an ensemble of runs that differ in their seed, and tests it.

    Weights are hard-linked if the file system allows it, else copied, so that the new folder does
    not depend on the others.

    Args:
      runs: run folders, two or more, with the same dataset and folds.
      out: the run folder to make.
      changes: where the data are now, by field, see `crossval.evaluate`.

    Returns:
      The content of its ``summary.json``.

    Raises:
      UserError: for a folder that is not a run, runs that do not go together or have no tested fold
        in common, an ``out`` that exists, or missing data; ``out`` is not made then.
    """
    folders, out = [Path(run) for run in runs], Path(out).absolute()
    if len(folders) < 2:
        raise UserError("--runs: give two run folders or more.")
    if out.exists():
        raise UserError(f"--out={out} exists; give a new folder.")
    configs = [run_folder.load_config(folder) for folder in folders]
    for folder in folders:
        run_folder.check_class_order(folder)
    _check_together(folders, configs)
    folds = _common_folds(folders)
    config = configs[0]
    if changes:
        config = configuration.changed(config, changes)
    cases = data.load_configured(config)
    for folder in folders:  # by their own names, before anything is copied
        fold_access.check_dataset(folder, cases)
    hidden = out.with_name(f".{out.name}")
    files.remove_leftovers(out.parent, f"{hidden.name}.")
    try:
        partial = files.partial_path(hidden)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be made: {error}.") from None
    try:
        workdir = partial / out.name  # has its final name, which the report shows
        try:
            _gather(folders, configs, folds, workdir)
        except OSError as error:  # shutil.Error is one, too
            raise UserError(f"--out={out} cannot be made: {error}.") from None
        result = crossval.evaluate(workdir, changes=changes)
        os.replace(workdir, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _check_together(folders: list[Path], configs: list[config_dict.ConfigDict]) -> None:
    """Refuses runs that have the same seed or differ in more than the seed.

    Raises:
      UserError: naming the runs and what differs.
    """
    seeds: dict[int, Path] = {}
    splits = [run_files.read_splits(folder) for folder in folders]
    for folder, config, split in zip(folders, configs, splits, strict=True):
        seed = config.get("seed")
        if isinstance(seed, tuple):
            raise UserError(f"--runs: {folder} is an ensemble itself; give the runs it is made of.")
        if seed in seeds:
            raise UserError(
                f"--runs: {seeds[seed]} and {folder} have the same seed ({seed}): that is one "
                "network twice. Train with another --config.seed."
            )
        seeds[seed] = folder
        differing = [
            f"{field} ({first} and {other})"
            for field, first, other in run_folder.differences(configs[0], config, whole=True)
            if field not in (*_MAY_DIFFER, *places.may_have_moved(configs[0], config))
        ]
        if differing:
            raise UserError(
                f"--runs: {folders[0]} and {folder} differ in more than the seed: "
                f"{'; '.join(differing)}. Networks of an ensemble share everything else."
            )
        # Other fields of the file were added later, so older runs lack them.
        if any(split[field] != splits[0][field] for field in ("split", "folds")):
            raise UserError(
                f"--runs: {folders[0]} and {folder} differ in the folds of {run_splits.SPLITS}; an "
                "image that tests one network may have trained the other."
            )


def _common_folds(folders: list[Path]) -> list[int]:
    """Folds that every run has trained and tested.

    Raises:
      UserError: if there is none.
    """
    tested = [set(trained_folds.tested_folds(folder)) for folder in folders]
    common = sorted(set.intersection(*tested))
    if not common:
        each = "; ".join(
            f"{folder}: {', '.join(map(str, sorted(folds))) or 'none'}"
            for folder, folds in zip(folders, tested, strict=True)
        )
        raise UserError(
            f"--runs have no fold in common that is trained and tested ({each}). Train "
            "one in all of them."
        )
    left_out = sorted(set.union(*tested) - set(common))
    if left_out:
        print(
            f"left out: fold {', '.join(map(str, left_out))}, not trained and tested in every run"
        )
    return common


def _gather(
    folders: list[Path], configs: list[config_dict.ConfigDict], folds: list[int], workdir: Path
) -> None:
    """Assembles the run folder before it is tested."""
    for number, folder in enumerate(folders):
        network = run_folder.network_dir(workdir, number)
        network.mkdir(parents=True)
        for name in _OF_RUN:
            _copy(folder / name, network / name)
        for fold in folds:
            source, target = run_folder.fold_dir(folder, fold), run_folder.fold_dir(network, fold)
            target.mkdir()
            for name in _OF_FOLD:
                _copy(source / name, target / name)
            shutil.copytree(source / _WEIGHTS, target / _WEIGHTS, copy_function=_link)
    for fold in folds:
        run_folder.fold_dir(workdir, fold).mkdir()
    config = configs[0].to_dict() | {"seed": [config.seed for config in configs]}
    config["data"]["folds"] = folds
    files.write_json(workdir / run_folder.CONFIG, config)
    for name in (run_folder.ENVIRONMENT, run_splits.SPLITS):
        _copy(folders[0] / name, workdir / name)


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copyfile(source, target)


def _link(source: str, target: str) -> None:
    # Orbax never changes a file that it has finished, so a link is as good as a copy.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main(argv: Sequence[str], *, program: str = "mtbus_jax.ensemble") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: see `make_ensemble`.
    """
    parser = commandline.Parser(program, __doc__)
    parser.add_argument(
        "--runs",
        required=True,
        nargs="+",
        action="extend",
        type=commandline.file_path,
        help="run folders of main.py",
    )
    parser.add_argument(
        "--out", required=True, type=commandline.file_path, help="run folder to make"
    )
    parser.add_places()
    args = parser.parse_args(argv)
    host_memory.keep_freed_memory()
    program_cache.open_cache()
    changes = {f"data.{name}": place for name, place in commandline.places(args).items()}
    print(markdown.to_markdown(make_ensemble(args.runs, args.out, changes=changes)))
    print(f"Run folder: {args.out}")


if __name__ == "__main__":
    commandline.run("mtbus_jax.ensemble", main)
