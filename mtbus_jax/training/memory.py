"""Checks from shapes, before anything is compiled, whether a training step can fit in memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from mtbus_jax import models, splits
from mtbus_jax.errors import UserError
from mtbus_jax.training.experiment import Experiment

# Parameters, their gradients, two moments, and the weights that are kept to be tested.
_COPIES = 5
# Below this many pixels a step, feature maps are not counted: that takes a second, and they fit.
_COUNTED_FROM = 2**20
# A batch is a mistake if it exceeds both this multiple of the training images and this number.
_LARGEST_SHARE, _ALWAYS_FITS = 4, 64
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def check(experiment: Experiment) -> None:
    """Refuses a training step that cannot fit the memory of a device.

    With several processes, each checks one of its own devices.

    Raises:
      UserError: naming the fields to make smaller.
    """
    own = jax.process_index()
    device = next(each for each in experiment.devices if each.process_index == own)
    needed, there = least(experiment), at_hand(device)
    if there is None or needed <= there:
        return
    config = experiment.config
    raise UserError(
        f"a training step of {config.model.name} with data.image_size="
        f"{tuple(config.data.image_size)} and train.batch_size={config.train.batch_size} takes "
        f"at least {needed / 1e9:,.0f} GB of memory, and {device.platform} has "
        f"{there / 1e9:,.1f} GB. Make the image, the batch or model.width smaller."
    )


def check_batch(config: config_dict.ConfigDict, split: splits.Split, fold: int) -> None:
    """Refuses a batch many times larger than the training set: most of it would be repeats.

    Args:
      config: of the run.
      split: of the fold.
      fold: its number.

    Raises:
      UserError: if it is.
    """
    batch, images = config.train.batch_size, len(split.train)
    if batch > max(_LARGEST_SHARE * images, _ALWAYS_FITS):
        raise UserError(
            f"train.batch_size={batch}: fold {fold} has {images} training images, and the places "
            "left in a batch are filled with repeats. Make the batch smaller."
        )


def least(experiment: Experiment) -> int:
    """The least number of bytes that a training step takes on one device.

    This counts copies of the parameters and, for large steps, the outputs of the network's modules,
    all of which the gradients need again. XLA's own count was 1.1 to 1.9 times the latter for five
    networks.
    """
    config, module = experiment.config, experiment.module
    height, width = config.data.image_size
    batch = math.ceil(config.train.batch_size / len(experiment.devices))
    variables = models.init_shapes(module, (height, width, 1))
    size = _COPIES * _bytes(variables["params"])
    if batch * height * width < _COUNTED_FROM:
        return size

    def maps(variables, image, key):
        _, state = module.apply(
            variables,
            image,
            train=True,
            mutable=["intermediates", "batch_stats"],
            capture_intermediates=True,
            rngs={"dropout": key},
        )
        return state["intermediates"]

    image = jax.ShapeDtypeStruct((batch, height, width, 1), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    kept = _bytes(jax.eval_shape(maps, variables, image, key))
    return size + (kept // 2 if experiment.compute_dtype is not None else kept)


def _bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def at_hand(device: jax.Device) -> int | None:
    """Total memory of a device in bytes; None if that is not known."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    try:  # a container may have less than the machine
        return min(pages, int(_CGROUP.read_text()))
    except (OSError, ValueError):
        return pages
