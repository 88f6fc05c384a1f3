"""Reads the figures of a table's rows from the run folders of a study."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pandas as pd

from mtbus_jax import refine, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.evaluation.evaluate import REFINED, read_cases
from mtbus_jax.metrics import classification, segmentation
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.plan import Study
from mtbus_jax.reproduce.rows import Row, TableRun


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One figure of a row.

    Attributes:
      mean: mean over folds; NaN if undefined in every fold.
      sd: standard deviation (n − 1) over folds; NaN for fewer than two.
      folds: number of folds in which it is defined.
      images: number of images behind it, over all folds.
    """

    mean: float
    sd: float
    folds: int
    images: int

    @property
    def sd_n(self) -> float:
        """The standard deviation divided by n, as the published ones are."""
        return self.sd * math.sqrt((self.folds - 1) / self.folds) if self.folds else math.nan


@dataclasses.dataclass(frozen=True, eq=False)
class RowResult:
    """A row with the results of its runs.

    Attributes:
      row: the row.
      missing: names of the jobs that are not finished; if there are any, the rest is empty.
      cases: one row per test image, as `evaluate.case_rows`; if joined, the columns of both runs.
      figures: by name, see `summary.fold_figures`.
    """

    row: Row
    missing: tuple[str, ...] = ()
    cases: pd.DataFrame | None = None
    figures: dict[str, Statistic] = dataclasses.field(default_factory=dict)

    @property
    def dice(self) -> np.ndarray | None:
        """``(n,)`` Dice of each image, or None without masks."""
        column = self._column("dice")
        return None if column is None else column.to_numpy(float)

    @property
    def predicted(self) -> np.ndarray | None:
        """``(n,)`` class names, or None without classes."""
        column = self._column("predicted")
        return None if column is None else column.to_numpy(str)

    @property
    def confusion(self) -> np.ndarray | None:
        """``(classes, classes)`` counts, row = true class, all folds; None without classes."""
        if self.predicted is None:
            return None
        codes = [
            np.array([types.CLASS_NAMES.index(name) for name in names])
            for names in (self.cases.label, self.predicted)
        ]
        return classification.confusion_matrix(*codes)

    def _column(self, name: str) -> pd.Series | None:
        if self.cases is None:
            return None
        return self.cases.get(REFINED + name if self.row.refined else name)


def row_result(study: Study, row: Row) -> RowResult:
    """Reads the results of the runs of ``row``.

    Raises:
      UserError: if two runs that are joined were not tested on the same images.
    """
    missing = [job.name for job in study.jobs(row.runs) if not jobs_lib.is_finished(job)]
    if missing:
        return RowResult(row, tuple(missing))
    frames = [_read(study, run) for run in row.runs]
    if len(frames) == 2:
        image_size = tuple(study.config(row.seg).data.image_size)
        cases = join(*frames, image_size=image_size)
    else:
        cases = frames[0]
    return RowResult(row, (), cases, _figures(cases, row.refined))


def _read(study: Study, run: TableRun) -> pd.DataFrame:
    cases = read_cases(study.directory(run))
    folds = study.config(run).data.folds
    return cases[cases.fold.isin(folds)].sort_values(["fold", "uid"], ignore_index=True)


def _figures(cases: pd.DataFrame, refined: bool) -> dict[str, Statistic]:
    folds = [
        summary.fold_figures(rows, refined=refined) for _, rows in cases.groupby("fold", sort=True)
    ]
    result = {}
    for name in folds[0]:
        values = np.array([figures[name][0] for figures in folds])
        values = values[~np.isnan(values)]
        result[name] = Statistic(
            mean=float(values.mean()) if len(values) else math.nan,
            sd=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
            folds=len(values),
            images=sum(figures[name][1] for figures in folds),
        )
    return result


def join(seg: pd.DataFrame, cls: pd.DataFrame, *, image_size: tuple[int, int]) -> pd.DataFrame:
    """Joins two single-task runs as if they were one network: ST(Seg+Cls).

    Refining empties a whole mask or leaves it as it is. So it suffices to know whether each mask is
    empty and, for the metrics of an emptied mask, the size of the true lesion.

    Args:
      seg: rows of ``cases.csv`` of a run with the segmentation task alone.
      cls: rows of ``cases.csv`` of a run with the classification task alone.
      image_size: height and width of the masks, pixels.

    Returns:
      The columns of both, with ``incoherent`` and the refined columns.

    Raises:
      UserError: if they hold different images, folds or labels.
    """
    keys = ["uid", "fold", "label"]
    cases = seg.merge(cls, on=keys, validate="one_to_one")
    if not len(cases) == len(seg) == len(cls):
        raise UserError(
            f"the runs joined in ST(Seg+Cls) were tested on different images or folds: {len(seg)} "
            f"and {len(cls)}, of which {len(cases)} are the same. Remove the folder of the one "
            "that is wrong and start again."
        )
    has_mask = cases.predicted_pixels.to_numpy() > 0
    mask = has_mask[:, None, None]
    class_id = cases.predicted.map(types.CLASS_NAMES.index).to_numpy()
    refined_mask, refined_class = refine.refine(mask, np.eye(len(types.CLASS_NAMES))[class_id])
    emptied = has_mask & ~np.asarray(refined_mask)[:, 0, 0]
    columns = {
        "incoherent": np.asarray(refine.incoherent(mask, class_id)),
        f"{REFINED}predicted": np.array(types.CLASS_NAMES)[np.asarray(refined_class)],
    }
    of_empty = functools.cache(functools.partial(_metrics_of_empty, image_size=image_size))
    for name in segmentation.METRICS:
        values = cases[name].to_numpy(float).copy()
        for i in np.flatnonzero(emptied):
            values[i] = of_empty(int(cases.true_pixels[i]))[name]
        columns[REFINED + name] = values
    return cases.assign(**columns)


def _metrics_of_empty(true_pixels: int, *, image_size: tuple[int, int]) -> dict[str, float]:
    """Every metric of an empty mask; it depends on the size of the truth, not on its shape."""
    truth = (np.arange(math.prod(image_size)) < true_pixels).reshape(image_size)
    empty = np.zeros(image_size, bool)
    return {name: metric(truth, empty) for name, metric in segmentation.METRICS.items()}
