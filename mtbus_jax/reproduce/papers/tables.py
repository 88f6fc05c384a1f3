"""The figures that two other papers publish, and which of our networks belongs to which row.

ACSNet: He et al. 2024 (Comput. Biol. Med., PII S0010482524004037). Residual-U-Net MTL: Jignesh
Chowdary et al. 2022 (Ultrasonic Imaging 44(1), 3–12, doi 10.1177/01617346221075769). The figures
are in ``published.csv``: means, and standard deviations over folds where they are printed.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

from mtbus_jax import types

_SEG, _CLS = (types.SEGMENTATION,), (types.CLASSIFICATION,)
_SWITCHES = ("gates", "channel_attention", "deformable_attention", "multi_scale")


class Published(NamedTuple):
    """One published figure: mean and standard deviation over folds, None where none is printed."""

    mean: float
    sd: float | None


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """One row.

    Attributes:
      name: its name in ``published.csv`` and in ``--runs``.
      label: its name in the paper.
      fields: fields in which its configuration differs from the paper's; None for a network that
        this library lacks.
    """

    name: str
    label: str
    fields: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
      paper: a key of `PAPERS`.
      number: in the paper.
      title: what it shows.
      metrics: its columns, keys of `METRICS`.
      rows: from top to bottom.
      note: a remark on it, or empty.
    """

    paper: str
    number: int
    title: str
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    note: str = ""

    def published(self, row: PaperRow) -> dict[str, Published]:
        """The published figures of a row by metric, empty if none is known."""
        return _published().get((self.paper, self.number, row.name), {})


METRICS = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hausdorff95": "HD95 (px)",
    "surface_distance": "ASD (px)",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "parameters": "parameters",
}


@dataclasses.dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes:
      config: name of the shipped configuration that follows its recipe.
      citation: one line.
      notes: paragraphs on why its figures are not comparable.
      soft_borders: whether masks are scored as ACSNet's code does.
      tables: by number.
    """

    config: str
    citation: str
    notes: tuple[str, ...]
    soft_borders: bool
    tables: dict[int, PaperTable]


@functools.cache
def _published() -> dict[tuple[str, int, str], dict[str, Published]]:
    found: dict[tuple[str, int, str], dict[str, Published]] = {}
    path = Path(__file__).with_name("published.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            key = line["paper"], int(line["table"]), line["row"]
            sd = float(line["sd"]) if line["sd"] else None
            found.setdefault(key, {})[line["metric"]] = Published(float(line["mean"]), sd)
    return found


def _acsnet_row(name: str, label: str, tasks: tuple[str, ...], *parts: str) -> PaperRow:
    switches = {f"model.{switch}": switch in parts for switch in _SWITCHES}
    return PaperRow(name, label, {"tasks": tasks, **switches})


_BOTH = types.TASKS
# We infer which switch each short name stands for, see docs/networks.md.
_ACSNET_ROWS = (
    _acsnet_row("unet", "UNet", _SEG),
    _acsnet_row("clsnet", "ClsNet", _CLS),
    _acsnet_row("cunet", "CUNet", _BOTH),
    _acsnet_row("cu_g", "CU_G", _BOTH, "gates"),
    _acsnet_row("c_a", "C_A", _BOTH, "channel_attention"),
    _acsnet_row("cu_a", "CU_A", _BOTH, "deformable_attention"),
    _acsnet_row("cu_ga", "CU_GA", _BOTH, "gates", "deformable_attention"),
    _acsnet_row("c_ms", "C_MS", _BOTH, "multi_scale"),
    _acsnet_row("c_ams", "C_AMS", _BOTH, "channel_attention", "multi_scale"),
    _acsnet_row("acsnet", "ACSNet", _BOTH, *_SWITCHES),
)
_MASKS = ("dice", "jaccard", "hausdorff95", "surface_distance")
_CLASSES = ("accuracy", "precision", "recall")
_PLACE = (
    "Only for Table 2 is it known which figures the paper prints in it; tables 1, 4 and 5 are put "
    "together here by topic."
)

PAPERS: dict[str, Paper] = {
    "acsnet": Paper(
        "acsnet",
        "He et al.: ACSNet. Comput. Biol. Med. 2024, PII S0010482524004037.",
        (
            "Only the first mask file of an image is read; BUSI has 18 more, and what they outline "
            "counts as background.",
            "Test masks are scaled down by bilinear interpolation and are then compared with "
            "exactly 1 and exactly 0. Pixels of the soft border count nowhere, so that most errors "
            "at the outline go unnoticed.",
            "HD95 and the average surface distance are 0, the best value, where a mask is empty; "
            "the latter goes from the prediction to the truth only.",
            "The validation fold is the test fold: what is reported is the best epoch on it, by "
            "0.7 · Dice + 0.3 · accuracy. configs/acsnet.py tests the last epoch, so this part of "
            "the difference is not measured here.",
            "Folds are drawn at random over an unsorted listing, whatever near-duplicates there "
            "are, and cannot be drawn again. configs/acsnet.py keeps near-duplicates in one fold.",
            "Standard deviations are with n, ours with n − 1: 1.118 times as much for five folds.",
        ),
        True,
        {
            1: PaperTable(
                "acsnet", 1, "the networks of the ablation", ("parameters",), _ACSNET_ROWS,
                "Parameters for two classes. The published 42.99 million come from a counter that "
                "saw the encoder twice. " + _PLACE,
            ),
            2: PaperTable(
                "acsnet", 2, "ablation on BUSI", (*_MASKS, "accuracy"), _ACSNET_ROWS,
            ),
            4: PaperTable(
                "acsnet", 4, "beside other networks on BUSI", (*_MASKS, *_CLASSES),
                (
                    PaperRow("transunet", "TransUNet"),
                    PaperRow("qu", "Qu et al."),
                    _ACSNET_ROWS[-1],
                ),
                _PLACE,
            ),
            5: PaperTable(
                "acsnet", 5, "UDIAT", (*_MASKS, *_CLASSES), _ACSNET_ROWS[-1:],
                "UDIAT is available from its owners on request; a run on it uses "
                "--config.data.name=FOLDER. " + _PLACE,
            ),
        },
    ),
    "residual_unet": Paper(
        "residual_mtl",
        "Jignesh Chowdary et al.: Residual-U-Net MTL. Ultrasonic Imaging 44(1), 2022, 3–12, doi "
        "10.1177/01617346221075769.",
        (
            "A mean of F1 over classes, folds or both cannot exceed the harmonic mean of the means "
            "of precision and recall, with whatever weights: the harmonic mean is concave. The "
            "three published figures do exceed it.",
            "The numbers of benign and normal images are swapped in its text, and it describes "
            "neither the training for three classes nor how its five folds are drawn.",
        ),
        False,
        {
            1: PaperTable(
                "residual_unet", 1, "three classes of BUSI", ("dice", *_CLASSES, "f1"),
                (PaperRow("residual_mtl", "Residual-U-Net MTL", {}),),
                "Figures of its text; it has no such table.",
            )
        },
    ),
}  # fmt: skip
