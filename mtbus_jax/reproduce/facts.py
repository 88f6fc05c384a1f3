"""What a reader of a table must know about its runs: scale, leaks, hardware."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mtbus_jax import data, splits
from mtbus_jax.evaluation import published
from mtbus_jax.pages import NOTICE
from mtbus_jax.reproduce.plan import Study
from mtbus_jax.reproduce.rows import TableRun
from mtbus_jax.training import run_files, run_folder, run_splits

CITATION = (
    "Aumente-Maestro, Díez, Remeseiro: A multi-task framework for breast cancer segmentation and "
    "classification in ultrasound imaging. Comput. Methods Programs Biomed. 260 (2025) 108540."
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the runs behind a table have in common, and how they depart from the paper.

    Attributes:
      scale: departures from the published recipe in short, for a title; empty if there are none.
      departures: the same, field by field.
      split: how the folds are drawn.
      folds: the folds that were used.
      leaks: by dataset, number of test images that share a patient or a group of near-duplicates
        with training or validation images of their fold, and number of all test images.
      hardware: one line for each kind of machine.
      runs: names of the run folders.
      command: the command that wrote the table.
    """

    scale: str
    departures: tuple[str, ...]
    split: str
    folds: tuple[int, ...]
    leaks: dict[str, tuple[int, int]]
    hardware: tuple[str, ...]
    runs: tuple[str, ...]
    command: str

    def scaled(self, title: str) -> str:
        """``title``, with the scale in brackets where there is one."""
        return f"{title} ({self.scale})" if self.scale else title

    @property
    def warnings(self) -> list[str]:
        """What must stand above any figure of these runs, as Markdown paragraphs."""
        warnings = []
        if self.departures:
            warnings.append(
                "**Not the published recipe**, so the published figures are not comparable: "
                + "; ".join(self.departures)
                + "."
            )
        for dataset, (leaking, images) in self.leaks.items():
            if leaking:
                warnings.append(
                    f"**Leak:** {leaking} of {images} test images of {dataset} share a patient or "
                    "a group of near-duplicates with training or validation images of their fold. "
                    "`--config.data.split=grouped` avoids it."
                )
        return warnings

    @property
    def origin(self) -> list[str]:
        """Command, runs, hardware and source, as lines of Markdown."""
        lines = ["```", self.command, "```", "", *(f"- `{name}`" for name in self.runs), ""]
        lines += [f"Trained on {line}." for line in self.hardware]
        return [*lines, "", f"Published figures and method: {CITATION}", "", f"{NOTICE}.", ""]


def gather(study: Study, runs: tuple[TableRun, ...], *, command: str) -> Facts:
    """The facts about ``runs``, at least one, from their configurations and run folders."""
    configs = [
        run_folder.flatten(study.config(run).to_dict()) | {"data.split": _split(study, run)}
        for run in runs
    ]
    departures = _unique(_departures(config) for config in configs)
    return Facts(
        scale=_scale(configs, departures),
        departures=departures,
        split=configs[0]["data.split"],
        folds=tuple(configs[0]["data.folds"]),
        leaks=_leaks(study, runs),
        hardware=_unique(hardware(study.directory(run)) for run in runs),
        runs=tuple(run.name for run in runs),
        command=command,
    )


def _split(study: Study, run: TableRun) -> str:
    """The split that a run has, or will have once it is trained."""
    directory, config = study.directory(run), study.config(run)
    if (directory / run_splits.SPLITS).exists():
        return run_splits.kind(run_files.read_splits(directory))
    return splits.GIVEN if data.leaves_split_open(config) else config.data.split


def _unique(groups) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for group in groups for text in group))


def _departures(config: dict[str, Any]) -> list[str]:
    # Table 4 varies the classes on purpose.
    return published.departures({k: v for k, v in config.items() if k != "data.classes"}) or []


def _scale(configs: list[dict[str, Any]], departures: tuple[str, ...]) -> str:
    if not departures:
        return ""
    config, recipe = configs[0], published.recipe(configs[0]["data.name"])
    phrases = []
    if config["data.image_size"] != recipe["data.image_size"]:
        phrases.append("{}×{} pixels".format(*config["data.image_size"]))
    if any(text.startswith("model.width") for text in departures):
        phrases.append(f"width {config['model.width']}")
    if config["train.epochs"] != recipe["train.epochs"]:
        phrases.append(f"{config['train.epochs']} of {recipe['train.epochs']} epochs")
    if config["data.folds"] != recipe["data.folds"]:
        phrases.append(f"{len(config['data.folds'])} of {len(recipe['data.folds'])} folds")
    return ", ".join(phrases) + ": " * bool(phrases) + "not the published recipe"


def _leaks(study: Study, runs: tuple[TableRun, ...]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for run in runs:
        path = study.directory(run) / run_splits.SPLITS
        if path.exists():
            content = run_files.read_splits(path.parent)
            folds = study.config(run).data.folds
            leaking = sum(content["leaking_test_images"][fold] for fold in folds)
            images = sum(content["test_images"][fold] for fold in folds)
            # Runs may use different classes; the one with the most leaking images counts.
            found[run.dataset] = max((leaking, images), found.get(run.dataset, (0, 0)))
    return found


def hardware(directory: Path) -> list[str]:
    """The hardware that a run folder was trained on, one line; empty if nothing was trained."""
    path = directory / run_folder.ENVIRONMENT
    if not path.exists():
        return []
    content = run_files.read_environment(directory)
    unknown = "(unknown)"
    devices = ", ".join(content.get("devices", [unknown]))
    return [
        f"{devices}; {content.get('cpu_count', unknown)} CPU cores; Python "
        f"{content.get('python', unknown)}, JAX {content.get('packages', {}).get('jax', unknown)}"
    ]
