"""What is exported: the trained folds of a finished run, and images to compare files on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import data, types
from mtbus_jax.data import built, stored
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.export import card
from mtbus_jax.images import phantom, preprocess
from mtbus_jax.training import bundled, run_files, trained_folds

# Images to compare on, spread evenly over the classes.
_CHECK_IMAGES = 6


def load(run: Path, folds: tuple[int, ...] | None = None) -> trained_folds.Trained:
    """The folds to export, with their variables as numpy arrays.

    Args:
      run: the run folder, or a bundle.
      folds: folds to load, in any order; None for all that have been started.

    Raises:
      UserError: see `trained_folds.load`; also if a fold has not been trained and tested to the
        end, since its network's accuracy is then unknown, or if a file about the run is missing.
    """
    original = trained_folds.load(run, folds)
    if bundled.is_bundle(run):
        return _on_host(original)
    trained_folds.check_finished(run, original, chosen=folds is not None, flag="--folds")
    for read in (run_files.read_splits, run_files.read_environment, run_files.read_summary):
        read(run)
    return _on_host(original)


def _on_host(original: trained_folds.Trained) -> trained_folds.Trained:
    members = sorted(jax.device_get(original.members), key=lambda member: member.fold)
    return dataclasses.replace(original, members=tuple(members))


def about(run: Path, original: trained_folds.Trained) -> list[str]:
    """What a card says about data and figures, as Markdown lines.

    Args:
      run: the run folder, or a bundle, whose own card is used with its limits and citation.
      original: from `load`.

    Raises:
      UserError: if a file about the run is missing or broken.
    """
    if bundled.is_bundle(run):
        path = run / bundled.CARD
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            return lines[lines.index(card.DATA) :]
        except (OSError, ValueError):
            raise UserError(
                f"{path} is missing or is not the card of a bundle. Copy the folder again."
            ) from None
    rows, split_info = read_cases(run), run_files.read_splits(run)
    result = summary.summarise(
        rows[rows.fold.isin(original.folds)], original.config.to_dict(), split_info
    )
    return card.about(original, result, split_info)


def check_images(config: config_dict.ConfigDict) -> tuple[np.ndarray, str]:
    """Images of the run's dataset, or simulated ones if it is not here; builds no dataset.

    Args:
      config: configuration of the run.

    Returns:
      ``(n, height, width, 1)`` float32 grey values 0..255, and a description of the images.
    """
    height, width = config.data.image_size
    cases = _dataset(config)
    if cases is not None:
        index = np.linspace(0, len(cases) - 1, _CHECK_IMAGES).round().astype(int)
        return cases.image[index].astype(np.float32), f"{_CHECK_IMAGES} images of {cases.name}"
    images = []
    for i in range(_CHECK_IMAGES):
        picture = phantom.make_phantom(i, label=i % len(types.CLASS_NAMES))
        small = preprocess.to_input(
            picture.image,
            height,
            width,
            resizing=config.data.resize,
            enhancement=config.data.enhancement,
        )
        images.append(small)
    words = f"{_CHECK_IMAGES} simulated images"
    if config.data.name != "phantom":
        name = config.data.name
        name = Path(name).name if stored.is_folder(name) else name
        words += f" ({name} was not on the machine)"
    return np.stack(images)[..., None].astype(np.float32), words


def _dataset(config: config_dict.ConfigDict) -> types.Cases | None:
    """The run's dataset if it is on this machine; nothing is built or downloaded."""
    name, image_size = config.data.name, tuple(config.data.image_size)
    own = stored.is_folder(name)
    if config.data.arrays_file:
        if not Path(config.data.arrays_file).is_file():
            return None
        cases = data.load_arrays(
            config.data.arrays_file,
            name=name,
            image_size=image_size,
            resize=config.data.resize,
            enhancement=config.data.enhancement,
        )
    elif name == "phantom":
        return None
    else:
        from tfds_busi.tfds_busi_dataset_builder import Builder

        folder = Path(name).expanduser().resolve()
        if own and not folder.is_dir():
            return None
        which = built.folder_config(folder, config.data.normal_class) if own else name
        root = config.data.data_dir or os.environ.get("TFDS_DATA_DIR")
        root = Path(root).expanduser() if root else None
        if not Builder(config=which, data_dir=root).is_prepared():
            return None
        cases = data.load_cases(
            name,
            image_size=image_size,
            resize=config.data.resize,
            enhancement=config.data.enhancement,
            data_dir=config.data.data_dir,
            cache_dir=config.data.cache_dir,
            normal_class=config.data.normal_class if own else "",
        )
    return data.only_classes(cases, tuple(config.data.classes))
