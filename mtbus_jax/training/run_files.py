"""The JSON files of a run folder: one reader for each, which knows what the file must hold.

Every command reads them here, so that all of them refuse a damaged or foreign file with its name,
what is wrong with it and how to fix it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtbus_jax import files
from mtbus_jax.schema import Each

CONFIG, ENVIRONMENT, SPLITS = "config.json", "environment.json", "splits.json"
SUMMARY = "summary.json"
# Of a run whose encoder started from a file of weights: what was not loaded.
ENCODER = "encoder.json"

_NUMBER_OR_NULL = (float, None)
# Every run has had these fields. Later ones have a default, see `run_folder.load_config`, and each
# has the type that it has in configs/base.py.
_CONFIG = {
    "name": str,
    "tasks": [str],
    "seed": (int, [int]),  # of an ensemble, one for each network
    "data": {
        "name": str,
        "split": str,
        "folds": [int],
        "classes?": [str],
        "class_names?": [str],
        "normal_class?": str,
        "fold_count?": int,
        "validation?": bool,
        "folds_file?": str,
        "image_size": [int],
        "resize?": str,
        "enhancement?": str,
        "data_dir?": str,
        "manual_dir?": str,
        "arrays_file?": str,
        "cache_dir?": str,
    },
    "model": {"name": str},
    "loss": {
        "weight": float,
        "weighting?": str,
        "lossnet?": float,
        "lossnet_weights?": str,
        "gamma": float,
        "dice?": str,
        "dice_smoothing?": float,
        "class_weights?": [float],
        "cross_entropy?": float,
        "label_smoothing?": float,
        "double_softmax?": bool,
        "reconstruction?": float,
    },
    "train": {
        "epochs": int,
        "batch_size": int,
        "oversample": bool,
        "oversample_rule?": str,
        "augment": bool,
        "augmentation?": str,
        "rotation_fill?": str,
        "elastic?": float,
        "speckle?": float,
        "mixup?": float,
        "small_share?": float,
        "small_scale?": float,
        "start_from?": str,
        "learning_rate": float,
        "adam_b1?": float,
        "adam_b2?": float,
        "adam_epsilon?": float,
        "weight_decay?": float,
        "clip_norm?": float,
        "encoder_rate?": float,
        "course?": str,
        "warmup?": float,
        "cosine_floor?": float,
        "decay_factor?": float,
        "decay_epochs?": int,
        "l2?": float,
        "plateau_factor?": float,
        "plateau_patience?": int,
        "plateau_threshold?": float,
        "min_learning_rate?": float,
        "stop_patience": int,
        "keep?": str,
        "average_decay?": float,
        "compute_dtype?": str,
        "devices": int,
        "steps_per_call?": int,
        "checkpoint_seconds?": float,
    },
    "eval": {
        "batch_size": int,
        "refine": bool,
        "tta?": bool,
        "average?": bool,
        "fill_holes?": bool,
    },
    "log?": {"progress?": bool, "tensorboard?": bool},
}
_ENVIRONMENT = {
    "python?": str,
    "platform?": str,
    "cpu_count?": (int, None),
    "devices?": [str],
    "processes?": int,
    "packages?": Each(str),
    "command?": [str],
}
_ENCODER = {"file": str, "unused": [str], "drawn": [str]}
_SPLITS = {
    "dataset": str,
    "split": str,
    "edited?": bool,
    "test_images?": [int],
    "leaking_test_images?": [int],
    "leaking_validation_images?": [int],
    "unused_images?": [int],
    "not_compared?": str,
    "folds": [Each([str])],
}
_TRAINED = {"train.epochs": int, "train.stop_patience": int}
_FIGURE = {
    "mean": _NUMBER_OR_NULL,
    "sd": _NUMBER_OR_NULL,
    "folds": [_NUMBER_OR_NULL],
    "n": [int],
    "published": (Each((str, float, None)), None),
}
_SUMMARY = {
    "name": str,
    "dataset": str,
    "model": str,
    "tasks": [str],
    "image_size": [int],
    "split": str,
    "folds": [int],
    "folds_of_split": int,
    "test_images": int,
    "leaking_test_images": int,
    "departures_from_published_recipe": ([str], None),
    "results": Each({"published_setting": (str, None), "figures": Each(_FIGURE)}),
    "class_names": [str],
    "confusion_counts": Each([[int]]),
    "configuration?": str,
    "encoder_weights?": str,
    "encoder_start?": _ENCODER,
    "networks?": [Each(float)],
    "differing_settings?": [str],
    "validation_images?": int,
    "unused_images?": int,
    "leaking_validation_images?": int,
    "started_from?": str,
    "not_compared?": str,
}


def read_config(workdir: Path) -> dict[str, Any]:
    """The content of ``config.json``, as written.

    Raises:
      UserError: if it is missing, broken or incomplete.
    """
    path = workdir / CONFIG
    return files.read_json(path, _CONFIG, mend="Restore the file, or train in another --workdir")


def read_splits(workdir: Path, *, counted: bool = True) -> dict[str, Any]:
    """The content of ``splits.json``: the images of each fold by their ids.

    Args:
      workdir: the run folder.
      counted: whether its counts must match its folds. Someone who edits the folds leaves the
        counts as they were; the next start counts again.

    Raises:
      UserError: if it is missing, broken or incomplete.
    """
    path = workdir / SPLITS
    mend = "Restore the file, or remove it to have the folds drawn again"
    content = files.read_json(path, _SPLITS, mend=mend)
    count = len(content["folds"])
    for field in ("test_images", "leaking_test_images", "leaking_validation_images"):
        if counted and len(content.get(field, content["folds"])) != count:
            raise files.broken(path, f"{field} is not as long as folds", mend)
    return content


def read_trained(path: Path) -> dict[str, Any]:
    """The content of a fold's ``trained.json``: the settings it was trained with.

    Args:
      path: of the file.

    Raises:
      UserError: if it is broken or incomplete.
    """
    mend = "Restore the file, or remove it: nothing else depends on it"
    return files.read_json(path, _TRAINED, mend=mend)


def read_environment(workdir: Path) -> dict[str, Any]:
    """The content of ``environment.json``: hardware and versions.

    Raises:
      UserError: if it is missing or broken.
    """
    mend = "Restore the file, or remove it: a run that goes on writes it again"
    return files.read_json(workdir / ENVIRONMENT, _ENVIRONMENT, mend=mend)


def read_encoder(workdir: Path) -> dict[str, Any] | None:
    """The content of ``encoder.json``: the fields of `weights.Start`; None if there is none.

    Raises:
      UserError: if it is broken.
    """
    path = workdir / ENCODER
    mend = "Restore the file, or remove it: it is only shown"
    return files.read_json(path, _ENCODER, mend=mend) if path.exists() else None


def read_summary(workdir: Path) -> dict[str, Any]:
    """The content of ``summary.json``: all figures of a run.

    Raises:
      UserError: if it is missing, broken or incomplete.
    """
    mend = f"Run main.py --mode=evaluate --workdir={workdir} to write it again"
    return files.read_json(workdir / SUMMARY, _SUMMARY, mend=mend)
