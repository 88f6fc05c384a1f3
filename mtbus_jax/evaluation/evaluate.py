"""Evaluation of one fold: best weights → one row per test image → ``cases.csv``.

The tested prediction is the one for the unchanged image, as in the published work. With
``eval.average`` it is the mean over the flipped and turned versions of the image, the unchanged one
included. For an ensemble it is the mean over the networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import scipy.ndimage

from mtbus_jax import files, refine, splits, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions, tables
from mtbus_jax.metrics import segmentation
from mtbus_jax.runtime import parallel
from mtbus_jax.training import run_files, run_folder, run_splits, steps
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.evaluator import Evaluator
from mtbus_jax.training.experiment import Experiment

REFINED = "refined_"  # prefix of the columns after prediction refining


def evaluate_fold(
    experiment: Experiment,
    evaluator: Evaluator,
    cases: types.Cases,
    split: splits.Split,
    *,
    fold: int,
    directory: Path,
    origin: dict[str, str],
    networks: Sequence[Path] | None = None,
) -> pd.DataFrame:
    """Tests the best weights of a fold; process 0 writes ``cases.csv`` and the predictions.

    The predictions on the validation images are kept too: whatever is fitted after training
    (calibration, thresholds) must be fitted on them.

    Args:
      experiment: the run's experiment.
      evaluator: the evaluator of the run and the dataset.
      cases: the dataset.
      split: indices of this fold.
      fold: the fold's number.
      directory: the fold's folder.
      origin: fingerprints of data and split, see `Checkpoints`.
      networks: run folders of an ensemble's networks; None for the weights in ``directory``.

    Returns:
      One row per test image, see `case_rows`. Without test images, an empty table with the columns
      ``uid, fold, label``.

    Raises:
      UserError: if the fold was not trained, or was trained on other data.
    """
    settings = experiment.config.eval
    folders = [directory] if networks is None else [run_folder.fold_dir(n, fold) for n in networks]
    like = experiment.abstract_state()
    networks_variables = []
    for folder in folders:
        with Checkpoints(folder / "checkpoints", origin) as checkpoints:
            variables = checkpoints.restore_best(like)
        networks_variables.append(parallel.replicate(variables, experiment.devices))
    rows = pd.DataFrame(columns=["uid", "label"])
    for part in stored_predictions.NAMES:
        index = getattr(split, part)
        if not len(index):
            continue
        # For each network: the images as they are, then flipped and turned.
        versions = [
            list(evaluator.symmetric_predictions(variables, index, cases))
            if settings.tta
            else [evaluator(variables, index, predictions=True)[1]]
            for variables in networks_variables
        ]
        members = [member for of_network in versions for member in of_network]
        as_they_are = [of_network[0] for of_network in versions]
        answer = mean_prediction(members if settings.average else as_they_are)
        if settings.fill_holes:
            answer = with_holes_filled(answer)
        if parallel.is_primary():
            stored_predictions.write(directory, part, cases.uid[index], members, answer=answer)
        if part == "test":
            rows = case_rows(cases.take(index), answer)
    rows.insert(1, "fold", fold)
    if parallel.is_primary():
        files.write_text(directory / run_folder.CASES, rows.to_csv(index=False))
    return rows


def mean_prediction(members: Sequence[steps.Predictions]) -> steps.Predictions:
    """Joins several predictions of the same images by the mean of their probabilities.

    Args:
      members: numpy arrays of the same shapes; a single member is returned unchanged.

    Returns:
      The mean tumour probability, and the logarithm of the mean class probabilities as class
      logits.
    """
    if len(members) == 1:
        return members[0]
    probability = logits = None
    if members[0].probability is not None:
        probability = np.mean([member.probability for member in members], axis=0)
    if members[0].class_logits is not None:
        each = [scipy.special.log_softmax(member.class_logits, axis=-1) for member in members]
        # The mean itself may underflow to 0, so its logarithm is computed directly.
        logits = scipy.special.logsumexp(each, axis=0) - np.log(len(members))
    return steps.Predictions(probability, logits)


def with_holes_filled(predictions: steps.Predictions) -> steps.Predictions:
    """Turns background that a mask encloses into tumour, as in the released segmentation script.

    The probability of a filled pixel is raised to just above the threshold, so that all readers of
    the predictions find the filled mask. A hole is background that no path of edge neighbours
    connects to the border.

    Args:
      predictions: numpy arrays; predictions without masks are returned unchanged.
    """
    if predictions.probability is None:
        return predictions
    mask = predictions.probability[..., 0] > types.MASK_THRESHOLD
    filled = np.stack([scipy.ndimage.binary_fill_holes(each) for each in mask])
    above = np.nextafter(np.float32(types.MASK_THRESHOLD), np.float32(1))
    raised = np.where((filled & ~mask)[..., None], above, predictions.probability)
    return predictions._replace(probability=raised)


def case_rows(cases: types.Cases, predictions: steps.Predictions) -> pd.DataFrame:
    """One row per image with classes, probabilities and every metric.

    Columns: ``uid, label`` (class names); with the classification task ``predicted`` and
    ``probability_<class>``; with the segmentation task ``true_pixels``, ``predicted_pixels`` and
    the metrics of `segmentation.METRICS`; with both, ``incoherent`` (mask and class disagree on
    whether there is a lesion) and, where a class means "no lesion", ``refined_predicted`` and
    ``refined_<metric>``. Undefined metrics are empty cells. So are the label of an image of unknown
    class and the metrics of an image with an unknown mask.

    Args:
      cases: the images, n of them.
      predictions: numpy arrays in the same order.
    """
    names, normal = np.array(cases.classes.names), cases.classes.normal
    label = np.where(cases.label_known, names[cases.label], "")
    columns: dict[str, np.ndarray] = {"uid": cases.uid, "label": label}
    has_mask = predictions.probability is not None
    has_class = predictions.class_logits is not None
    if has_class:
        columns["predicted"] = names[np.argmax(predictions.class_logits, axis=-1)]
        probability = scipy.special.softmax(predictions.class_logits, axis=-1)
        for code, name in enumerate(names):
            columns[f"probability_{name}"] = probability[:, code]
    if has_mask:
        truth = cases.mask[..., 0] > 0
        mask = predictions.probability[..., 0] > types.MASK_THRESHOLD
        known = cases.mask_known
        columns["true_pixels"] = _where(known, truth.sum(axis=(1, 2)))
        columns["predicted_pixels"] = mask.sum(axis=(1, 2))
        columns |= _segmentation_columns(truth, mask, known)
    if has_mask and has_class:
        class_id = np.argmax(predictions.class_logits, axis=-1)
        columns["incoherent"] = np.asarray(refine.incoherent(mask, class_id, normal=normal))
    if has_mask and has_class and normal is not None:
        refined = refine.refine(mask, predictions.class_logits, normal=normal)
        refined_mask, refined_class = map(np.asarray, refined)
        columns[f"{REFINED}predicted"] = names[refined_class]
        refined_columns = _segmentation_columns(truth, refined_mask, known)
        columns |= {REFINED + name: values for name, values in refined_columns.items()}
    return pd.DataFrame(columns)


def _segmentation_columns(
    truth: np.ndarray, mask: np.ndarray, known: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        name: _where(known, np.array([metric(t, m) for t, m in zip(truth, mask, strict=True)]))
        for name, metric in segmentation.METRICS.items()
    }


def _where(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values, undefined (NaN) where the truth is not known."""
    return values if known.all() else np.where(known, values, np.nan)


