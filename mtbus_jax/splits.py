"""Which images are used for training, validation and testing.

Published recipe (Aumente-Maestro et al. 2025 and its released code): the test folds are stored
with the dataset; within the rest of each fold, scikit-learn's
``train_test_split(train_size=0.8, random_state=1993, stratify=class)`` picks the training images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.oversampling import replication_factors as replication_factors  # exported too

PUBLISHED_SEED = 1993
TRAIN_FRACTION = 0.8
# Where the test sets come from: published folds; folds given with the data or in a file; folds
# drawn here that keep groups together; or none, when all images are used for training.
PUBLISHED, GIVEN, GROUPED, ALL = "published", "given", "grouped", "all"
SPLITS = (PUBLISHED, GIVEN, GROUPED, ALL)


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices of one fold into a `types.Cases`, disjoint.

    Attributes:
      train: ``(a,)`` integers, a ≥ 1.
      validation: ``(b,)`` integers. If empty, the training loss replaces the validation loss.
      test: ``(c,)`` integers. If empty, nothing is tested.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def to_uids(self, uid: np.ndarray) -> dict[str, list[str]]:
        """The three lists by uid, as written to ``splits.json``."""
        return {
            f.name: [str(u) for u in uid[getattr(self, f.name)]] for f in dataclasses.fields(self)
        }

    @classmethod
    def from_uids(cls, parts: Mapping[str, Sequence[str]], uid: np.ndarray) -> Split:
        """Inverse of `to_uids`.

        Raises:
          UserError: if a part is missing, a uid is unknown, or one is used twice.
        """
        position = {str(u): i for i, u in enumerate(uid)}
        seen: set[str] = set()
        arrays = {}
        for field in dataclasses.fields(cls):
            if field.name not in parts:
                raise UserError(f"splits.json: a fold lacks its list {field.name!r}.")
            for u in parts[field.name]:
                if u not in position:
                    raise UserError(f"splits.json: the dataset has no image {u!r}.")
                if u in seen:
                    raise UserError(f"splits.json: image {u!r} appears twice in one fold.")
                seen.add(u)
            arrays[field.name] = np.array([position[u] for u in parts[field.name]], dtype=int)
        return cls(**arrays)

    def to_json(self) -> dict[str, list[int]]:
        """The three lists of indices."""
        return {f.name: getattr(self, f.name).tolist() for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, lists: Mapping[str, Sequence[int]]) -> Split:
        """Inverse of `to_json`."""
        return cls(**{name: np.array(indices, dtype=int) for name, indices in lists.items()})

    def fingerprint(self, uid: np.ndarray) -> str:
        """SHA-256 over the three lists of uids, to tell two splits apart."""
        lines = (f"{part}:{','.join(uids)}" for part, uids in self.to_uids(uid).items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def published_folds(
    label: np.ndarray, test_fold: np.ndarray, *, seed: int = PUBLISHED_SEED
) -> list[Split]:
    """The published folds: test sets as stored, the rest split 80 : 20, stratified by class.

    Args:
      label: ``(n,)`` class codes, in the published order.
      test_fold: ``(n,)`` integers 0, 1, …: the fold that tests each image.
      seed: of the split into training and validation.

    Returns:
      One `Split` per fold. Indices are in scikit-learn's (shuffled) order.

    Raises:
      UserError: if an image has no test fold.
    """
    from sklearn.model_selection import train_test_split

    if np.any(test_fold < 0):
        raise UserError(
            "this dataset has no published folds; choose --config.data.split=grouped instead."
        )
    folds = []
    for fold in range(int(test_fold.max()) + 1):
        rest = np.flatnonzero(test_fold != fold)
        try:
            train, validation = train_test_split(
                rest, train_size=TRAIN_FRACTION, random_state=seed, stratify=label[rest]
            )
        except ValueError as error:  # for example, a class with one image
            raise UserError(
                f"fold {fold}: {len(rest)} images cannot be split into training and validation "
                f"images as published ({error}). Choose --config.data.split=grouped, or add images."
            ) from None
        folds.append(Split(train, validation, np.flatnonzero(test_fold == fold)))
    return folds


def given_folds(
    label: np.ndarray,
    test_fold: np.ndarray,
    group: np.ndarray,
    *,
    seed: int = PUBLISHED_SEED,
    validation: bool = True,
) -> list[Split]:
    """Folds whose test sets are stored with the data; the rest of each is split 80 : 20 by groups.

    Args:
      label: ``(n,)`` class codes.
      test_fold: ``(n,)`` integers 0, 1, …: the fold that tests each image; `types.NO_FOLD` for an
        image that no fold tests, such as one outside a fixed test set; `types.VALIDATION_FOLD` for
        a validation image. If there are any of these, no others are drawn.
      group: ``(n,)`` group names. Validation images that are drawn share no group with training.
      seed: of the split into training and validation.
      validation: whether a fold must have validation images.

    Returns:
      One `Split` per fold.

    Raises:
      UserError: if no image has a test fold, one of the folds is empty, or too few groups remain.
    """
    numbers = sorted(set(test_fold[test_fold >= 0].tolist()))
    if not numbers:
        raise UserError(
            "data.split=given: no image of this dataset has a fold. Give them in the column fold "
            "of its manifest or in data.folds_file, or choose --config.data.split=grouped."
        )
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"data.split=given: the folds are numbered {', '.join(map(str, numbers))}; number them "
            "0, 1, 2 and so on without a gap."
        )
    fixed = test_fold == types.VALIDATION_FOLD
    folds = []
    for fold in numbers:
        test = test_fold == fold
        if fixed.any():
            parts = np.flatnonzero(~test & ~fixed), np.flatnonzero(fixed)
        else:
            rest = np.flatnonzero(~test)
            parts = _train_and_validation(rest, label, group, seed, needed=validation)
        if not len(parts[0]):
            raise UserError(
                f"data.split=given: fold {fold} has no training images; every image is tested or "
                "validates. Mark some in the column fold as train."
            )
        folds.append(Split(*parts, np.flatnonzero(test)))
    return folds


def _train_and_validation(
    rest: np.ndarray, label: np.ndarray, group: np.ndarray, seed: int, *, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Splits ``rest`` in two: a fifth for validation, as published, with no group in both parts.

    Raises:
      UserError: if there are too few groups, and validation images are needed.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    # A fifth, or a quarter or more if there are too few groups or images of a class.
    for parts in range(round(1 / (1 - TRAIN_FRACTION)), 1, -1):
        inner = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        try:
            with warnings.catch_warnings():
                # A class with fewer images than folds is missing from some folds; this cannot be
                # avoided.
                warnings.filterwarnings("ignore", "The least populated class", UserWarning)
                train, validation = next(iter(inner.split(rest, label[rest], group[rest])))
        except ValueError:
            continue
        if len(train) and len(validation):
            return rest[train], rest[validation]
    if not needed:
        return rest, rest[:0]
    raise UserError(
        f"{len(set(group[rest].tolist()))} groups of {len(rest)} images are too few to choose "
        "validation images from. Add images, or train on all that are not tested with "
        "--config.data.validation=False."
    )


def grouped_folds(
    label: np.ndarray,
    group: np.ndarray,
    *,
    folds: int = 4,
    seed: int = PUBLISHED_SEED,
    validation: bool = True,
) -> list[Split]:
    """Folds that keep every group (patient, set of near-duplicates) in one fold.

    scikit-learn's `StratifiedGroupKFold` draws the test folds. It also divides the rest of each
    fold into five parts; one of them (a fifth, as in the published recipe) is the validation set.
    Classes are balanced as well as the groups allow.

    Args:
      label: ``(n,)`` class codes.
      group: ``(n,)`` group names.
      folds: number of folds.
      seed: of both shuffles.
      validation: whether a fold must have validation images.

    Returns:
      One `Split` per fold.

    Raises:
      UserError: if there are too few groups, or fewer than two folds are asked for.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2:
        raise UserError(f"{folds} grouped folds are asked for; there must be two or more.")
    outer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            parts = list(outer.split(label, label, group))
    except ValueError:
        raise UserError(
            f"{len(set(group.tolist()))} groups of {len(label)} images, or the images of each "
            f"class, are too few for {folds} grouped folds. Ask for fewer with "
            "--config.data.fold_count, or use --config.data.split=published if the dataset has "
            "published folds."
        ) from None
    return [
        Split(*_train_and_validation(rest, label, group, seed, needed=validation), test)
        for rest, test in parts
    ]


