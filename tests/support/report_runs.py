"""Run folders made by hand, for tests of the report: two folds, mostly right, some errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import tiny

from mtbus_jax import files, splits, types
from mtbus_jax.evaluation import evaluate, stored_predictions, summary
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.training import run_folder, run_splits, steps

FOLDS = 2
EPOCHS = 3


def make_cases(count: int = 96, **changes) -> types.Cases:
    """The tiny dataset under a name with published figures."""
    return dataclasses.replace(tiny.make_cases(count), name="curated_busi", **changes)


def make_folds(count: int) -> list[splits.Split]:
    """Two test parts of a third each; the rest trains one fold and validates the other."""
    parts = np.array_split(np.random.default_rng(0).permutation(count), 3)
    return [splits.Split(parts[2], parts[1], parts[0]), splits.Split(parts[2], parts[0], parts[1])]


def predict(cases: types.Cases, rng: np.random.Generator, tasks=types.TASKS):
    """Three versions: every fifth image has another class, every seventh an empty mask."""
    place = np.arange(len(cases))
    said = np.where(place % 5 == 0, (cases.label + 1) % 3, cases.label)
    shifted = np.roll(cases.mask, 1, axis=2) > 0
    blank = (place % 7 == 0)[:, None, None, None]
    mask = np.where(blank, 0.0, np.where(shifted, 0.8, 0.1))
    mask[cases.label == types.NORMAL, 3:5, 2:6] = 0.9  # a false lesion
    members = []
    for _ in range(3):
        noisy = np.clip(mask + 0.1 * rng.normal(size=mask.shape), 0, 1).astype(np.float32)
        logits = (2 * np.eye(3)[said] + rng.normal(size=(len(cases), 3))).astype(np.float32)
        members.append(
            steps.Predictions(noisy if "seg" in tasks else None, logits if "cls" in tasks else None)
        )
    return members


def write_run(
    workdir: Path, cases: types.Cases | None = None, *, tasks=types.TASKS, seed: int = 0
) -> types.Cases:
    """A tested run folder without weights; returns its dataset."""
    cases = make_cases() if cases is None else cases
    folds = make_folds(len(cases))
    workdir.mkdir(parents=True, exist_ok=True)
    config = tiny.make_config()
    config.name = workdir.name
    config.data.name = cases.name
    config.data.folds = tuple(range(FOLDS))
    config.tasks = tasks
    config.model = {"name": "unetpp", "width": 4}
    files.write_json(workdir / run_folder.CONFIG, config.to_dict())
    files.write_json(workdir / run_folder.ENVIRONMENT, {"python": "3.x", "devices": ["cpu"]})
    run_splits.write_splits(workdir, cases, "published", folds)
    rng = np.random.default_rng(seed)
    for number, fold in enumerate(folds):
        directory = run_folder.fold_dir(workdir, number)
        directory.mkdir()
        for part in stored_predictions.NAMES:
            index = getattr(fold, part)
            members = predict(cases.take(index), rng, tasks)
            stored_predictions.write(directory, part, cases.uid[index], members, answer=members[0])
            if part == "test":
                tested = stored(directory)
        rows = evaluate.case_rows(cases.take(fold.test), tested)
        rows.insert(1, "fold", number)
        rows.to_csv(directory / run_folder.CASES, index=False)
        lines = [json.dumps(epoch_row(number, epoch)) for epoch in range(1, EPOCHS + 1)]
        (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    measure.write_trust(workdir, cases, folds)
    summary.write_summary(workdir)
    return cases


def stored(directory: Path) -> steps.Predictions:
    """The test predictions as they were kept."""
    kept = stored_predictions.read(directory)
    return steps.Predictions(
        None if kept.probability is None else kept.probability[..., None],
        None if kept.class_logits is None else kept.class_logits[0],
    )


def epoch_row(fold: int, epoch: int) -> dict[str, float]:
    """A line of metrics.jsonl; the second epoch is the best."""
    row = {"epoch": epoch, "learning_rate": 1e-3 / epoch, "best_epoch": min(epoch, 2)}
    for k, part in enumerate(("train", "validation")):
        row[f"{part}_loss"] = 2.0 - 0.3 * epoch + 0.1 * fold + 0.05 * k
        row[f"{part}_dice"] = 0.2 * epoch + 0.01 * fold + 0.02 * k
        row[f"{part}_accuracy"] = 0.25 * epoch + 0.01 * fold - 0.02 * k
    return row


def fit_splits(workdir: Path) -> None:
    """Makes the test images of ``splits.json`` those of the tables, which a test has changed."""
    content = files.read_json(workdir / run_splits.SPLITS)
    for fold in range(FOLDS):
        path = run_folder.fold_dir(workdir, fold) / run_folder.CASES
        content["folds"][fold]["test"] = pd.read_csv(path, dtype={"uid": str}).uid.tolist()
    files.write_json(workdir / run_splits.SPLITS, content)


def multiply(workdir: Path, cases: types.Cases, times: int) -> types.Cases:
    """Repeats every test image of a run under new names, predictions and trust with it."""
    names = [f"_{k}" for k in range(times)]

    def repeated(path: Path) -> None:
        rows = pd.read_csv(path, keep_default_na=False)
        rows = [rows.assign(uid=rows.uid + name) for name in names]
        pd.concat(rows).to_csv(path, index=False)

    for fold in range(FOLDS):
        directory = run_folder.fold_dir(workdir, fold)
        repeated(directory / run_folder.CASES)
        path = directory / stored_predictions.NAMES["test"]
        with np.load(path) as arrays:
            many = {"uid": np.concatenate([np.char.add(arrays["uid"], name) for name in names])}
            for name in ("probability", "mean_probability", "disagreement"):
                many[name] = np.concatenate([arrays[name]] * times)
            many["class_logits"] = np.concatenate([arrays["class_logits"]] * times, axis=1)
        np.savez_compressed(path, **many)
    repeated(workdir / measure.ROWS)
    fit_splits(workdir)
    summary.write_summary(workdir)
    many = cases.take(np.tile(np.arange(len(cases)), times))
    uid = np.concatenate([np.char.add(cases.uid, name) for name in names])
    return dataclasses.replace(many, uid=uid)
