"""A built dataset as host arrays, without TensorFlow; resized once and cached.

`load_cases` is the only entrance. tensorflow-datasets is imported when it is called, so importing
this module costs nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from mtbus_jax.errors import UserError
from mtbus_jax.images import preprocess
from mtbus_jax.types import CLASS_NAMES, Cases

# The names `load_cases` knows: the configurations of the TFDS builder.
DATASETS = ("phantom", "curated_busi", "busi", "bus_uclm")

# Raised when what the cache file holds, or how it is computed, changes: 2 has OpenCV's grey values
# and nearest neighbours.
_CACHE_FORMAT = 2
_ARRAYS = ("uid", "image", "mask", "label", "original_size", "group", "test_fold")


def load_cases(
    name: str,
    *,
    image_size: tuple[int, int] = (128, 128),
    resize: str = preprocess.NEAREST,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Cases:
    """The whole dataset, greyscale and resized, in the published order.

    A dataset that is not built yet is built first: ``phantom`` anywhere, the others from
    ``manual_dir`` or by download.

    Args:
      name: one of `DATASETS`.
      image_size: height and width in pixels after resizing.
      resize: how images are resized, of `preprocess.RESIZES`; masks are sampled either way.
      data_dir: where the built datasets lie; None or "" for ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.
      manual_dir: folder with the raw data as downloaded (unpacked or zip); None or "" to download.
      cache_dir: where the resized arrays are kept; None or "" for ``$XDG_CACHE_HOME/mtbus_jax``,
        else ``~/.cache/mtbus_jax``. A folder that cannot be written is a warning.

    Returns:
      Images ``(n, height, width, 1)`` uint8, the rest as `Cases` says.

    Raises:
      UserError: if the name is unknown, or the dataset cannot be built or is damaged.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(str(name), DATASETS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"Unknown dataset '{name}'.{hint} Valid names: {', '.join(DATASETS)}.")
    height, width = image_size
    if height < 1 or width < 1:
        raise UserError(f"image_size {tuple(image_size)} must be a height and a width ≥ 1 pixel.")
    with _quiet_tfds():
        builder = _built(name, data_dir or None, manual_dir or None)
        key = _cache_key(builder, height, width, resize)
        kind = "" if resize == preprocess.NEAREST else f"_{resize}"
        path = _cache_folder(cache_dir) / f"{name}_{builder.version}_{height}x{width}{kind}.npz"
        arrays = _read_cache(path, key)
        if arrays is None:
            arrays = _decode(builder, height, width, resize)
            _check_complete(builder, arrays)
            _write_cache(path, key, arrays)
    return Cases(name=name, **arrays)


def only_classes(cases: Cases, names: tuple[str, ...]) -> Cases:
    """The cases of some classes, in their order; all of them for all of `CLASS_NAMES`.

    Raises:
      UserError: if none is left.
    """
    if set(names) == set(CLASS_NAMES):
        return cases
    kept = np.isin(cases.label, [CLASS_NAMES.index(name) for name in names])
    if not kept.any():
        raise UserError(f"data.classes={tuple(names)!r}: {cases.name} has no image of them.")
    return cases.take(np.flatnonzero(kept))


def save_arrays(
    cases: Cases, path: str | os.PathLike[str], *, resize: str = preprocess.NEAREST
) -> None:
    """Writes the cases to one file of a few MB, for machines without the dataset.

    Args:
      cases: from `load_cases`.
      path: of the ``.npz`` file to write.
      resize: how their images were resized.

    Raises:
      UserError: if it cannot be written.
    """
    path = pathlib.Path(path)
    arrays = {name: getattr(cases, name) for name in _ARRAYS}
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                name=np.array(cases.name),
                format=np.array(_CACHE_FORMAT),
                resize=np.array(resize),
                **arrays,
            )
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}.") from None


def load_arrays(
    path: str | os.PathLike[str],
    *,
    name: str,
    image_size: tuple[int, int],
    resize: str = preprocess.NEAREST,
) -> Cases:
    """Reads what `save_arrays` wrote; needs neither the dataset nor tensorflow-datasets.

    Args:
      path: of the file.
      name: the dataset it must hold.
      image_size: the height and width in pixels that its images must have.
      resize: how they must have been resized.

    Raises:
      UserError: if the file is missing, broken, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            cases = Cases(name=str(stored["name"]), **{field: stored[field] for field in _ARRAYS})
            written = int(stored["format"]) if "format" in stored else 1
            resized = str(stored["resize"]) if "resize" in stored else preprocess.NEAREST
    except FileNotFoundError:
        raise UserError(
            f"data.arrays_file={path}: there is no such file. Write it where the dataset is: "
            f"python -m mtbus_jax.pack --name={name} --out=FILE."
        ) from None
    except Exception as error:  # a cut or foreign file raises nearly anything
        raise UserError(
            f"data.arrays_file={path} is no file of mtbus_jax.pack ({type(error).__name__}). "
            "Write it again."
        ) from None
    if written != _CACHE_FORMAT:
        raise UserError(
            f"data.arrays_file={path} was written by another version, which made other pixels. "
            f"Write it again: python -m mtbus_jax.pack --name={name} --out=FILE."
        )
    held = (cases.name, cases.image.shape[1:3], resized)
    if held != (name, tuple(image_size), resize):
        raise UserError(
            f"data.arrays_file={path} holds {held[0]} at {held[1]} pixels ({resized}), the "
            f"configuration asks for {name} at {tuple(image_size)} ({resize}). Write another file, "
            "or change data.name, data.image_size or data.resize."
        )
    return cases


def fingerprint(cases: Cases) -> str:
    """SHA-256 over the cases' uid, label, image and mask; equal exactly for the same data."""
    digest = hashlib.sha256()
    digest.update("\n".join(cases.uid.tolist()).encode())
    digest.update(str((cases.image.shape, cases.mask.shape)).encode())
    digest.update(np.ascontiguousarray(cases.label, np.int32).tobytes())
    digest.update(np.ascontiguousarray(cases.image, np.uint8).tobytes())
    digest.update(np.ascontiguousarray(cases.mask, np.uint8).tobytes())
    return digest.hexdigest()


