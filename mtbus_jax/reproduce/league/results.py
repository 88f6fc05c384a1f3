"""Results of a row's runs: figures over seeds and folds, and how far it is behind the first row."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from mtbus_jax import types
from mtbus_jax.evaluation.evaluate import REFINED, read_cases
from mtbus_jax.evaluation.summary import fold_figures
from mtbus_jax.metrics import statistics
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.league import costs
from mtbus_jax.reproduce.league.entries import Entry
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.training import run_files

KINDS = ("refined", "raw")
# Figures of the table, names of `fold_figures`; the first orders the rows.
FIGURES = ("dsc_average", "acc")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over the runs of a row.

    Attributes:
      mean: over seeds of the mean over folds; NaN if undefined.
      sd_seeds: standard deviation (n − 1) over seeds of the mean over folds; NaN for one seed.
      sd_runs: over all seeds and folds.
    """

    mean: float
    sd_seeds: float
    sd_runs: float


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A row with the results of its runs.

    Attributes:
      entry: the network.
      runs: one line per finished fold of a seed: ``seed``, ``fold``, ``test_images`` and
        ``<figure>_<kind>`` for all of `fold_figures`.
      seeds: the seeds whose folds are all done; figures use only these.
      missing: names of jobs that are not done, with what became of them.
      cost: None if it has not been measured.
      dice: ``(n,)`` Dice of each test image, after refining if there is any, mean over ``seeds``,
        indexed by fold and uid; empty without masks.
    """

    entry: Entry
    runs: pd.DataFrame
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    cost: costs.Cost | None
    dice: pd.Series

    def spread(self, figure: str, kind: str) -> Spread | None:
        """A figure over the seeds that are done; None if there are none, or no such figure."""
        column = f"{figure}_{kind}"
        if not self.seeds or column not in self.runs:
            return None
        runs = self.runs[self.runs.seed.isin(self.seeds)]
        by_seed = runs.groupby("seed")[column].mean()
        return Spread(float(by_seed.mean()), _sd(by_seed), _sd(runs[column]))

    def best(self, figure: str) -> Spread | None:
        """A figure after refining, or the raw figure of a run without refining."""
        return next(filter(None, (self.spread(figure, kind) for kind in KINDS)), None)


def _sd(values: pd.Series) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def rows(league: League) -> list[Row]:
    """The rows that can be trained, best first; those without a finished seed at the end.

    Raises:
      UserError: if a file of a run folder is broken.
    """
    found = [_row(league, entry) for entry in league.trainable]

    def order(row: Row) -> float:
        spread = row.best(FIGURES[0]) or row.best(FIGURES[1])
        return -spread.mean if spread and math.isfinite(spread.mean) else math.inf

    return sorted(found, key=order)


def _row(league: League, entry: Entry) -> Row:
    lines, dice, seeds, missing = [], [], [], []
    for seed in league.seeds:
        jobs = league.of(entry, seed)
        done = [job for job in jobs if jobs_lib.is_finished(job)]
        missing += [jobs_lib.state_in_words(job) for job in jobs if job not in done]
        if not done:
            continue
        directory = league.directory(entry, seed)
        cases = read_cases(directory)
        classes = types.Classes.of(run_files.read_config(directory)["data"])
        for job in done:
            of_fold = cases[cases.fold == job.fold]
            line = {"seed": seed, "fold": job.fold, "test_images": len(of_fold)}
            for kind in KINDS:
                refined = kind == "refined"
                if refined and not (job.config.eval.refine and f"{REFINED}predicted" in of_fold):
                    continue
                figures = fold_figures(of_fold, refined=refined, classes=classes)
                line |= {f"{name}_{kind}": value for name, (value, _) in figures.items()}
            lines.append(line)
        if len(done) == len(jobs):
            seeds.append(seed)
            column = f"{REFINED}dice" if "dsc_average_refined" in lines[-1] else "dice"
            if column in cases:
                used = cases[cases.fold.isin(league.folds)]
                dice.append(used.set_index(["fold", "uid"])[column])
    runs = pd.DataFrame(lines) if lines else pd.DataFrame(columns=["seed", "fold"])
    mean = pd.concat(dice).groupby(level=[0, 1]).mean() if dice else pd.Series(dtype=float)
    return Row(entry, runs, tuple(seeds), tuple(missing), costs.read(league, entry), mean)


def behind(first: Row, other: Row) -> tuple[float, float, float] | None:
    """How much lower the Dice of ``other`` is, with its 95 % interval, paired over test images.

    Each image's Dice is its mean over the seeds of a row. The bootstrap resamples images within
    folds, so the interval is about other images, not about other seeds. None if a row has no masks.
    """
    if not len(first.dice) or not len(other.dice):
        return None
    a, b = first.dice.align(other.dice, join="inner")
    difference = a.to_numpy(float) - b.to_numpy(float)
    low, high = statistics.bootstrap_mean_difference(
        a.to_numpy(float), b.to_numpy(float), strata=a.index.get_level_values(0).to_numpy()
    )
    return float(np.nanmean(difference)), low, high
