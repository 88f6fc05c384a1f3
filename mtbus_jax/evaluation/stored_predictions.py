"""Stored predictions of a fold's best weights, kept next to ``cases.csv``.

Reports draw the masks. What is fitted after training needs the predictions for the validation
images, so these are stored too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.files import write_bytes
from mtbus_jax.metrics import calibration
from mtbus_jax.training import steps

# File in the fold's folder for each part of the split.
NAMES = {"test": "predictions.npz", "validation": "predictions_validation.npz"}


class Stored(NamedTuple):
    """Predictions for n images; None for what the network does not compute.

    Tumour probabilities are stored to within 1/512 and stay on their side of 1/2. Those up to 1/256
    become 0, so that the many background pixels add nothing to a sum of probabilities.

    Attributes:
      uid: ``(n,)`` str.
      probability: ``(n, height, width)`` float32, tumour probability that was tested.
      mean_probability: ``(n, height, width)`` float32, mean tumour probability over the members.
        The members are each network's predictions for the image's flipped and turned versions.
      disagreement: ``(n,)`` float32, `calibration.mask_disagreement` between the members.
      class_logits: ``(members, n, classes)`` float32.
      logits: ``(n, classes)`` float32, class logits that were tested.
    """

    uid: np.ndarray
    probability: np.ndarray | None
    mean_probability: np.ndarray | None
    disagreement: np.ndarray | None
    class_logits: np.ndarray | None
    logits: np.ndarray | None

    @property
    def mask(self) -> np.ndarray:
        """``(n, height, width)`` bool, the tested mask before refining."""
        return self.probability > types.MASK_THRESHOLD

    def take(self, index: np.ndarray) -> Stored:
        """The predictions at ``index``, integers or ``(n,)`` bool."""
        members = self.class_logits
        taken = {
            name: None if value is None else value[index]
            for name, value in self._replace(class_logits=None)._asdict().items()
        }
        taken["class_logits"] = None if members is None else members[:, index]
        return Stored(**taken)


def write(
    directory: Path,
    part: str,
    uid: np.ndarray,
    members: Sequence[steps.Predictions],
    *,
    answer: steps.Predictions,
) -> None:
    """Writes the predictions of one part of a fold.

    Args:
      directory: the fold's folder.
      part: a key of `NAMES`.
      uid: ``(n,)`` str.
      members: numpy arrays in the order of ``uid``, network by network: first the predictions for
        the images as they are, then those for the flipped and turned versions, turned back.
      answer: the prediction that is tested, computed from the members.
    """
    arrays = {"uid": uid.astype(str)}
    if members[0].probability is not None:
        stack = np.stack([member.probability[..., 0] for member in members])
        arrays["probability"] = _to_bytes(answer.probability[..., 0])
        arrays["mean_probability"] = _to_bytes(stack.mean(axis=0))
        arrays["disagreement"] = calibration.mask_disagreement(stack).astype(np.float32)
    if members[0].class_logits is not None:
        stack = np.stack([member.class_logits for member in members])
        arrays["class_logits"] = stack.astype(np.float32)
        arrays["logits"] = answer.class_logits.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(directory / NAMES[part], buffer.getvalue())


def read(directory: Path, part: str = "test") -> Stored:
    """The predictions of one part of a fold.

    Args:
      directory: the fold's folder.
      part: a key of `NAMES`.

    Raises:
      UserError: if the file is missing or broken.
    """
    path = directory / NAMES[part]
    again = "Run main.py --mode=evaluate --workdir=… on the run folder to write it"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name in ("probability", "mean_probability"):
            if name in arrays:
                arrays[name] = _from_bytes(arrays[name])
        if "class_logits" in arrays:  # older files have no "logits"
            arrays.setdefault("logits", arrays["class_logits"][0])
        found = Stored(arrays["uid"], *(arrays.get(name) for name in Stored._fields[1:]))
        _check_shapes(found)
        return found
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the fold was not tested, or only by an earlier version. {again}."
        ) from None
    except Exception as error:  # a truncated or foreign file can raise almost anything
        raise UserError(f"{path} is broken ({type(error).__name__}). {again} again.") from None


def join(parts: Sequence[Stored]) -> Stored:
    """Predictions of the same run for several sets of images, one set after the other."""
    arrays = {}
    for name in Stored._fields:
        each = [getattr(part, name) for part in parts]
        axis = 1 if name == "class_logits" else 0
        arrays[name] = None if each[0] is None else np.concatenate(each, axis=axis)
    return Stored(**arrays)


def check_images(directory: Path, part: str, stored: Stored, uid: np.ndarray) -> None:
    """Refuses predictions of other images, or in another order.

    Args:
      directory: the fold's folder.
      part: a key of `NAMES`.
      stored: from `read`.
      uid: ``(n,)`` str, the images that the predictions must belong to.

    Raises:
      UserError: if they belong to other images.
    """
    if stored.uid.tolist() != list(map(str, uid)):
        raise UserError(
            f"{directory / NAMES[part]} holds {len(stored.uid)} images, and not the {len(uid)} "
            f"{part} images of {directory.name}. Run main.py --mode=evaluate "
            f"--workdir={directory.parent} to write it again."
        )


def _check_shapes(stored: Stored) -> None:
    """Refuses arrays that do not belong together.

    Raises:
      ValueError: names the first array that does not fit.
    """
    count = len(stored.uid)
    wanted = {
        "uid": (1, 0, "U"),
        "probability": (3, 0, "f"),
        "mean_probability": (3, 0, "f"),
        "disagreement": (1, 0, "f"),
        "class_logits": (3, 1, "f"),
        "logits": (2, 0, "f"),
    }
    for name, (axes, of_images, kind) in wanted.items():
        array = getattr(stored, name)
        if array is None:
            continue
        whole = array.ndim == axes and array.shape[of_images] == count and array.dtype.kind == kind
        if not whole or (kind == "f" and not np.isfinite(array).all()):
            raise ValueError(f"{name} is no array of {count} images")


def _to_bytes(probability: np.ndarray) -> np.ndarray:
    """In steps of 1/256 that never cross the threshold: p > 1/2 exactly where byte ≥ 128."""
    return np.clip(np.ceil(probability * 256) - 1, 0, 255).astype(np.uint8)


def _from_bytes(stored: np.ndarray) -> np.ndarray:
    return np.where(stored == 0, np.float32(0), (stored.astype(np.float32) + 0.5) / 256)
