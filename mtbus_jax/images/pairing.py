"""Which of the files below a folder are masks, and of which pictures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax.images import dicom, picture

SUFFIXES = picture.SUFFIXES + dicom.SUFFIXES
# Words for masks and pictures, in English, German, French, Spanish, Portuguese and Italian.
_MASK_WORDS = ("mask", "masks", "maske", "masken", "masque", "masques", "mascara", "mascaras")
_MASK_WORDS += ("máscara", "máscaras", "maschera", "maschere", "gt", "segmentation")
MASK_FOLDERS = (*_MASK_WORDS, "segmentations", "ground_truth")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "bilder", "bild", "imágenes", "imagenes")
IMAGE_FOLDERS += ("imagens", "immagini")
# macOS stores letters and their accents separately.
_SPELLED = {*_MASK_WORDS, *(unicodedata.normalize("NFD", word) for word in _MASK_WORDS)}
# The name of a mask beside its picture ends with a word for a mask, numbered or not.
_ANY_WORD = "|".join(sorted(_SPELLED))
_MASK = re.compile(rf"(.+)[ ._-](?:{_ANY_WORD}|seg|tumou?r)(?:_?\d+)?", re.IGNORECASE)


def stem(path: Path) -> Path:
    """A path without its suffix, if it is the suffix of a picture: "1.2.840" keeps its numbers."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def folded(name: str) -> str:
    """The name of a folder for comparison: in lower case, with letters and accents combined."""
    return unicodedata.normalize("NFC", name.lower())


def owners(paths: Sequence[Path], root: Path) -> dict[Path, Path]:
    """Which files are masks, and of which pictures.

    A mask lies beside its picture and is called ``x_mask.png``, ``x_seg.png``, ``x_tumor.png`` or
    the like, numbered or not (``x_mask_1.png``); or it lies in ``masks/`` and has the name of a
    picture in ``images/``, or in the folder that holds ``masks/``. The case of these words does
    not matter.

    Args:
      paths: pictures below a folder.
      root: the folder; the names of folders above it do not count.

    Returns:
      Mask → its picture.
    """
    by_stem = {stem(path): path for path in paths}
    by_place: dict[tuple[str, ...], Path] = {}
    for path in paths:
        by_place.setdefault(_place(path.relative_to(root), IMAGE_FOLDERS, "*"), path)
    found = {}
    for path in paths:
        owner = _owner(path, root, by_stem, by_place)
        if owner is not None and owner != path:
            found[path] = owner
    # A mask's mask is not a mask: "x_mask_mask.png" beside "x_mask.png" and "x.png".
    return {mask: owner for mask, owner in found.items() if owner not in found}


def picture_of(mask: Path) -> str | None:
    """Stem of the picture that a mask's name refers to, such as ``x`` for ``x_mask_1.png``.

    None if the name is not the name of a mask.
    """
    match = _MASK.fullmatch(stem(mask).name)
    return match[1] if match else None


def _owner(
    path: Path, root: Path, by_stem: dict[Path, Path], by_place: dict[tuple[str, ...], Path]
) -> Path | None:
    own = picture_of(path)
    beside = by_stem.get(path.with_name(own)) if own else None
    if beside is not None:
        return beside
    relative = path.relative_to(root)
    if not any(folded(part) in MASK_FOLDERS for part in relative.parts[:-1]):
        return None
    names = [relative, *([relative.with_name(own)] if own else [])]
    for name in names:
        for place in (_place(name, MASK_FOLDERS, "*"), _place(name, MASK_FOLDERS, None)):
            if place in by_place:
                return by_place[place]
    return None


def _place(relative: Path, folders: tuple[str, ...], instead: str | None) -> tuple[str, ...]:
    """Folders in lower case and the stem; the named folders are replaced or left out."""
    *above, _ = relative.parts
    parts = [instead if folded(part) in folders else folded(part) for part in above]
    return (*(part for part in parts if part is not None), stem(relative).name)
