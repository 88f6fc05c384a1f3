"""Training that starts from the weights of another run, such as one on another dataset.

``train.start_from`` names the other run's folder, whose fold k starts fold k here, or one of its
fold folders, which starts every fold. The best weights are taken, nothing else: optimiser and
schedule start afresh. Weights that have seen the images to be tested are refused, whether in the
other run or in one that it started from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from ml_collections import config_dict

from mtbus_jax import splits, types
from mtbus_jax.data import places, stored
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.training import run_files, run_folder, run_splits, seen, trained_folds
from mtbus_jax.training.state import TrainState

FIELD = "train.start_from"


class StartingWeights(NamedTuple):
    """Where a fold's weights come from.

    Attributes:
      run: the other run's folder.
      fold: one of its folds.
      config: its configuration.
    """

    run: Path
    fold: int
    config: config_dict.ConfigDict

    def to_json(self) -> list:
        """Its fields as JSON can hold them."""
        return [str(self.run), self.fold, self.config.to_dict()]

    @classmethod
    def from_json(cls, fields: list) -> StartingWeights:
        """Inverse of `to_json`."""
        run, fold, config = fields
        return cls(Path(run), fold, run_folder.config_from_json(config))


def find(
    config: config_dict.ConfigDict, fold: int, split: splits.Split, cases: types.Cases
) -> StartingWeights | None:
    """The weights that a fold is to start from, after every check that needs no weights.

    Args:
      config: of the run.
      fold: its fold.
      split: indices of the fold.
      cases: the dataset.

    Returns:
      None if ``train.start_from`` is empty.

    Raises:
      UserError: if there is no such run or fold, its network differs, or it was trained or chosen
        with images that are to be tested here.
    """
    if not config.train.start_from:
        return None
    run, other_fold = _parse(config.train.start_from, fold)
    if not run.is_dir():
        raise UserError(f"{FIELD}={run} is not a folder; give the --workdir of a run of main.py.")
    other = run_folder.load_config(run)
    if isinstance(other.get("seed"), tuple):
        raise UserError(f"{FIELD}={run} is an ensemble; give one of the runs it was made of.")
    if not trained_folds.has_weights(run, other_fold):
        raise UserError(
            f"{FIELD}={run} has no finished checkpoint of fold {other_fold}, which fold {fold} "
            f"would start from. Train it there, or name one of its folds, as in {run}/fold_0."
        )
    _check_model(run, other, config)
    source = StartingWeights(run, other_fold, other)
    for each in _lineage(source):
        _check_unseen(each, config, fold, split, cases)
    return source


def _parse(start_from: str, fold: int) -> tuple[Path, int]:
    """A run folder, or a fold's folder in one → the run folder and the fold to read."""
    path = Path(start_from)
    number = path.name.removeprefix("fold_")
    if path.name.startswith("fold_") and number.isdecimal():
        return path.parent, int(number)
    return path, fold


def _check_model(run: Path, other: config_dict.ConfigDict, config: config_dict.ConfigDict) -> None:
    differing = [
        f"{field} ({there} there, {here} here)"
        for field, there, here in run_folder.differences(other, config)
        if field.startswith("model.")
    ]
    if differing:
        raise UserError(
            f"{FIELD}={run} holds another network: {'; '.join(differing)}. Give these fields the "
            "values of that run, or start from another."
        )


def _lineage(source: StartingWeights) -> Iterator[StartingWeights]:
    """A source, then the source that it started from, and so on.

    Raises:
      UserError: if one of them is gone.
    """
    yield source
    passed = set()
    while source.config.train.start_from and (source.run, source.fold) not in passed:
        passed.add((source.run, source.fold))
        run, fold = _parse(source.config.train.start_from, source.fold)
        if not run.is_dir():
            raise UserError(
                f"{FIELD}: {source.run} started from {run} itself, which is no longer there, so it "
                "is unknown what its weights have seen. Put that folder back, or start from "
                "another run."
            )
        source = StartingWeights(run, fold, run_folder.load_config(run))
        yield source


def earlier_runs(
    config: config_dict.ConfigDict,
) -> Iterator[tuple[Path, config_dict.ConfigDict | None]]:
    """The runs that a run started from, the latest first, with their configurations.

    Args:
      config: of the run.

    Yields:
      Folder and configuration; None for a run that is gone, which is the last one.

    Raises:
      UserError: if a configuration is broken.
    """
    passed = set()
    while config is not None and config.train.start_from:
        run, _ = _parse(config.train.start_from, 0)
        if run in passed:
            return
        passed.add(run)
        config = run_folder.load_config(run) if run.is_dir() else None
        yield run, config


