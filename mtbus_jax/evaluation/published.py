"""Published figures and their training recipe, for comparison with a run.

``published.csv`` states the figures of Aumente-Maestro et al. 2025 (Comput. Methods Programs
Biomed. 260, 108540; mean and standard deviation over four folds), with the table each comes from.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mtbus_jax import models, types

# The recipe of Table 5, by configuration field. Oversampling, refining and tasks are left out,
# because the tables vary them.
_RECIPE: dict[str, Any] = {
    "data.split": "published",
    "data.folds": [0, 1, 2, 3],
    "data.classes": ["benign", "malignant", "normal"],
    "data.image_size": [128, 128],
    "data.resize": "nearest",
    "data.validation": True,
    "data.enhancement": "none",
    "model.head": "released",
    "model.deep_supervision": True,
    "loss.weight": 0.85,
    "loss.weighting": "fixed",
    "loss.lossnet": 0.0,
    "loss.lossnet_weights": "",
    "loss.gamma": 2.0,
    "loss.dice": "squared",
    "loss.dice_smoothing": 1.0,
    "loss.class_weights": [],
    "loss.cross_entropy": 0.0,
    "loss.label_smoothing": 0.0,
    "loss.reconstruction": 1.0,
    "train.epochs": 200,
    "train.batch_size": 2,
    "train.oversample_rule": "round",
    "train.augment": True,
    "train.augmentation": "released",
    "train.rotation_fill": "zero",
    "train.elastic": 0.0,
    "train.speckle": 0.0,
    "train.mixup": 0.0,
    "train.small_share": 0.0,
    "train.small_scale": 0.75,
    "train.learning_rate": 1e-4,
    "train.adam_b1": 0.9,
    "train.adam_b2": 0.999,
    "train.adam_epsilon": 1e-4,
    "train.weight_decay": 0.0,
    "train.clip_norm": 0.0,
    "train.encoder_rate": 1.0,
    "train.course": "plateau",
    "train.warmup": 0.0,
    "train.cosine_floor": 0.0,
    "train.decay_factor": 0.9,
    "train.decay_epochs": 20,
    "train.l2": 0.0,
    "train.plateau_factor": 0.5,
    "train.plateau_patience": 20,
    "train.min_learning_rate": 1e-6,
    "train.stop_patience": 50,
    "train.start_from": "",
    "train.keep": "best",
    "train.average_decay": 0.99,
    "train.plateau_threshold": 1e-4,
    "train.compute_dtype": "float32",
    "loss.double_softmax": False,
    "eval.average": False,
    "eval.fill_holes": False,
}
# Feature maps of the first level, by network: from the published runs or, where the paper does not
# state them, the default of the released code.
_WIDTHS = {"unetpp": 24, "nnunet": 32, "adityan": 64, "bts_unet": 48}
# Network options of the published runs that differ from the defaults here.
_OPTIONS = {"residual_unet": {"legacy": True}, "swin_unetr": {"centred_grey": False}}
# Tables 10 and 11.
_RECIPE_CHANGES = {"curated_busi": {}, "bus_uclm": {"loss.weight": 0.4, "train.epochs": 250}}


class Figure(NamedTuple):
    """One published figure.

    Attributes:
      table: number of the table, or ``text``.
      mean: mean over four folds.
      sd: standard deviation over four folds; NaN where none is printed.
    """

    table: str
    mean: float
    sd: float


@functools.cache
def _table() -> pd.DataFrame:
    path = Path(__file__).with_name("published.csv")
    return pd.read_csv(path, dtype={"table": str})


def figures(dataset: str, model: str, setting: str) -> dict[str, Figure]:
    """Published figures by metric, such as ``dsc_average``; empty if there are none.

    Args:
      dataset: such as ``curated_busi``.
      model: a network's name in `models.REGISTRY`.
      setting: the row's name in the tables, such as ``MT+PR+DO``, see `setting_name`.
    """
    table = _table()
    rows = table[(table.dataset == dataset) & (table.model == model) & (table.setting == setting)]
    return {row.metric: Figure(row.table, row.mean, row.sd) for row in rows.itertuples(index=False)}


def setting_name(tasks: tuple[str, ...], *, oversample: bool, refined: bool) -> str:
    """The name that the published tables give a configuration, such as ``MT+PR+DO``."""
    if len(tasks) == 2:
        name = "MT"
    else:
        name = {"seg": "ST(Seg)", "cls": "ST(Cls)"}[tasks[0]]
    return name + "+PR" * refined + "+DO" * oversample


def recipe(dataset: str) -> dict[str, Any]:
    """The published recipe for ``dataset`` by configuration field, without the network's width.

    A dataset without published figures gets the recipe of Curated BUSI.
    """
    return _RECIPE | _RECIPE_CHANGES.get(dataset, {})


def single_task_recipe(tasks: tuple[str, ...], model: str) -> dict[str, Any]:
    """Settings of the released single-task scripts that differ from the recipe, by field.

    The segmentation script tests the weights of the last epoch and fills the holes in masks before
    scoring. The nnU-Net classifier applies softmax before a focal loss that applies it again.

    Args:
      tasks: the run's tasks; with both tasks nothing differs.
      model: a key of `models.REGISTRY`.
    """
    if tuple(tasks) == (types.SEGMENTATION,):
        return {"train.keep": "last", "eval.fill_holes": True}
    if tuple(tasks) == (types.CLASSIFICATION,) and model == "nnunet":
        return {"loss.double_softmax": True}
    return {}


def network_options(model: str) -> dict[str, Any]:
    """Options of the published runs of Table 4 that differ from a network's defaults, by field.

    The Residual U-Net ran without its skip connections and with dropout at test time. Swin UNETR,
    like all networks, took the grey values unchanged.

    Args:
      model: a key of `models.REGISTRY`.
    """
    return {f"model.{name}": value for name, value in _OPTIONS.get(model, {}).items()}


def departures(flat_config: dict[str, Any]) -> list[str] | None:
    """Fields that differ from the published recipe, as text; None for a dataset without one.

    Args:
      flat_config: the configuration by field, see `run_folder.flatten`.
    """
    dataset = flat_config["data.name"]
    if dataset not in _RECIPE_CHANGES:
        return None
    width = _WIDTHS.get(flat_config["model.name"], "the network's own")
    model, tasks = flat_config["model.name"], tuple(flat_config["tasks"])
    fields = recipe(dataset) | {"model.width": width} | single_task_recipe(tasks, model)
    for name, value in _OPTIONS.get(model, {}).items():
        # None stands for the network's default.
        field = f"model.{name}"
        fields[field] = value
        if flat_config.get(field) is None:
            flat_config = flat_config | {field: getattr(models.REGISTRY[model], name)}
    # An empty list stands for all classes or folds.
    whole = {f: fields[f] for f in ("data.classes", "data.folds") if not flat_config.get(f)}
    flat_config = flat_config | whole
    # None stands for the network's default in its options, for the published value elsewhere.
    found = [
        f"{field} = {flat_config[field]} instead of {value}"
        for field, value in fields.items()
        if flat_config.get(field) is not None and flat_config[field] != value
    ]
    if isinstance(flat_config.get("seed"), list):
        found.append(f"the mean of {len(flat_config['seed'])} networks instead of one")
    return found
