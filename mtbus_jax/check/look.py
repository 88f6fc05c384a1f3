"""Reads every picture of a folder and notes what a person should know before training."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.images import dicom
from mtbus_jax.types import NO_FOLD, VALIDATION_FOLD, Classes

# Packages of the extra "curate" that finding calipers and text needs.
_NEEDED = ("cv2",)
# Longer side of a thumbnail in pixels.
THUMBNAIL = 160
# A lesion with a smaller share of the picture than this is worth a look.
TINY = 0.0005
_MOST = "the mask covers more than half of the picture"
# An outline that is not filled encloses more than this many times its own area.
_RING = 2.0
_OUTLINE = "the mask is an outline that is not filled"
_SCALED = "scaled to 8 bits"  # ends a note on grey values
_SHOWN = 3  # of a list in a sentence
_FOLDS = {NO_FOLD: "", VALIDATION_FOLD: "validation"}


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One picture.

    Attributes:
      uid: its name.
      file: its path.
      label: its class; "" if it is not known.
      group: group or patient that it is kept together with.
      fold: number of the fold that tests it, or validation; "" if it only trains.
      size: height and width in pixels; None if the picture cannot be used.
      lesion: pixels of the mask; None if the mask is not known.
      parts: number of parts of the mask that do not touch each other.
      border: whether the mask touches the picture's border.
      spacing_mm: height and width of a pixel, if the file tells them.
      marks: ``calipers`` and ``text`` if they were found; None if they were not looked for.
      notes: what was changed in reading, and what a person should look at.
      problem: why it cannot be used; "" if it can.
      thumbnail: ``(h, w, 3)`` uint8, the mask outlined.
    """

    uid: str
    file: str
    label: str
    group: str
    fold: str
    size: tuple[int, int] | None = None
    lesion: int | None = None
    parts: int = 0
    border: bool = False
    spacing_mm: tuple[float, float] | None = None
    marks: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    thumbnail: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
    """A folder.

    Attributes:
      root: the folder.
      layout: how it was understood, in a sentence.
      classes: classes of its labels.
      seen: its pictures.
      duplicates: names of pictures that are near-duplicates of each other, a list for each set;
        None if they were not looked for.
      not_compared: why duplicates were not looked for; "" if they were.
      notes: on how the folder was understood, and what of it is not used.
    """

    root: Path
    layout: str
    classes: Classes
    seen: list[Seen]
    duplicates: list[list[str]] | None
    not_compared: str
    notes: list[str]

    @property
    def usable(self) -> list[Seen]:
        """The pictures that can be trained on."""
        return [each for each in self.seen if not each.problem]


def check(folder: Path, *, normal: str = "", duplicates: bool = True) -> Checked:
    """Looks through a folder of pictures.

    Args:
      folder: in one of the layouts of docs/own_data.md.
      normal: the class that means "no lesion"; "" for ``normal`` if there is such a class.
      duplicates: whether to look for near-duplicates, which takes longest.

    Raises:
      UserError: if the folder's layout is not understood. Pictures that cannot be read are part of
        the result.
    """
    from tfds_busi import layouts, own

    listing = layouts.read(folder, normal=normal)
    seen = list(_seen(listing))
    usable = {each.uid for each in seen if not each.problem}
    found = None
    reason = own.why_not_compared(len(usable)) if duplicates else "--no_duplicates"
    if not reason:
        # Groups of a table come before near-duplicates; here both are of interest.
        entries = [entry for entry in listing.entries if entry.uid in usable]
        sets: dict[str, list[str]] = {}
        for uid, name in (own.near_duplicates(entries, listing.root) or {}).items():
            sets.setdefault(name, []).append(uid)
        found = list(sets.values())
    return Checked(
        root=listing.root,
        layout=listing.layout,
        classes=listing.classes,
        seen=seen,
        duplicates=found,
        not_compared=reason,
        notes=listing.notes,
    )


def _seen(listing) -> Iterator[Seen]:
    from tfds_busi import own

    looks = all(importlib.util.find_spec(name) for name in _NEEDED)
    for entry in listing.entries:
        known = {
            "uid": entry.uid,
            "file": str(entry.image),
            "label": entry.label,
            "group": entry.group or entry.patient,
            "fold": _FOLDS.get(entry.test_fold, str(entry.test_fold)),
        }
        try:
            picture = own.decode(entry)
        except UserError as error:
            yield Seen(**known, problem=" ".join(str(error).split()))
            continue
        mask = picture.mask if entry.masks is not None else None
        yield Seen(
            **known,
            size=picture.image.shape,
            spacing_mm=picture.spacing_mm,
            marks=_marks(picture.image) if looks else None,
            notes=(*picture.notes, *_about(mask)),
            thumbnail=thumbnail(picture.image, mask),
            **_measured(mask),
        )


def _measured(mask: np.ndarray | None) -> dict[str, object]:
    if mask is None:
        return {}
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return {
        "lesion": int(mask.sum()),
        "parts": int(scipy.ndimage.label(mask, np.ones((3, 3)))[1]),
        "border": any(bool(edge.any()) for edge in edges),
    }


def _about(mask: np.ndarray | None) -> list[str]:
    if mask is None or not mask.any():
        return []
    share = mask.mean()
    if share < TINY:
        return [f"the lesion has {int(mask.sum())} pixels only"]
    if share > 0.5:
        return [_MOST]
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    filled = scipy.ndimage.binary_fill_holes(mask)
    # An inverted mask lies along the border.
    hollow = border.mean() < 0.5 and filled.sum() > _RING * mask.sum()
    return [_OUTLINE] if hollow else []