def read_cases(workdir: Path, *, splits_of: Path | None = None) -> pd.DataFrame:
    """Reads the rows of all evaluated folds of a run; no rows if no fold has a test image.

    Args:
      workdir: the run folder.
      splits_of: run folder that holds the run's ``splits.json``; None for ``workdir`` itself.

    Raises:
      UserError: if no fold has been evaluated, or a table is broken or does not list the test
        images of its fold.
    """
    paths = {
        fold: run_folder.fold_dir(workdir, fold) / run_folder.CASES
        for fold in run_folder.fold_numbers(workdir)
    }
    paths = {fold: path for fold, path in paths.items() if path.exists()}
    if not paths:
        raise UserError(
            f"{workdir} holds no {run_folder.CASES} yet: no fold has been trained and tested."
        )
    folder = splits_of or workdir
    folds, classes = None, types.CLASSES
    if (folder / run_folder.CONFIG).exists():
        classes = types.Classes.of(run_files.read_config(folder)["data"])
    if (folder / run_splits.SPLITS).exists():
        folds = run_files.read_splits(folder)["folds"]
    found = [_read_fold(path, fold, folds, classes) for fold, path in paths.items()]
    return pd.concat([rows for rows in found if len(rows)] or found[:1], ignore_index=True)


def _read_fold(
    path: Path, fold: int, folds: list[dict] | None, classes: types.Classes
) -> pd.DataFrame:
    """The rows of a fold, checked against the splits where they are known."""
    mend = f"Run main.py --mode=evaluate --workdir={path.parents[1]} to write it again"
    required = ("uid", "label") if folds is None else ("uid", "label", "fold")
    rows = tables.read(path, required, mend=mend)
    unknown = set(rows.label.dropna()) - set(classes.names)
    if unknown:
        raise UserError(f"{path} is broken: {min(map(str, unknown))!r} is not a class. {mend}.")
    if folds is None:
        return rows
    if fold >= len(folds):
        raise UserError(
            f"{path.parent} is a stray folder: {run_splits.SPLITS} has the folds 0 to "
            f"{len(folds) - 1}. Remove it."
        )
    test = set(folds[fold].get("test", ()))
    differing = sorted(test ^ set(rows.uid))
    if differing or (rows.fold != fold).any():
        what = f"{differing[0]!r} is" if differing else "rows of other folds are"
        raise UserError(
            f"{path} has {len(rows)} rows, but fold {fold} has {len(test)} test images in "
            f"{run_splits.SPLITS}; {what} in only one of the two. {mend}."
        )
    return rows
