"""The tables of Aumente-Maestro et al. 2025 as data: which runs make which row.

Comput. Methods Programs Biomed. 260, 108540. Rows share runs, within a table and between tables.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mtbus_jax import types
from mtbus_jax.evaluation import published

_WITHOUT_NORMAL = ("benign", "malignant")


@dataclasses.dataclass(frozen=True)
class TableRun:
    """One configuration, trained on every fold; other fields are those of the base configuration.

    Single-task runs follow the released scripts of their rows (`published.single_task_recipe`):
    segmentation tests the last epoch's weights and fills the holes in masks, and the nnU-Net
    classifier applies softmax twice. The networks of Table 4 have the options of its runs
    (`published.network_options`). One difference stays: the released UNet++ classifier keeps the
    decoder node X(3,1) and its head reads it, while ours has the encoder alone.

    Attributes:
      dataset: a name of `data.DATASETS`.
      model: a key of `models.REGISTRY`.
      tasks: a non-empty subset of `types.TASKS`.
      oversample: whether with deterministic oversampling (DO).
      classes: classes whose images are used.
    """

    dataset: str
    model: str
    tasks: tuple[str, ...] = types.TASKS
    oversample: bool = False
    classes: tuple[str, ...] = types.CLASS_NAMES

    @property
    def name(self) -> str:
        """Name of the run and of its folder, such as ``curated_busi_unetpp_mt_do``."""
        parts = [self.dataset, self.model, "mt" if len(self.tasks) == 2 else self.tasks[0]]
        if self.classes != types.CLASS_NAMES:
            parts += self.classes
        if self.oversample:
            parts.append("do")
        return "_".join(parts)

    @property
    def overrides(self) -> dict[str, Any]:
        """The configuration's fields that this run sets, with their values."""
        return {
            "name": self.name,
            "data.name": self.dataset,
            "data.classes": self.classes,
            "model.name": self.model,
            "tasks": self.tasks,
            "train.oversample": self.oversample,
            **published.network_options(self.model),
            **published.single_task_recipe(self.tasks, self.model),
        }


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      label: its name in the first column.
      setting: its name in ``published.csv``.
      seg: the run whose masks count, or None.
      cls: the run whose classes count, or None; for a multi-task row the same run as ``seg``.
      refined: whether after prediction refining (PR).
    """

    label: str
    setting: str
    seg: TableRun | None
    cls: TableRun | None
    refined: bool = False

    @property
    def runs(self) -> tuple[TableRun, ...]:
        """The runs it needs."""
        return tuple(dict.fromkeys(run for run in (self.seg, self.cls) if run is not None))


@dataclasses.dataclass(frozen=True)
class Section:
    """Rows that are compared with each other; the last one is the reference.

    Attributes:
      title: heading, or empty in a table of one section.
      metrics: columns, names of `summary.fold_figures`.
      rows: from top to bottom.
      confusion: whether the confusion matrix of every row is part of the table.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    confusion: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      number: in the paper.
      title: what it shows.
      sections: from top to bottom.
      note: what a reader must know to compare the published figures with ours, or empty.
    """

    number: int
    title: str
    sections: tuple[Section, ...]
    note: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)


def runs_of(rows: tuple[Row, ...]) -> tuple[TableRun, ...]:
    """The runs that ``rows`` need, each once, in their order."""
    return tuple(dict.fromkeys(run for row in rows for run in row.runs))


_SEGMENTATION = (*(f"dsc_{name}" for name in types.CLASS_NAMES), "dsc_average")
_CLASSIFICATION = (*(f"f1_{name}" for name in types.CLASS_NAMES), "f1_weighted", "acc")
_TITLES = {"unetpp": "UNet++", "nnunet": "nnU-Net"}


def _single(dataset: str, model: str, task: str, *, oversample: bool = False) -> Row:
    """ST(Seg) or ST(Cls), with or without DO."""
    run = TableRun(dataset, model, (task,), oversample)
    setting = {"seg": "ST(Seg)", "cls": "ST(Cls)"}[task] + "+DO" * oversample
    seg, cls = (run, None) if task == "seg" else (None, run)
    return Row(setting, setting, seg, cls)


def _joined(dataset: str, model: str, *, oversample: bool, refined: bool) -> Row:
    """ST(Seg+Cls): two networks trained apart, joined by refining only."""
    seg = TableRun(dataset, model, ("seg",), oversample)
    cls = TableRun(dataset, model, ("cls",), oversample)
    setting = "ST(Seg+Cls)" + "+PR" * refined + "+DO" * oversample
    return Row(setting, setting, seg, cls, refined)


def _multi(dataset: str, model: str, *, oversample: bool, refined: bool, label: str = "") -> Row:
    """MT with or without DO and PR."""
    run = TableRun(dataset, model, oversample=oversample)
    setting = "MT" + "+PR" * refined + "+DO" * oversample
    return Row(label or setting, setting, run, run, refined)


def _table_4() -> Table:
    networks = {
        "unet": "U-Net",
        "attention_unet": "Attention U-Net",
        "basic_unetpp": "UNet++",
        "swin_unetr": "SwinUNETR",
        "residual_unet": "Residual U-Net",
        "segresnet": "SegResNet",
        "nnunet": "nnU-Net",
        "bts_unet": "BTS U-Net",
    }
    metrics = ("hausdorff", "dsc_average", "jaccard", "recall", "precision")

    def section(title: str, setting: str, classes: tuple[str, ...]) -> Section:
        runs = {
            model: TableRun("curated_busi", model, ("seg",), classes=classes) for model in networks
        }
        rows = tuple(Row(label, setting, runs[model], None) for model, label in networks.items())
        return Section(title, metrics, rows)

    return Table(
        4,
        "segmentation networks on Curated BUSI",
        (
            section("Benign and malignant", "ST(Seg) benign+malignant", _WITHOUT_NORMAL),
            section("All classes", "ST(Seg) normal+benign+malignant", types.CLASS_NAMES),
        ),
        "The Hausdorff distance is in pixels and a missed lesion has recall 0; where no pixel is "
        "marked, precision is undefined and left out. The paper's released code computes these "
        "differently, so its figures for them are not comparable.",
    )


def _ablation(number: int, model: str) -> Table:
    """Tables 5 and 6."""
    data = ("curated_busi", model)
    rows = (
        _single(*data, "seg"),
        _single(*data, "seg", oversample=True),
        _single(*data, "cls"),
        _single(*data, "cls", oversample=True),
        _joined(*data, oversample=False, refined=True),
        _joined(*data, oversample=True, refined=True),
        _multi(*data, oversample=False, refined=False),
        _multi(*data, oversample=False, refined=True),
        _multi(*data, oversample=True, refined=False),
        _multi(*data, oversample=True, refined=True),
    )
    title = f"ablation of MT {_TITLES[model]} on Curated BUSI"
    return Table(number, title, (Section("", (*_SEGMENTATION, *_CLASSIFICATION), rows),))


def _table_7() -> Table:
    def sections(model: str) -> tuple[Section, Section]:
        data = ("curated_busi", model)
        confusion = (
            _single(*data, "cls"),
            _single(*data, "cls", oversample=True),
            _multi(*data, oversample=False, refined=False),
            _multi(*data, oversample=True, refined=False),
            _multi(*data, oversample=True, refined=True),
        )
        incoherent = (
            _joined(*data, oversample=False, refined=False),
            _joined(*data, oversample=True, refined=False),
            _multi(*data, oversample=False, refined=False),
            _multi(*data, oversample=True, refined=False),
        )
        title = _TITLES[model]
        return (
            Section(f"{title}: confusion matrices", (), confusion, confusion=True),
            Section(f"{title}: incoherent ratio", ("incoherent_ratio",), incoherent),
        )

    return Table(
        7,
        "confusion matrices and incoherent ratios on Curated BUSI",
        sections("unetpp") + sections("nnunet"),
        "Confusion matrices are in percent of the true class, all folds pooled. The incoherent "
        "ratio is the share of images for which exactly one of mask and class says normal, before "
        "refining.",
    )


def _comparison(number: int, metrics: tuple[str, ...], what: str) -> Table:
    """Tables 8 and 9."""
    best = {"oversample": True, "refined": True}
    rows = (
        _multi("curated_busi", "adityan", oversample=False, refined=False, label="Adityan et al."),
        _multi("curated_busi", "unetpp", **best, label="MT UNet++ +PR+DO"),
        _multi("curated_busi", "nnunet", **best, label="MT nnU-Net +PR+DO"),
    )
    title = f"{what} beside another multi-task network on Curated BUSI"
    return Table(number, title, (Section("", metrics, rows),))


def _other_dataset(number: int, metrics: tuple[str, ...], task: str, what: str) -> Table:
    """Tables 10 and 11."""

    def section(model: str) -> Section:
        data = ("bus_uclm", model)
        rows = (
            _single(*data, task),
            _multi(*data, oversample=False, refined=False),
            _multi(*data, oversample=True, refined=True),
        )
        return Section(_TITLES[model], metrics, rows)

    return Table(number, f"{what} on BUS-UCLM", (section("unetpp"), section("nnunet")))


TABLES: dict[int, Table] = {
    table.number: table
    for table in (
        _table_4(),
        _ablation(5, "unetpp"),
        _ablation(6, "nnunet"),
        _table_7(),
        _comparison(8, _SEGMENTATION, "segmentation"),
        _comparison(9, _CLASSIFICATION, "classification"),
        _other_dataset(10, _SEGMENTATION, "seg", "segmentation"),
        _other_dataset(11, _CLASSIFICATION, "cls", "classification"),
    )
}

# By number: the configurations that are the figure's columns.
FIGURES: dict[int, tuple[Row, ...]] = {
    6: (
        _single("curated_busi", "unetpp", "seg"),
        _multi("curated_busi", "unetpp", oversample=False, refined=False),
        _multi("curated_busi", "unetpp", oversample=True, refined=False),
        _multi("curated_busi", "unetpp", oversample=True, refined=True),
    )
}