def _check_unseen(
    source: StartingWeights,
    config: config_dict.ConfigDict,
    fold: int,
    split: splits.Split,
    cases: types.Cases,
) -> None:
    """Refuses weights that have seen the images held out here.

    Both runs may validate on the same images, as with the same folds of the same dataset.
    """
    path = source.run / run_splits.SPLITS
    try:
        there = run_files.read_splits(source.run)["folds"][source.fold]
        trained_on, chosen_with = set(there["train"]), set(there["validation"])
    except (UserError, IndexError, KeyError):
        raise UserError(
            f"{FIELD}: {path} does not list the images of fold {source.fold}, so it is unknown "
            "what its weights have seen. Restore that file, or start from another run."
        ) from None
    name = _names_there(source, config, cases)
    for held_out, seen_there in (
        (split.test, trained_on | chosen_with),
        (split.validation, trained_on),
    ):
        known = [i for i in held_out.tolist() if name[i] & seen_there]
        if known:
            raise UserError(
                f"{FIELD}: fold {source.fold} of {source.run} was trained or chosen with "
                f"{len(known)} of the images that fold {fold} holds out here, such as "
                f"{str(cases.uid[known[0]])!r}; the results would not be those of unseen images. "
                "Start from a run with the same folds, or on other images."
            )


def _names_there(
    source: StartingWeights, config: config_dict.ConfigDict, cases: types.Cases
) -> list[set[str]]:
    """For each image the ids that it has, or may have, in the run that weights come from.

    If that run recorded its images, an image with the same id and pixels is the same one. Any other
    image has the ids of those with the same pixels, and its own, since it may have been saved
    again. In another folder of numbered files an id means little: with other pixels it is another
    picture.
    """
    own = cases.uid.tolist()
    there = seen.read(source.run)
    if there is None or there.uids is None or there.how != seen.how(config):
        if stored.is_folder(config.data.name) or stored.is_folder(source.config.data.name):
            warnings.warn(
                f"{FIELD}: the pictures of {source.run} are compared by their names alone, since "
                "it does not know their pixels at this size. The same pictures under other names "
                "would not be noticed.",
                UserWarning,
                stacklevel=2,
            )
        return [{uid} for uid in own]
    digest_there = dict(zip(there.uids, there.digests, strict=True))
    same: dict[str, set[str]] = {}
    for uid, digest in digest_there.items():
        same.setdefault(digest, set()).add(uid)
    folders = places.is_folder(config) and places.is_folder(source.config)
    apart = folders and not places.same_place(
        places.NAME, config.data.name, source.config.data.name
    )
    names, doubtful = [], 0
    for uid, digest in zip(own, seen.digests(cases), strict=True):
        if not digest or digest_there.get(uid) == digest:
            names.append({uid})
        elif apart:
            names.append(same.get(digest, set()))
            doubtful += uid in digest_there and not names[-1]
        else:
            names.append({uid} | same.get(digest, set()))
    if doubtful:
        warnings.warn(
            f"{FIELD}: {doubtful} images have the names of images of {source.run}, with other "
            "pixels, and count as others. If they are the same pictures saved again, the weights "
            "may have seen what is tested here.",
            UserWarning,
            stacklevel=2,
        )
    return names


def load(source: StartingWeights, like: TrainState) -> tuple[dict[str, Any], list[str]]:
    """The weights to start from.

    Args:
      source: from `find`.
      like: a fresh state of the run, for what the other network does not have.

    Returns:
      Variables of the network, and the names of the arrays that keep their random initial values:
      those of a task that the other run did not train.

    Raises:
      UserError: if weights are broken, or an array is of another shape.
    """
    found = traverse_util.flatten_dict(
        trained_folds.weights(source.run, source.fold, source.config)
    )
    wanted = traverse_util.flatten_dict(like.variables)
    for path, array in wanted.items():
        if path in found and found[path].shape != array.shape:
            raise UserError(
                f"{FIELD}={source.run}: {'/'.join(path)} has shape {found[path].shape} there and "
                f"{array.shape} here; the networks or the image sizes differ too much."
            )
    drawn = ["/".join(path[1:]) for path in wanted if path not in found]
    joined = {path: found.get(path, array) for path, array in wanted.items()}
    return traverse_util.unflatten_dict(joined), drawn


def check(source: StartingWeights, like: TrainState) -> None:
    """Refuses weights that `load` would refuse, before anything is written.

    Args:
      source: from `find`.
      like: shapes and types of a state are enough.

    Raises:
      UserError: see `load`.
    """
    load(source, like)


def start(source: StartingWeights, state: TrainState) -> TrainState:
    """A fresh state with the other run's weights; says so on the screen.

    Args:
      source: from `find`.
      state: the fresh state.

    Raises:
      UserError: see `load`.
    """
    variables, drawn = load(source, state)
    params, batch_stats = variables["params"], variables.get("batch_stats", state.batch_stats)
    if parallel.is_primary():
        rest = f"; randomly initialised: {', '.join(drawn)}" if drawn else ""
        print(f"starting from the weights of {source.run}, fold {source.fold}{rest}", flush=True)
    copied = jax.tree.map(jnp.copy, (params, batch_stats))  # a step donates its buffers
    return state.replace(
        params=params,
        batch_stats=batch_stats,
        best_params=copied[0],
        best_batch_stats=copied[1],
    )
