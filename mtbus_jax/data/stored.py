"""The arrays of a dataset in one file, for machines without the dataset."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from mtbus_jax.errors import UserError
from mtbus_jax.images import preprocess
from mtbus_jax.images.enhancement import NONE
from mtbus_jax.types import CLASSES, NO_LABEL, Cases, Classes

# The public datasets that `load_cases` knows by name.
DATASETS = ("phantom", "curated_busi", "busi", "bus_uclm")
# Read like a folder of your own: classes and folds come from their tables.
LIKE_FOLDERS = ("bus_bra", "breast_usg")

# Increased when the content of the cache file, or its computation, changes: 2 has OpenCV's grey
# values and nearest neighbours.
FORMAT = 2
ARRAYS = ("uid", "image", "mask", "label", "original_size", "group", "test_fold")
# Of a folder of your own.
OPTIONAL = ("has_mask", "class_names", "normal", "not_compared")


# Type and dimensions of each array.
_FORMS = {
    "uid": (np.str_, 1),
    "image": (np.uint8, 4),
    "mask": (np.uint8, 4),
    "label": (np.integer, 1),
    "original_size": (np.integer, 2),
    "group": (np.str_, 1),
    "test_fold": (np.integer, 1),
}


def problem(cases: Cases) -> str:
    """A text saying what is wrong with a dataset that was not built here; "" if nothing is.

    Checks types, dimensions and lengths of the arrays, and that there is one channel, masks are 0
    and 1, labels are codes of classes or -1, and uids are unique and can be printed.
    """
    count = len(cases.uid)
    for name, (kind, dimensions) in _FORMS.items():
        array = getattr(cases, name)
        if not np.issubdtype(array.dtype, kind) or array.ndim != dimensions:
            return (
                f"{name} is an array of {array.dtype} with {array.ndim} dimensions, not of "
                f"{kind.__name__} with {dimensions}"
            )
        if len(array) != count:
            return f"there are {count} uids, but {len(array)} entries of {name}"
    if not count:
        return "it holds no image"
    if cases.image.shape[-1] != 1 or cases.mask.shape != cases.image.shape:
        return (
            f"images have the shape {cases.image.shape[1:]}, masks {cases.mask.shape[1:]}; both "
            "must be (height, width, 1)"
        )
    uids = cases.uid.tolist()
    if len(set(uids)) < count:
        twice = next(uid for uid in uids if uids.count(uid) > 1)
        return f"the uid {twice!r} occurs twice"
    bad = [uid for uid in uids if not uid or not uid.isprintable()]
    if bad:
        return f"the uid {bad[0]!r} is empty or holds characters that cannot be printed"
    above = cases.mask.max(axis=(1, 2, 3)) > 1
    if above.any():
        return (
            f"the mask of {uids[above.argmax()]!r} has the value "
            f"{cases.mask[above.argmax()].max()}; masks are 0 and 1"
        )
    wrong = (cases.label < NO_LABEL) | (cases.label >= len(cases.classes))
    if wrong.any():
        names = ", ".join(f"{code} {name}" for code, name in enumerate(cases.classes.names))
        where = wrong.argmax()
        return (
            f"the label of {uids[where]!r} is {cases.label[where]}; known are {names}, and -1 for "
            "none"
        )
    return ""


def is_own(name: str) -> bool:
    """Whether classes and folds come from the data's own tables, as for a folder."""
    return name not in DATASETS


def is_folder(name: str) -> bool:
    """Whether a dataset is a user's folder and not one that is known by name."""
    return name not in (*DATASETS, *LIKE_FOLDERS)


def cases_from(name: str, arrays: dict[str, np.ndarray]) -> Cases:
    """The dataset from arrays by name, as `arrays_of` gives them."""
    classes = CLASSES
    if "class_names" in arrays:
        normal = int(arrays["normal"])
        names = tuple(arrays["class_names"].tolist())
        classes = Classes(names, None if normal == NO_LABEL else normal)
    fields = {field: arrays[field] for field in ARRAYS}
    return Cases(
        name=name,
        **fields,
        has_mask=arrays.get("has_mask"),
        classes=classes,
        not_compared=str(arrays.get("not_compared", "")),
    )


def arrays_of(cases: Cases) -> dict[str, np.ndarray]:
    """A dataset as arrays by name: the fields of `Cases`, and its classes if not `CLASSES`."""
    arrays = {name: getattr(cases, name) for name in ARRAYS}
    if cases.has_mask is not None:
        arrays["has_mask"] = cases.has_mask
    if cases.not_compared:
        arrays["not_compared"] = np.array(cases.not_compared)
    if cases.classes != CLASSES:
        arrays["class_names"] = np.array(cases.classes.names)
        normal = cases.classes.normal
        arrays["normal"] = np.array(NO_LABEL if normal is None else normal)
    return arrays


def save_arrays(
    cases: Cases,
    path: str | os.PathLike[str],
    *,
    resize: str = preprocess.NEAREST,
    enhancement: str = NONE,
) -> None:
    """Writes the cases to one file of a few MB, for machines without the dataset.

    Args:
      cases: from `load_cases`.
      path: of the ``.npz`` file to write.
      resize: how their images were resized.
      enhancement: how they were enhanced.

    Raises:
      UserError: if it cannot be written.
    """
    path = pathlib.Path(path)
    arrays = arrays_of(cases)
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                name=np.array(cases.name),
                format=np.array(FORMAT),
                resize=np.array(resize),
                enhancement=np.array(enhancement),
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
    enhancement: str = NONE,
) -> Cases:
    """Reads what `save_arrays` wrote; needs neither the dataset nor tensorflow-datasets.

    Args:
      path: of the file.
      name: the dataset it must hold.
      image_size: the height and width in pixels that its images must have.
      resize: how they must have been resized.
      enhancement: how they must have been enhanced.

    Raises:
      UserError: if the file is missing, broken, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            cases = cases_from(str(stored["name"]), dict(stored))
            written = int(stored["format"]) if "format" in stored else 1
            resized = str(stored["resize"]) if "resize" in stored else preprocess.NEAREST
            enhanced = str(stored["enhancement"]) if "enhancement" in stored else NONE
    except FileNotFoundError:
        raise UserError(
            f"data.arrays_file={path}: there is no such file. Write it where the dataset is: "
            f"python -m mtbus_jax.pack --name={name} --out=FILE."
        ) from None
    except Exception as error:  # a truncated or foreign file raises nearly anything
        raise UserError(
            f"data.arrays_file={path} is not a file of mtbus_jax.pack ({type(error).__name__}). "
            "Write it again."
        ) from None
    found = problem(cases)
    if found:
        raise UserError(f"data.arrays_file={path} cannot be used: {found}.")
    if written != FORMAT:
        raise UserError(
            f"data.arrays_file={path} was written by another version, which made other pixels. "
            f"Write it again: python -m mtbus_jax.pack --name={name} --out=FILE."
        )
    held = (cases.name, cases.image.shape[1:3], resized)
    wanted = pathlib.Path(name).expanduser().resolve().name if is_own(name) else name
    if held != (wanted, tuple(image_size), resize) or enhanced != enhancement:
        raise UserError(
            f"data.arrays_file={path} holds {held[0]} at {held[1]} pixels "
            f"({_in_words(resized, enhanced)}), the configuration asks for {name} at "
            f"{tuple(image_size)} ({_in_words(resize, enhancement)}). Write another file, or "
            "change data.name, data.image_size, data.resize or data.enhancement."
        )
    return cases


def _in_words(resize: str, enhancement: str) -> str:
    return resize if enhancement == NONE else f"{enhancement}, {resize}"