def _built(name: str, data_dir: Any, manual_dir: Any) -> Any:
    """The TFDS builder of a dataset that is complete on disk; builds it if it is not there."""
    import tensorflow_datasets as tfds

    from tfds_busi.tfds_busi_dataset_builder import Builder

    root = data_dir or os.environ.get("TFDS_DATA_DIR") or None
    builder = Builder(config=name, data_dir=root and pathlib.Path(root).expanduser())
    if builder.is_prepared():
        return builder
    # TFDS prepares in a folder of another name and renames it at the end, so a folder of the final
    # name without its description was cut or emptied afterwards; TFDS itself would take it.
    if builder.data_path.exists():
        raise UserError(
            f"{builder.data_path} exists but holds no complete dataset. Delete that folder; it is "
            "built again on the next start."
        )
    print(f"building dataset {builder.name}/{name} in {builder.data_path}", file=sys.stderr)
    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir and pathlib.Path(manual_dir).expanduser()
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints, whatever its log level
            builder.download_and_prepare(download_config=config)
    except OSError as error:
        # Another process may have finished the same dataset first; its result is as good as ours.
        if not builder.is_prepared():
            raise UserError(
                f"Cannot build {builder.name}/{name} in {builder.data_path}: {error}. Choose a "
                "folder that can be written as the data folder."
            ) from error
    return Builder(config=name, data_dir=builder.data_dir_root)


def _decode(builder: Any, height: int, width: int, resize: str) -> dict[str, np.ndarray]:
    """Reads every record: the arrays of `Cases` by name."""
    columns: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
    for example in _read_records(builder):
        image = preprocess.to_greyscale(example["image"])
        mask = preprocess.merge_masks([example["mask"]])
        columns["uid"].append(_text(example["uid"]))
        small = preprocess.resize(image, height, width, method=resize)
        columns["image"].append(small[..., None])
        columns["mask"].append(preprocess.resize_nearest(mask, height, width)[..., None])
        columns["label"].append(int(example["label"]))
        columns["original_size"].append((int(example["height"]), int(example["width"])))
        columns["group"].append(_text(example["group"]))
        columns["test_fold"].append(int(example["test_fold"]))
    kinds = {"image": np.uint8, "mask": np.uint8, "uid": np.str_, "group": np.str_}
    return {name: np.array(values, kinds.get(name, np.int32)) for name, values in columns.items()}


def _read_records(builder: Any) -> Iterator[dict[str, Any]]:
    """The records with their pictures decoded; what cannot be read is the user's to mend.

    A generator, so that a fault in what is done with a record is not taken for a broken file.
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


def _check_complete(builder: Any, arrays: dict[str, np.ndarray]) -> None:
    """Refuses a dataset that was built in part, such as with ``--max_examples_per_split``."""
    from tfds_busi import folds

    config = builder.builder_config
    counts = tuple(np.bincount(arrays["label"], minlength=len(CLASS_NAMES)).tolist())
    digest = folds.digest(arrays["uid"], arrays["test_fold"])
    if config.expected_counts not in (None, counts) or config.folds_digest not in (None, digest):
        raise UserError(
            f"The built dataset in {builder.data_path} is not complete: it has {counts} "
            f"{'/'.join(CLASS_NAMES)} images or other folds than the published ones. Delete that "
            "folder; it is built again on the next start."
        )


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.array(picture)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _cache_key(builder: Any, height: int, width: int, resize: str) -> str:
    """Names exactly what the cached arrays were computed from, and how."""
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {height} {width} {resize}".encode())
    sources = [
        pathlib.Path(preprocess.__file__),
        *sorted(pathlib.Path(builder.data_path).iterdir()),
    ]
    for path in sources:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(f"\n{path.name} ".encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _cache_folder(cache_dir: Any) -> pathlib.Path:
    if cache_dir:
        return pathlib.Path(cache_dir).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(root).expanduser() / "mtbus_jax"


def _read_cache(path: pathlib.Path, key: str) -> dict[str, np.ndarray] | None:
    """The cached arrays, or None if there are none, or stale or unreadable ones."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in _ARRAYS}
    except Exception:  # a cut or scribbled-over zip raises nearly anything; the cache is expendable
        return None


def _write_cache(path: pathlib.Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes beside the target and renames, so that a reader never sees half a file."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, key=np.array(key), **arrays)
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"the resized images are not cached: {error}", UserWarning, stacklevel=3)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Without TFDS's progress bars and log lines; both are on again afterwards."""
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