def make_folds(
    cases: types.Cases, split: str, *, count: int = 4, validation: bool = True
) -> list[Split]:
    """All folds of ``cases`` under ``split``, one of `SPLITS`.

    Args:
      cases: the dataset.
      split: which kind.
      count: number of folds, if they are drawn.
      validation: if False, every fold's validation images are used for training instead.

    Raises:
      UserError: for an unknown name, or if the dataset has no such folds.
    """
    folds = _make_folds(cases, split, count, validation)
    if validation:
        return folds
    return [
        Split(np.concatenate([fold.train, fold.validation]), fold.validation[:0], fold.test)
        for fold in folds
    ]


def _make_folds(cases: types.Cases, split: str, count: int, validation: bool) -> list[Split]:
    if split == PUBLISHED:
        return published_folds(cases.label, cases.test_fold)
    if split == GIVEN:
        return given_folds(cases.label, cases.test_fold, cases.group, validation=validation)
    if split == GROUPED:
        return grouped_folds(cases.label, cases.group, folds=count, validation=validation)
    if split == ALL:
        none = np.empty(0, int)
        return [Split(np.arange(len(cases)), none, none)]
    raise UserError(f"data.split: {split!r} is unknown. Known: {', '.join(SPLITS)}.")


def check_classes(split: Split, cases: types.Cases, fold: int) -> None:
    """Refuses a fold that validates or tests on a class without training images.

    Args:
      split: the fold.
      cases: the dataset.
      fold: its number.

    Raises:
      UserError: naming class and images.
    """
    used = np.concatenate([split.train, split.validation, split.test])
    for code, name in enumerate(cases.classes.names):
        of_class = used[cases.label[used] == code]
        if len(of_class) and not (cases.label[split.train] == code).any():
            uids = ", ".join(cases.uid[of_class[:5]].tolist())
            raise UserError(
                f"fold {fold} trains on no image of the class {name}, of which it has "
                f"{len(of_class)} ({uids}). Add images of it, leave it out with "
                "--config.data.classes, or train the masks alone with --config.tasks=seg."
            )


def leaking(split: Split, group: np.ndarray) -> np.ndarray:
    """Test images whose group also occurs in training or validation.

    Args:
      split: one fold.
      group: ``(n,)`` group names of the whole dataset.

    Returns:
      ``(k,)`` indices of the test images concerned; empty for a split without a leak.
    """
    seen = set(group[split.train]) | set(group[split.validation])
    return np.array([i for i in split.test if group[i] in seen], dtype=int)


def leaking_validation(split: Split, group: np.ndarray) -> np.ndarray:
    """As `leaking`, validation images whose group also occurs in training."""
    seen = set(group[split.train])
    return np.array([i for i in split.validation if group[i] in seen], dtype=int)