def _marks(grey: np.ndarray) -> tuple[str, ...]:
    from mtbus_jax.curate.marks import find_marks

    found = find_marks(grey, None)
    return ("calipers",) * (found.calipers > 0) + ("text",) * (found.text > 0)


def thumbnail(grey: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """A small picture with the mask outlined.

    Args:
      grey: ``(height, width)`` uint8.
      mask: ``(height, width)`` bool, or None.

    Returns:
      ``(h, w, 3)`` uint8, the longer side `THUMBNAIL` pixels or less.
    """
    from PIL import Image

    from mtbus_jax.images import overlay
    from mtbus_jax.images.preprocess import resize_nearest

    scale = min(1.0, THUMBNAIL / max(grey.shape))
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)
    small = np.repeat(np.asarray(picture)[..., None], 3, axis=-1).copy()
    if mask is not None and mask.any():
        shape = resize_nearest(mask, height, width)
        small[shape & ~scipy.ndimage.binary_erosion(shape)] = overlay.NO_CLASS
    return small


def warnings(checked: Checked) -> list[str]:
    """What may harm training, one sentence each; empty if nothing was found."""
    from tfds_busi import own

    found = []
    seen, usable = checked.seen, checked.usable
    found += checked.notes
    if len(usable) < len(seen):
        found.append(f"{len(seen) - len(usable)} of {len(seen)} pictures cannot be used.")
    counts = Counter(each.label for each in usable if each.label)
    rare = [name for name in checked.classes.names if 0 < counts[name] < 20]
    if rare:
        found.append(f"There are fewer than 20 pictures of {', '.join(rare)}.")
    for what, missing in (
        ("class", sum(not each.label for each in usable)),
        ("mask", sum(each.lesion is None for each in usable)),
    ):
        if missing:
            found.append(f"{missing} pictures have no {what}; they train only the other task.")
    for words, what in (
        (images.BETWEEN, "masks have values between black and white"),
        (_MOST, "masks cover more than half of their picture, as inverted ones do"),
        (_OUTLINE, "masks are outlines that are not filled, so that a network learns rings"),
        (own.TURNED_IS, "pictures are turned by their orientation tags, which masks may lack"),
    ):
        count = sum(any(note.endswith(words) for note in each.notes) for each in usable)
        if count:
            found.append(f"{count} {what}; images.csv names them.")
    like_masks = [e.uid for e in usable if any(n.endswith(own.LIKE_A_MASK) for n in e.notes)]
    if like_masks:
        found.append(
            f"{len(like_masks)} pictures are black and white alone, or hold a few small numbers, "
            f"as masks do, such as {like_masks[0]}."
        )
    found += _other_greys(usable)
    names, normal = checked.classes.names, checked.classes.normal
    lesion_classes = [name for code, name in enumerate(names) if code != normal]
    empty = [each.uid for each in usable if each.lesion == 0 and each.label in lesion_classes]
    if empty:
        found.append(f"{len(empty)} masks are empty although the class means a lesion.")
    if normal is not None:
        drawn = [each.uid for each in usable if each.lesion and each.label == names[normal]]
        if drawn:
            found.append(f"{len(drawn)} pictures of {names[normal]} have a mask with a lesion.")
    if checked.duplicates:
        count = sum(map(len, checked.duplicates))
        mixed = _with_two_labels(checked)
        found.append(
            f"{count} pictures are near-duplicates of others, in {len(checked.duplicates)} sets"
            + (f", {mixed} of them with more than one class" if mixed else "")
            + ". A grouped split keeps each set together."
        )
    if checked.duplicates is None:
        found.append(f"Near-duplicates were not looked for ({checked.not_compared}).")
    marked = Counter(each.label for each in usable if each.marks)
    if marked and len(counts) > 1:
        shares = {name: marked[name] / counts[name] for name in counts}
        if max(shares.values()) - min(shares.values()) > 0.2:
            listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            found.append(
                f"Calipers and text differ between the classes ({listed}), so that a network can "
                "tell them apart without looking at the tissue."
            )
    return found


def _other_greys(usable: list[Seen]) -> list[str]:
    """Warnings about types of file whose values are scaled to 8 bits in different ways."""
    ways: dict[str, Counter[str]] = {}
    for each in usable:
        scaled = (note for note in each.notes if note.endswith(_SCALED))
        way = next(scaled, "8-bit values as they are")
        ways.setdefault(Path(each.file).suffix.lower(), Counter())[way] += 1
    found = []
    for suffix, each in ways.items():
        if len(each) > 1 and suffix not in dicom.SUFFIXES:
            listed = ", ".join(f"{count} {way}" for way, count in each.most_common(_SHOWN))
            more = f" and {len(each) - _SHOWN} more ways" if len(each) > _SHOWN else ""
            found.append(
                f"Grey values of {suffix or 'files without a suffix'} are read in several ways, "
                f"each by the file itself: {listed}{more}. The same value is not the same grey in "
                "all; save them with one depth if it should be."
            )
    return found


def _with_two_labels(checked: Checked) -> int:
    label = {each.uid: each.label for each in checked.seen}
    return sum(len({label[uid] for uid in each} - {""}) > 1 for each in checked.duplicates or ())
