"""A built dataset as host arrays, without TensorFlow; resized once and cached.

`load_cases` is the entry point. It imports tensorflow-datasets only when called, so importing this
module costs nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import operator
import os
import pathlib
import tempfile
import warnings
from typing import Any

import numpy as np

from mtbus_jax.data import built, stored
from mtbus_jax.errors import UserError
from mtbus_jax.images import enhancement as enhancement_source
from mtbus_jax.images import preprocess
from mtbus_jax.images.enhancement import NONE
from mtbus_jax.types import Cases

# The settings of most runs; they are left out of a cached file's name.
_UNNAMED = (preprocess.NEAREST, NONE)


def load_cases(
    name: str,
    *,
    image_size: tuple[int, int] = (128, 128),
    resize: str = preprocess.NEAREST,
    enhancement: str = NONE,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    normal_class: str = "",
) -> Cases:
    """The whole dataset, greyscale and resized, in the published order.

    A dataset that is not built yet is built first: ``phantom`` anywhere, the others from
    ``manual_dir`` or by download. A folder is built again when its files have changed.

    Args:
      name: one of `stored.DATASETS` or `stored.LIKE_FOLDERS`, or a folder of your own pictures
        (docs/own_data.md).
      image_size: height and width in pixels after resizing.
      resize: how images are resized, one of `preprocess.RESIZES`; masks are always sampled.
      enhancement: how images are enhanced before that, one of `enhancement.ENHANCEMENTS`.
      data_dir: where the built datasets are; None or "" for ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.
      manual_dir: folder with the raw data as downloaded (unpacked or zip); None or "" to download.
        Not read if the dataset is already built; a missing folder then only causes a warning.
      cache_dir: where the resized arrays are kept; None or "" for ``$XDG_CACHE_HOME/mtbus_jax``,
        else ``~/.cache/mtbus_jax``. A folder that cannot be written only causes a warning.
      normal_class: for a folder, the class that means "no lesion"; "" is ``normal``.

    Returns:
      Images ``(n, height, width, 1)`` uint8, the rest as `Cases` says.

    Raises:
      UserError: if the name is unknown, or the dataset cannot be built or is damaged.
    """
    own = stored.is_folder(name)
    if not name:
        raise UserError("data.name is empty; give the name of a dataset, or a folder of pictures.")
    if own and len(pathlib.PurePath(name).parts) > 1:
        if not pathlib.Path(name).expanduser().is_dir():
            raise UserError(
                f"There is no folder {name}. If pictures that a run was trained on lie elsewhere "
                "now, say so with --config.data.name=FOLDER in mtbus train and evaluate, with "
                "--data=FOLDER in mtbus report and bundle."
            )
    elif own and not pathlib.Path(name).expanduser().is_dir():
        known = (*stored.DATASETS, *stored.LIKE_FOLDERS)
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(
            f"Unknown dataset '{name}'.{hint} Valid names: {', '.join(known)}, or a folder of your "
            f"own pictures; there is none of that name in {pathlib.Path.cwd()}."
        )
    if normal_class and not own:
        raise UserError(f"data.normal_class is for a folder of your own; {name} has its own.")
    try:
        height, width = map(operator.index, image_size)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise UserError(f"image_size={image_size!r}: give height and width, 1 pixel or more.")
    for field, value, known in (
        ("resize", resize, preprocess.RESIZES),
        ("enhancement", enhancement, enhancement_source.ENHANCEMENTS),
    ):
        if value not in known:
            raise UserError(f"{field}={value!r} is unknown. Known: {', '.join(known)}.")
    with built.quiet_tfds():
        if own:
            manual_dir = pathlib.Path(name).expanduser().resolve()
        config = built.folder_config(manual_dir, normal_class) if own else name
        builder = built.build(config, data_dir or None, manual_dir or None)
        how = (resize, enhancement)
        key = _cache_key(builder, height, width, *how)
        kind = "".join(f"_{each}" for each in how if each not in _UNNAMED)
        stem = f"{builder.builder_config.name}_{builder.version}"
        path = _cache_folder(cache_dir) / f"{stem}_{height}x{width}{kind}.npz"
        arrays = _read_cache(path, key)
        if arrays is None:
            arrays = built.decode(builder, height, width, *how)
            built.check_complete(builder, arrays)
            _write_cache(path, key, arrays)
    return stored.cases_from(manual_dir.name if own else name, arrays)


def only_classes(cases: Cases, names: tuple[str, ...]) -> Cases:
    """The cases of some classes, in their order; all cases if no or all classes are named.

    Raises:
      UserError: if there is no such class, or none of its cases.
    """
    known = cases.classes.names
    if not names or set(names) == set(known):
        return cases
    if set(names) - set(known):
        raise UserError(f"data.classes={tuple(names)!r}: {cases.name} has {', '.join(known)}.")
    kept = np.isin(cases.label, [known.index(name) for name in names])
    if not kept.any():
        raise UserError(f"data.classes={tuple(names)!r}: {cases.name} has no image of them.")
    return cases.take(np.flatnonzero(kept))


def fingerprint(cases: Cases) -> str:
    """SHA-256 over the cases' uid, label, image and mask; equal exactly for the same data."""
    digest = hashlib.sha256()
    digest.update("\n".join(cases.uid.tolist()).encode())
    digest.update(str((cases.image.shape, cases.mask.shape)).encode())
    digest.update(np.ascontiguousarray(cases.label, np.int32).tobytes())
    digest.update(np.ascontiguousarray(cases.image, np.uint8).tobytes())
    digest.update(np.ascontiguousarray(cases.mask, np.uint8).tobytes())
    if cases.has_mask is not None and not cases.has_mask.all():
        digest.update(np.packbits(cases.has_mask).tobytes())
    return digest.hexdigest()


def _cache_key(builder: Any, height: int, width: int, *how: str) -> str:
    """Names exactly what the cached arrays were computed from, and how."""
    digest = hashlib.sha256(f"{stored.FORMAT} {height} {width} {' '.join(how)}".encode())
    sources = [
        pathlib.Path(preprocess.__file__),
        pathlib.Path(enhancement_source.__file__),
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
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            optional = [name for name in stored.OPTIONAL if name in file]
            return {name: file[name] for name in (*stored.ARRAYS, *optional)}
    except Exception:  # a truncated or damaged zip raises nearly anything; the cache is expendable
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
