"""Writes what the PyTorch side of time_to_published.py trains on: this library's own batches.

`augmented_batches` draws what training with this library draws, image by image, so both sides see
the same pixels in the same order. `write` adds the learning rate of each step, the initial weights
of decoder and head, and the first three losses without dropout, which both sides must agree on.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import data, models, oversampling, splits, types
from mtbus_jax.models import weights
from mtbus_jax.training import device_data, fold, run_folder, run_splits, schedule, steps
from mtbus_jax.training.evaluator import make_batches
from mtbus_jax.training.experiment import Experiment, fold_keys

# What the peer computes; a recipe with another value has no peer.
PEER = {
    "tasks": list(types.TASKS),
    "data.enhancement": "none",
    "data.validation": True,
    "model.name": "lite_unet",
    "model.encoder": "lite0",
    "model.encoder_weights": weights.IMAGENET,
    "model.deep_supervision": None,
    "loss.weighting": "fixed",
    "loss.gamma": 0.0,
    "loss.dice": "squared",
    "loss.dice_smoothing": 1.0,
    "loss.lossnet": 0.0,
    "loss.class_weights": [],
    "loss.double_softmax": False,
    "train.augment": True,
    "train.start_from": "",
    "train.l2": 0.0,
    "train.course": schedule.COSINE,
    "train.keep": schedule.LAST,
    "train.compute_dtype": "float32",
}
CHECKED_STEPS = 3


def without_peer(config: config_dict.ConfigDict) -> list[str]:
    """Why a recipe has no peer, field by field; empty if it has one."""
    flat = run_folder.flatten(config)
    return [
        f"{field}={flat.get(field)!r} instead of {value!r}"
        for field, value in PEER.items()
        if flat.get(field) != value
    ]


def augmented_batches(
    experiment: Experiment, placed: steps.Dataset, train: np.ndarray, *, number: int, epochs: int
) -> Iterator[types.Batch]:
    """The batches that a fold is trained on, those of `fold.FoldRun` and `steps.train_steps`.

    Args:
      experiment: of the run.
      placed: the dataset, from `device_data.place`.
      train: ``(n,)`` indices of the training images, oversampled if the recipe says so.
      number: of the fold.
      epochs: how many.
    """
    config = experiment.config
    key = fold_keys(config.seed, number)[1]

    @jax.jit
    def batch_of(placed, index, valid, step):
        augment_key = jax.random.split(jax.random.fold_in(key, step))[1]
        keys = jax.vmap(lambda i: jax.random.fold_in(augment_key, i))(np.arange(len(index)))
        return steps.gather(placed, index, valid, keys=keys, augmentation=experiment.augmentation)

    step = 0
    for epoch in range(1, epochs + 1):
        order = fold.epoch_order(train, seed=config.seed, fold=number, epoch=epoch)
        for index, valid in zip(*make_batches(order, config.train.batch_size), strict=True):
            yield batch_of(placed, index, valid, step)
            step += 1


def write(folder: Path, config: config_dict.ConfigDict, *, number: int) -> dict[str, Any]:
    """Writes a fold into ``folder``: ``image.npy``, ``mask.npy``, ``arrays.npz``, ``meta.json``.

    Args:
      folder: an existing, empty folder.
      config: of the run; `without_peer` must find nothing in it.
      number: of the fold.

    Returns:
      ``losses``: of the first steps without dropout; ``augmentation_seconds``: processor time that
      drawing and writing took, which the peer does not spend; ``parameters``: how many there are.
    """
    cases = data.load_configured(config)
    config = data.resolve(config, cases)
    split = splits.make_folds(cases, **run_splits.drawing(config.data))[number]
    experiment = Experiment.from_config(config)
    placed = device_data.place(cases, experiment.devices)
    train = split.train
    if config.train.oversample:
        rule = config.train.oversample_rule
        train = oversampling.oversample(train, cases.label, rule=rule)
    epochs, batch = config.train.epochs, config.train.batch_size
    steps_an_epoch = -(-len(train) // batch)
    shape = (epochs * steps_an_epoch, batch, *config.data.image_size)
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.float32, shape)
    mask = np.lib.format.open_memmap(folder / "mask.npy", "w+", np.uint8, shape)
    label, valid = np.zeros(shape[:2], np.int64), np.zeros(shape[:2], np.float32)
    first, begun = [], time.process_time()
    batches = augmented_batches(experiment, placed, train, number=number, epochs=epochs)
    for step, each in enumerate(batches):
        image[step], mask[step] = each.image[..., 0], each.mask[..., 0]
        label[step], valid[step] = each.label, each.valid
        if step < CHECKED_STEPS:
            first.append(each)
    spent = time.process_time() - begun
    state = experiment.init_state(number)
    state = state.replace(total_steps=np.int32(len(label)))
    rates = [
        schedule.learning_rate(
            experiment.schedule, config.train.learning_rate, step=step, total_steps=len(label)
        )
        for step in range(len(label))
    ]
    own = {**state.variables["params"], "encoder": {}}
    own_statistics = {**state.variables["batch_stats"], "encoder": {}}
    flat = flax.traverse_util.flatten_dict(own, sep="/")
    flat |= flax.traverse_util.flatten_dict(own_statistics, sep="/")
    np.savez(
        folder / "arrays.npz",
        label=label,
        valid=valid,
        rate=np.array(rates, np.float64),
        validation_image=cases.image[split.validation, ..., 0],
        validation_mask=cases.mask[split.validation, ..., 0],
        validation_label=cases.label[split.validation],
        **{f"value:{k}": np.asarray(v) for k, v in flat.items()},
    )
    train_fields = ("adam_b1", "adam_b2", "adam_epsilon", "weight_decay", "clip_norm")
    meta = {
        "epochs": epochs,
        "eval_batch": config.eval.batch_size,
        "normal": cases.classes.normal,
        "classes": len(cases.classes),
        "encoder_weights": str(weights.find(config.model.encoder_weights, config.model.encoder)),
        "frozen_statistics": bool(config.model.frozen_statistics),
        "loss": {k: config.loss[k] for k in ("weight", "cross_entropy", "label_smoothing")},
        "encoder_rate": config.train.encoder_rate,
        **{name: config.train[name] for name in train_fields},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return {
        "losses": _first_losses(experiment, state, first),
        "augmentation_seconds": spent,
        "parameters": models.parameter_count(state.params),
    }


def _first_losses(experiment: Experiment, state, batches: list[types.Batch]) -> list[float]:
    """Losses of the first steps, computed without dropout, whose noise differs between sides."""

    def skip_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    program = jax.jit(
        functools.partial(experiment.train_step(), key=jax.random.key(0)),
        compiler_options=models.INIT_COMPILER_OPTIONS,  # three steps are not worth more
    )
    found = []
    for batch in batches:
        with nn.intercept_methods(skip_dropout):
            state, sums = program(state, batch)
        found.append(float(sums.loss / sums.count))
    return found
