"""The public datasets and folders of your own as TFDS builds them: building and reading records.

tensorflow-datasets is imported when a function is called, so importing this module costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from mtbus_jax.data.stored import ARRAYS
from mtbus_jax.errors import UserError
from mtbus_jax.images import preprocess
from mtbus_jax.types import CLASSES, NO_LABEL, NORMAL

_NORMAL_NAME = CLASSES.names[NORMAL]


def folder_config(folder: pathlib.Path, normal_class: str) -> Any:
    """The builder's configuration of a folder; its name changes when a file in it has changed.

    Args:
      folder: absolute.
      normal_class: see `load_cases`.
    """
    from tfds_busi import own
    from tfds_busi.configs import FOLDER_VERSION, BusConfig

    # "" means `normal` if there is such a class; a run then names that class, which is the same.
    other = normal_class if normal_class != _NORMAL_NAME else ""
    state = hashlib.sha256((other + own.state(folder)).encode()).hexdigest()
    where = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return BusConfig(
        name=f"folder_{where}_{state[:12]}",
        description=f"Pictures in {folder}.",
        source="folder",
        version=FOLDER_VERSION,
        normal_class=normal_class,
    )


def _remove_earlier(builder: Any) -> None:
    """Removes what was built from the same folder before its files changed."""
    name = builder.builder_config.name
    current = pathlib.Path(builder.data_path).parent
    if name.startswith("folder_"):
        for path in current.parent.glob(f"{name.rpartition('_')[0]}_*"):
            if path != current:
                shutil.rmtree(path, ignore_errors=True)


def build(config: Any, data_dir: Any, manual_dir: Any) -> Any:
    """The TFDS builder of a dataset that is complete on disk; builds the dataset if it is missing.

    Args:
      config: the builder's configuration or its name.
      data_dir: see `load_cases`.
      manual_dir: see `load_cases`.

    Raises:
      UserError: if it cannot be built, or what is there is damaged.
    """
    import tensorflow_datasets as tfds

    from tfds_busi import own
    from tfds_busi.tfds_busi_dataset_builder import Builder

    root = data_dir or os.environ.get("TFDS_DATA_DIR") or None
    builder = Builder(config=config, data_dir=root and pathlib.Path(root).expanduser())
    name = builder.builder_config.name
    raw = manual_dir and pathlib.Path(manual_dir).expanduser()
    aside = None
    if builder.is_prepared() and _can_be_compared_now(builder):
        aside = _set_aside(pathlib.Path(builder.data_path))
        builder = Builder(config=config, data_dir=builder.data_dir_root)
    if builder.is_prepared():
        if reason := not_compared(builder):
            own.warn_not_compared(reason)
        if raw and not raw.exists():
            warnings.warn(
                f"the folder of raw data {raw} does not exist; {name} is used as it was built "
                f"before in {builder.data_path}",
                UserWarning,
                stacklevel=3,
            )
        return builder
    # TFDS prepares in a folder with another name and renames it at the end. So a folder with the
    # final name but no description was damaged afterwards; TFDS itself would accept it.
    if builder.data_path.exists():
        raise UserError(
            f"{builder.data_path} exists but holds no complete dataset. Delete that folder; it is "
            "built again on the next start."
        )
    print(f"building dataset {builder.name}/{name} in {builder.data_path}", file=sys.stderr)
    options = tfds.download.DownloadConfig(manual_dir=raw)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),  # TFDS prints, whatever its log level
            _back_on_failure(aside, pathlib.Path(builder.data_path)),
        ):
            builder.download_and_prepare(download_config=options)
    except OSError as error:
        # Another process may have finished the same dataset first; its result is as good as ours.
        if not builder.is_prepared():
            raise UserError(
                f"Cannot build {builder.name}/{name} in {builder.data_path}: {error}. Choose a "
                "folder that can be written as the data folder."
            ) from error
    _remove_earlier(builder)
    return Builder(config=config, data_dir=builder.data_dir_root)


def _set_aside(built: pathlib.Path) -> pathlib.Path | None:
    """Moves away a built dataset before it is built again; None if it cannot move or is gone."""
    aside = built.with_name(f"{built.name}.before.{os.getpid()}")
    try:
        os.rename(built, aside)
    except OSError:  # for example a read-only folder: the dataset there can still be used
        return None
    print(f"looking for near-duplicates, which {built} was built without", file=sys.stderr)
    return aside


@contextlib.contextmanager
def _back_on_failure(aside: pathlib.Path | None, built: pathlib.Path) -> Iterator[None]:
    """Puts back a dataset that was set aside if the block builds no new one; else removes it."""
    try:
        yield
    finally:
        if aside is not None and built.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside is not None:
            os.rename(aside, built)


def not_compared(builder: Any) -> str:
    """Why near-duplicates were not looked for when a folder was built; "" if they were."""
    from tfds_busi.own import NOT_COMPARED

    like_folder = builder.builder_config.source == "folder"
    return builder.info.metadata.get(NOT_COMPARED, "") if like_folder else ""


def _can_be_compared_now(builder: Any) -> bool:
    """Whether near-duplicates, not looked for when a folder was built, can be looked for now."""
    from tfds_busi import own

    if builder.builder_config.download or not not_compared(builder):
        return False
    return not own.why_not_compared(builder.info.metadata[own.IMAGES])


def decode(
    builder: Any, height: int, width: int, resize: str, enhancement: str
) -> dict[str, np.ndarray]:
    """Reads all records, prepared by `preprocess.to_input`, as `stored.cases_from` takes them."""
    own = builder.builder_config.source == "folder"
    codes = {}
    columns: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    if own:
        columns["has_mask"] = []
        codes = {name: code for code, name in enumerate(builder.info.metadata["class_names"])}
    for example in _read_records(builder):
        image = preprocess.to_greyscale(example["image"])
        mask = preprocess.merge_masks([example["mask"]])
        columns["uid"].append(_text(example["uid"]))
        small = preprocess.to_input(image, height, width, resizing=resize, enhancement=enhancement)
        columns["image"].append(small[..., None])
        columns["mask"].append(preprocess.resize_nearest(mask, height, width)[..., None])
        label = example["label"]
        columns["label"].append(codes.get(_text(label), NO_LABEL) if own else int(label))
        columns["original_size"].append((int(example["height"]), int(example["width"])))
        columns["group"].append(_text(example["group"]))
        columns["test_fold"].append(int(example["test_fold"]))
        if own:
            columns["has_mask"].append(bool(example["has_mask"]))
    kinds = {"image": np.uint8, "mask": np.uint8, "uid": np.str_, "group": np.str_}
    kinds["has_mask"] = np.bool_
    arrays = {name: np.array(values, kinds.get(name, np.int32)) for name, values in columns.items()}
    if own:
        normal = builder.info.metadata["normal"]
        arrays["class_names"] = np.array(builder.info.metadata["class_names"])
        arrays["normal"] = np.array(NO_LABEL if normal is None else normal)
        arrays["not_compared"] = np.array(not_compared(builder))
    return arrays


def _read_records(builder: Any) -> Iterator[dict[str, Any]]:
    """The records with their pictures decoded; a record that cannot be read raises `UserError`.

    A generator, so that an error in the handling of a record is not taken for a broken file.
    """
    import tensorflow_datasets as tfds

    # The PNG bytes are decoded here: TFDS would use OpenCV where it is installed, Pillow elsewhere.
    skip = tfds.decode.SkipDecoding()
    try:
        source = builder.as_data_source(split="all", decoders={"image": skip, "mask": skip})
        for example in source:
            pictures = {name: _pixels(example[name]) for name in ("image", "mask")}
            yield {**example, **pictures}
    except Exception as error:  # ArrayRecord, protobuf and Pillow share no base class
        raise UserError(
            f"The built dataset in {builder.data_path} cannot be read "
            f"({type(error).__name__}: {error}). Delete that folder; it is built again on the next "
            "start."
        ) from error


def check_complete(builder: Any, arrays: dict[str, np.ndarray]) -> None:
    """Refuses a dataset that was built in part, such as with ``--max_examples_per_split``."""
    from tfds_busi import folds

    config = builder.builder_config
    if config.expected_counts is None and config.folds_digest is None:
        return
    counts = tuple(np.bincount(arrays["label"], minlength=len(CLASSES)).tolist())
    digest = folds.digest(arrays["uid"], arrays["test_fold"])
    if config.expected_counts not in (None, counts) or config.folds_digest not in (None, digest):
        raise UserError(
            f"The built dataset in {builder.data_path} is not complete: it has {counts} "
            f"{'/'.join(CLASSES.names)} images or other folds than the published ones. Delete that "
            "folder; it is built again on the next start."
        )


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.array(picture)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Turns off TFDS's progress bars and log lines for the block."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
