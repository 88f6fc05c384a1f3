"""Turns the rows of the league table into run folders, one for each row and seed."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax import data, types
from mtbus_jax.errors import UserError
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.league.entries import Entry
from mtbus_jax.reproduce.plan import Job, Scale, check_folder
from mtbus_jax.training import memory, run_folder, run_splits
from mtbus_jax.training.experiment import Experiment, check_values

FOLDS, SEEDS = (0, 1), (1993, 1994, 1995)
# Fields that the league itself varies, and the flags that set them.
_RESERVED = {"seed": "--seeds", "data.folds": "--folds", "name": "the rows' own names"}


@dataclasses.dataclass(frozen=True, eq=False)
class League:
    """A folder of runs that differ in network and seed alone.

    Attributes:
      workdir: folder of the table and of one run folder per row and seed.
      recipe: configuration of all runs; its ``model`` section is not read.
      explicit: fields of ``recipe`` that the user set one by one.
      scale: how the recipe is scaled down.
      seeds: seeds of each row's runs.
      entries: the rows.
    """

    workdir: Path
    recipe: config_dict.ConfigDict
    explicit: frozenset[str]
    scale: Scale
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.recipe.data.name

    @property
    def stem(self) -> str:
        """First part of all file names: the dataset's name; of a folder, its last part."""
        return Path(self.dataset).name if data.is_own(self.dataset) else self.dataset

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that every run trains and tests."""
        return self.scale.folds or FOLDS

    @property
    def name(self) -> str:
        """Name of the table's files, without suffix."""
        return f"league_{self.stem}"

    def directory(self, entry: Entry, seed: int) -> Path:
        """Run folder of a row and a seed."""
        return self.workdir / f"{self.stem}_{entry.name}_seed{seed}"

    def config(self, entry: Entry, seed: int) -> config_dict.ConfigDict:
        """The recipe with only the network and the seed changed.

        One field depends on the network: without pretrained encoder weights, there is nothing that
        a low ``train.encoder_rate`` should preserve, so it is 1.
        """
        config = copy.deepcopy(self.recipe)
        fields = self.scale.overrides | {"data.folds": self.folds}
        with config.unlocked(), config.ignore_type():
            config.name = self.directory(entry, seed).name
            config.seed = seed
            config.model.update(dict.fromkeys(config.model) | entry.options)
            if not entry.encoder_weights:
                config.train.encoder_rate = 1.0
            for field, value in fields.items():
                section, name = field.split(".")
                config[section][name] = value
        return config

    def jobs(self, entries: tuple[Entry, ...] | None = None) -> list[Job]:
        """A job for every fold of every run, the first seed of all rows before the second.

        Args:
          entries: of these rows only.
        """
        return [job for seed in self.seeds for e in self._of(entries) for job in self.of(e, seed)]

    def of(self, entry: Entry, seed: int) -> list[Job]:
        """The jobs of one run."""
        config = self.config(entry, seed)
        return [Job(self.directory(entry, seed), config, fold) for fold in self.folds]

    def _of(self, entries: tuple[Entry, ...] | None) -> tuple[Entry, ...]:
        return self.entries if entries is None else entries

    @functools.cached_property
    def left_out(self) -> dict[Entry, str]:
        """Rows that cannot be trained with this recipe, and why: no weights, an invalid setting.

        Raises:
          UserError: for a bad value in the recipe, or if no row is left.
        """
        self._check()
        reasons = {}
        for entry in self.entries:
            if any(map(jobs_lib.is_finished, self.of(entry, self.seeds[0]))):
                continue
            config = self.config(entry, self.seeds[0])
            config.train.devices = 1  # a matter of the machine that trains
            try:
                experiment = Experiment.from_config(config)
                _check_weights(experiment, entry)
                experiment.abstract_state()
                memory.check(experiment)
            except UserError as error:
                reasons[entry] = str(error)
        if len(reasons) == len(self.entries):
            raise UserError(f"no network can be trained so: {next(iter(reasons.values()))}")
        return reasons

    @property
    def trainable(self) -> tuple[Entry, ...]:
        """The rows that are not left out."""
        return tuple(entry for entry in self.entries if entry not in self.left_out)

    def _check(self) -> None:
        for field in sorted(self.explicit):
            if field in _RESERVED or field.startswith("model."):
                use = _RESERVED.get(field, "--networks and --width")
                raise UserError(
                    f"--config.{field} is what the league itself varies; see {use} instead."
                )
        check_values(self.config(self.entries[0], self.seeds[0]))
        if self.workdir.exists() and not self.workdir.is_dir():
            raise UserError(f"--workdir={self.workdir} is a file; give a folder.")

    def check_folders(self) -> None:
        """Refuses run folders that hold anything but the league's runs; reads a few small files.

        Raises:
          UserError: for a run of another configuration, or one trained for more epochs.
        """
        for entry in self.trainable:
            for seed in self.seeds:
                check_folder(self.directory(entry, seed), self.config(entry, seed))

    def load(self) -> types.Cases:
        """Loads the images, which all rows share; builds the dataset if it is not built yet.

        Raises:
          UserError: if they are not available, or lack one of the folds.
        """
        config = self.config(self.entries[0], self.seeds[0])
        cases = data.load_configured(config)
        config = data.resolve(config, cases)
        folds = run_splits.find_folds(
            self.directory(self.entries[0], self.seeds[0]),
            cases,
            **run_splits.drawing(config.data),
        )
        run_folder.check_folds(self.folds, len(folds))
        return cases


def _check_weights(experiment: Experiment, entry: Entry) -> None:
    """Refuses encoder weights that are not available.

    Raises:
      UserError: with the flag that names a file.
    """
    try:
        experiment.check_encoder_weights()
    except UserError as error:
        flag = f"--weights={experiment.module.encoder}=FILE"
        raise UserError(f"{error} The league takes such a file with {flag}.") from None
