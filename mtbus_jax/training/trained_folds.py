"""The trained folds of a run folder: configuration, network, best weights. No dataset."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import augment, types
from mtbus_jax.errors import UserError
from mtbus_jax.training import bundled, checkpoint, logbook, run_folder
from mtbus_jax.training.bundled import Member
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.run_folder import CASES


@dataclasses.dataclass(frozen=True)
class Trained:
    """Best weights of some folds of one run.

    Attributes:
      config: of the run.
      module: the network.
      members: fold by fold in the order asked for, equally many of each: one, or those of an
        ensemble.
      untested: folds that have weights but have not been tested, left out.
      without_weights: folds that have been started but have no finished checkpoint.
      in_training: folds taken here whose training is not over.
    """

    config: config_dict.ConfigDict
    module: nn.Module
    members: tuple[Member, ...]
    untested: tuple[int, ...] = ()
    without_weights: tuple[int, ...] = ()
    in_training: tuple[int, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input in pixels."""
        return tuple(self.config.data.image_size)

    @property
    def classes(self) -> types.Classes:
        """The classes that the network tells apart."""
        return types.Classes.of(self.config.data)

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds whose weights are here."""
        return tuple(dict.fromkeys(member.fold for member in self.members))

    @property
    def variables(self) -> tuple[dict[str, Any], ...]:
        """Variables of all members, in their order."""
        return tuple(member.variables for member in self.members)

    @property
    def symmetries(self) -> tuple[int, ...]:
        """Versions of an image that training has shown, see `augment.symmetries`."""
        return augment.symmetries(self.config.train, *self.image_size)

    def digest(self) -> str:
        """16 hexadecimal digits of a SHA-256 over all weights: which networks these are."""
        found = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            array = np.asarray(jax.device_get(leaf))
            found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]


def load(run: Path, folds: Sequence[int] | None = None) -> Trained:
    """Reads a run folder, changing nothing there; ``config.json`` and checkpoints are enough.

    Args:
      run: the folder, or a bundle (see `bundled`).
      folds: which folds; None takes all that are trained. If some folds have been tested, an
        untested one counts as still in training and is taken only if it is named.

    Raises:
      UserError: if the folder is not a run, has no trained fold, lacks one of ``folds``, or its
        figures have the classes in another order; or if weights are broken.
    """
    if not run.is_dir():
        raise UserError(f"--run={run} is not a folder; give the --workdir of a run of main.py.")
    if bundled.is_bundle(run):
        return _load_bundle(run, folds)
    config = run_folder.load_config(run)
    run_folder.check_class_order(run)
    networks = run_folder.networks(run, config)
    started = run_folder.fold_numbers(networks[0])
    ready = [fold for fold in started if all(has_weights(each, fold) for each in networks)]
    if not ready:
        raise UserError(
            f"--run={run} holds no trained fold: there is no finished checkpoint in "
            "fold_*/checkpoints/best. Train first, with main.py, or wait for the first one."
        )
    untested: tuple[int, ...] = ()
    if folds is None:
        folds = (
            [fold for fold in ready if is_tested(run, fold)]
            or [fold for fold in ready if all(is_over(each, fold) for each in networks)]
            or ready
        )
        untested = tuple(fold for fold in ready if fold not in folds)
    folds = _checked(run, folds, ready)
    experiment, like = _experiment(run, config)
    return Trained(
        config,
        experiment.module,
        tuple(Member(fold, _weights(each, fold, like)) for fold in folds for each in networks),
        untested,
        tuple(fold for fold in started if fold not in ready),
        tuple(fold for fold in folds if not all(is_over(each, fold) for each in networks)),
    )


def _load_bundle(run: Path, folds: Sequence[int] | None) -> Trained:
    config = run_folder.load_config(run)
    experiment, like = _experiment(run, config)
    members = bundled.read(run, like.best_variables)
    ready = list(dict.fromkeys(member.fold for member in members))
    folds = ready if folds is None else folds
    folds = _checked(run, folds, ready)
    chosen = tuple(member for fold in folds for member in members if member.fold == fold)
    return Trained(config, experiment.module, chosen)


def _checked(run: Path, folds: Sequence[int], ready: Sequence[int]) -> list[int]:
    """The wanted folds, which may be an array, as Python integers.

    Raises:
      UserError: if there are none, one is not trained, or one is given twice.
    """
    if isinstance(folds, int) or any(isinstance(fold, bool) for fold in folds):
        raise UserError(f"folds={folds!r}: give a list of folds, such as [0].")
    folds = list(folds)
    missing = [fold for fold in folds if fold not in ready]
    if missing or not folds or len(set(folds)) != len(folds):
        raise UserError(
            f"--folds={','.join(map(str, folds))}: give distinct trained folds; --run={run} has "
            f"{', '.join(map(str, ready))}."
        )
    return list(map(int, folds))


def weights(run: Path, fold: int, config: config_dict.ConfigDict) -> dict[str, Any]:
    """Best weights of one fold of a run, not an ensemble; only process 0 reads them.

    Args:
      run: the folder.
      fold: one that `has_weights`.
      config: of the run.

    Raises:
      UserError: if they are broken.
    """
    return _weights(run, fold, _experiment(run, config)[1])


def is_tested(run: Path, fold: int) -> bool:
    """Whether the training of a fold is over and its test results are written."""
    return (run_folder.fold_dir(run, fold) / CASES).is_file() and is_over(run, fold)


def is_over(run: Path, fold: int) -> bool:
    """Whether the training of a fold is over, after all its epochs or by early stopping.

    ``trained.json`` says so. A fold trained before that file was introduced is judged by its last
    epoch on disk; one that was passed on without any record counts as trained.

    Args:
      run: run folder of one network.
      fold: one that `has_weights`.

    Raises:
      UserError: if the record or the configuration is broken.
    """
    directory = run_folder.fold_dir(run, fold)
    if (directory / run_folder.TRAINED).is_file():
        return True
    rows = logbook.read_metrics(directory)
    saved = checkpoint.epoch_on_disk(_checkpoints(run, fold), checkpoint.LATEST)
    rows = [row for row in rows if not saved or row["epoch"] <= saved]
    if not rows:
        return True
    train, last = run_folder.load_config(run).train, rows[-1]
    since_best = last["epoch"] - last.get("best_epoch", last["epoch"])
    return last["epoch"] >= train.epochs or since_best > train.stop_patience


def check_finished(run: Path, trained: Trained, *, chosen: bool = False, flag: str = "") -> None:
    """Refuses to pass on networks that have not been trained and tested to the end.

    Args:
      run: the run folder, not a bundle.
      trained: from `load`.
      chosen: whether its folds were named, so that others do not matter.
      flag: the command's flag that names folds, if it has one.

    Raises:
      UserError: if a fold is not trained and tested to the end.
    """
    unfinished = {fold for fold in trained.folds if not is_tested(run, fold)}
    if not chosen:
        unfinished.update(trained.untested, trained.without_weights)
    if unfinished:
        done = ",".join(str(fold) for fold in trained.folds if fold not in unfinished)
        others = f", or take the others with {flag}={done}" if flag and done else ""
        raise UserError(
            f"fold {min(unfinished)} of {run} is not trained and tested to the end, so nothing is "
            "known of its network. Repeat the main.py command that started the run"
            f"{others}."
        )


def tested_folds(run: Path) -> list[int]:
    """Folds whose training is over and whose weights and test results are there."""
    return [f for f in run_folder.fold_numbers(run) if is_tested(run, f) and has_weights(run, f)]


def has_weights(run: Path, fold: int) -> bool:
    """Whether a fold has a finished checkpoint of its best weights."""
    return checkpoint.epoch_on_disk(_checkpoints(run, fold), checkpoint.BEST) > 0


def _checkpoints(run: Path, fold: int) -> Path:
    return run_folder.fold_dir(run, fold) / "checkpoints"


def _experiment(run: Path, config: config_dict.ConfigDict) -> tuple[Experiment, Any]:
    """The network and the shapes of a train state, each to be put on one device here."""
    try:
        config.train.devices = 1  # whatever machine trained it
        experiment = Experiment.from_config(config)
        like = experiment.abstract_state()
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{run / run_folder.CONFIG} is incomplete or of another version "
            f"({' '.join(str(error).split())}); restore the file or train again."
        ) from None
    here = jax.sharding.SingleDeviceSharding(experiment.devices[0])
    return experiment, jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like
    )


def _weights(run: Path, fold: int, like: Any) -> dict[str, Any]:
    try:
        # Without an origin nothing is compared: the dataset need not be here.
        with checkpoint.Checkpoints(_checkpoints(run, fold), {}) as checkpoints:
            return checkpoints.restore_best(like)
    except checkpoint.Unreadable as error:
        raise UserError(f"{error} Or leave fold {fold} out with --folds.") from None
