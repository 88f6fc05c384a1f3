"""Turns the runs of a table into configurations and jobs; a job is one fold of one run."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtbus_jax import data
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import published
from mtbus_jax.reproduce.rows import TableRun
from mtbus_jax.training import run_folder, run_splits
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import check_epochs


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a study is scaled down; None keeps the value of the configuration.

    Attributes:
      epochs: epochs of training.
      image_size: height and width in pixels.
      width: feature maps of the first level, the same for every network.
      folds: the folds that are trained and tested.
    """

    epochs: int | None = None
    image_size: tuple[int, int] | None = None
    width: int | None = None
    folds: tuple[int, ...] | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """The configuration's fields that it changes, with their values."""
        fields = {
            "train.epochs": self.epochs,
            "data.image_size": self.image_size,
            "model.width": self.width,
            "data.folds": self.folds,
        }
        return {field: value for field, value in fields.items() if value is not None}


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One fold of one run; self-contained, so that it can be sent to another machine.

    Attributes:
      workdir: the run folder.
      config: configuration of the run.
      fold: the fold to train and test.
    """

    workdir: Path
    config: config_dict.ConfigDict
    fold: int

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"{self.config.name}, fold {self.fold}"


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A folder of runs that share a base configuration and a scale.

    Attributes:
      workdir: folder of the tables and the run folders, which are named after their runs.
      base: configuration that every run starts from.
      explicit: fields of ``base`` that the user set one by one; a dataset's recipe does not
        replace these.
      scale: see `Scale`.
    """

    workdir: Path
    base: config_dict.ConfigDict
    explicit: frozenset[str] = frozenset()
    scale: Scale = Scale()

    def directory(self, run: TableRun) -> Path:
        """Run folder of ``run``."""
        return self.workdir / run.name

    def config(self, run: TableRun) -> config_dict.ConfigDict:
        """The configuration of ``run``: base, then the dataset's recipe, the run, the scale.

        Raises:
          UserError: if the user set a field that the tables set, or the base lacks a field.
        """
        reserved = sorted(self.explicit & (run.overrides.keys() | {"data.folds"}))
        if reserved:
            raise UserError(
                f"--config.{reserved[0]} is what the tables set themselves"
                f"{'; use --folds' if reserved[0] == 'data.folds' else ''}."
            )
        config = copy.deepcopy(self.base)
        flat = run_folder.flatten(config.to_dict())
        table_5, own = published.recipe("curated_busi"), published.recipe(run.dataset)
        # A value other than Table 5's was chosen in the configuration file, and stays.
        recipe = {
            field: value
            for field, value in own.items()
            if value != table_5[field] == flat.get(field) and field not in self.explicit
        }
        # Set where the base leaves it at "all", so that runs can be planned without the data.
        recipe |= {f: own[f] for f in ("data.folds", "data.classes") if not flat[f]}
        fields = recipe | run.overrides | self.scale.overrides
        lacking = sorted(fields.keys() - flat.keys())
        if lacking:
            raise UserError(f"--config: the configuration lacks the field {lacking[0]}.")
        config.update_from_flattened_dict(fields)
        return config

    def jobs(self, runs: tuple[TableRun, ...]) -> list[Job]:
        """A job for every fold of every run."""
        jobs = []
        for run in runs:
            config = self.config(run)
            jobs += [Job(self.directory(run), config, fold) for fold in config.data.folds]
        return jobs

    def check_folders(self, runs: tuple[TableRun, ...]) -> None:
        """Refuses run folders that hold something other than ``runs``; reads a few small files.

        Raises:
          UserError: for a run of another configuration, or one trained for more epochs.
        """
        if self.workdir.exists() and not self.workdir.is_dir():
            raise UserError(f"--workdir={self.workdir} is a file; give a folder.")
        for run in runs:
            check_folder(self.directory(run), self.config(run))


# Fields that a run fills in from its data if its configuration leaves them open.
_RESOLVED = ("classes", "class_names", "normal_class")


def check_folder(directory: Path, config: config_dict.ConfigDict) -> None:
    """Refuses a run folder in which ``config`` can neither start nor continue.

    Reads small files only, not the data: fields that the configuration leaves open take the values
    that the run found. Training checks them again, with the data.

    Args:
      directory: the run folder; it need not exist.
      config: the configuration, with all folds named.

    Raises:
      UserError: for a run of another configuration, or one trained for more epochs.
    """
    if (directory / run_folder.CONFIG).exists():
        there = run_folder.load_config(directory).data
        config = copy.deepcopy(config)
        for field in _RESOLVED:
            config.data[field] = config.data[field] or there[field]
        if data.leaves_split_open(config):
            config.data.split = there.split
    run_folder.check_run(directory, config)
    for fold in config.data.folds:
        check_epochs(run_folder.fold_dir(directory, fold), config.train.epochs)


def check_jobs(jobs: list[Job]) -> None:
    """Finds a bad value, a missing dataset or fold before anything is trained or written.

    Builds a dataset that is not built yet, so that two jobs do not both build it.

    Raises:
      UserError: for the first thing found.
    """
    for job in {job.workdir: job for job in jobs}.values():
        config = copy.deepcopy(job.config)
        # The number of devices is up to the machine that trains, which may be another one.
        config.train.devices = 1
        Experiment.from_config(config).abstract_state()
        cases = data.load_configured(config)
        config = data.resolve(config, cases)
        folds = run_splits.find_folds(job.workdir, cases, **run_splits.drawing(config.data))
        run_folder.check_folds(config.data.folds, len(folds))
