"""The review sheet, on which a person decides, and the accepted-pairs file that it saves."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mtbus_jax.curate import folder
from mtbus_jax.curate.groups import Pair
from mtbus_jax.curate.pipeline import Findings
from mtbus_jax.errors import UserError
from mtbus_jax.escaping import json_element
from mtbus_jax.files import without_sign

FORMAT = "mtbus_jax accepted pairs 1"

# Pictures on the sheet, in pixels of their longer side.
_SIDE = 280
_OUTLINE = (255, 190, 40)
# Each image brings one or two pictures of about 10 kB.
_MOST_PAIRS = 800


def fingerprint(uid: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that identify the names in an archive."""
    return hashlib.sha256("\n".join(uid).encode()).hexdigest()[:16]


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _pictures(entry: folder.Entry) -> tuple[str, str]:
    """The image, and the image with its mask outlined (``""`` without a mask), as data URIs."""
    picture = folder.read_picture(entry)
    pixels = picture.grey if picture.colour is None else picture.colour
    height, width = picture.grey.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
    try:
        mask, _ = folder.read_mask(entry, picture.grey.shape)
    except ValueError:
        mask = None
    if mask is None or not mask.any():
        return _data_uri(image), ""
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size)) > 127
    outlined = np.array(image.convert("RGB"))
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, _OUTLINE, 1)
    return _data_uri(image), _data_uri(Image.fromarray(outlined))


def _note(pair: Pair) -> str:
    notes = []
    if pair.identical:
        notes.append("identical pictures")
    if pair.geometry.mirrored:
        notes.append("mirrored")
    if pair.score > 0.1 and not 0.97 < pair.geometry.scale < 1.03:
        notes.append(f"scale {pair.geometry.scale:.2f}")
    return ", ".join(notes)


def _chosen_pairs(findings: Findings) -> list[Pair]:
    """The accepted pairs and the likeliest others, highest SSIM first."""
    accepted = {(p.first, p.second) for p in findings.accepted}
    others = [p for p in findings.pairs if (p.first, p.second) not in accepted]
    others.sort(key=lambda p: -max(p.ssim, p.score))
    room = max(0, _MOST_PAIRS - len(accepted))
    return sorted([*findings.accepted, *others[:room]], key=lambda p: (-p.ssim, p.first, p.second))


def write_review(findings: Findings, path: Path) -> None:
    """Writes the sheet as one HTML file that needs nothing else and no network."""
    archive = findings.archive
    pairs = _chosen_pairs(findings)
    accepted = {(p.first, p.second) for p in findings.accepted}
    used = sorted({index for p in pairs for index in (p.first, p.second)})
    place = {index: k for k, index in enumerate(used)}
    images = []
    for index in used:
        bare, outlined = _pictures(archive.entries[index])
        entry = archive.entries[index]
        images.append({"uid": entry.uid, "label": entry.label, "bare": bare, "outlined": outlined})
    data = {
        "format": FORMAT,
        "archive": fingerprint(archive.uid),
        "sheet": _sheet(archive.uid, pairs, accepted),
        "images": images,
        "pairs": [
            {
                "a": place[p.first],
                "b": place[p.second],
                "ssim": round(p.ssim, 4),
                "detail": round(p.geometry.detail, 4),
                "overlap": round(p.geometry.overlap, 3),
                "note": _note(p),
                "rule": p.is_copy(findings.options.threshold),
                "accepted": (p.first, p.second) in accepted,
            }
            for p in pairs
        ],
    }
    page = resources.files("mtbus_jax.curate").joinpath("review_page.html").read_text("utf-8")
    path.write_text(page.replace("__DATA__", json_element("data", data), 1), encoding="utf-8")


def _sheet(uid: Sequence[str], pairs: list[Pair], accepted: set[tuple[int, int]]) -> str:
    """A digest of what a sheet shows, under which a browser stores its ticks."""
    shown = [[uid[p.first], uid[p.second], (p.first, p.second) in accepted] for p in pairs]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def write_accepted(path: Path, uid: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Writes pairs in the form that the sheet saves."""
    data = {
        "format": FORMAT,
        "archive": fingerprint(uid),
        "pairs": [[uid[p.first], uid[p.second]] for p in pairs],
    }
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_accepted(path: Path, known: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Pairs of uids from the sheet's JSON file, or from a CSV file with columns ``first,second``.

    Args:
      path: of the file.
      known: uids of the archive; None skips the check of the names.

    Raises:
      UserError: if the file is missing, has another format, or names other images.
    """
    pairs = _read_pairs(path)
    strange = sorted({uid for pair in pairs for uid in pair} - set(known or ()))
    if known is not None and strange:
        raise UserError(
            f"--accepted={path} names {strange[0]!r}, which the archive does not hold. Its images "
            f"are called like {next(iter(known), '')!r}."
        )
    return pairs


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--accepted={path} cannot be read ({error}).") from error
    if path.suffix.lower() == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        if rows and not {"first", "second"} <= set(rows[0]):
            raise UserError(f"--accepted={path} needs the columns first and second.")
        return [(without_sign(row["first"]), without_sign(row["second"])) for row in rows]
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}")
        return [(str(first), str(second)) for first, second in data["pairs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--accepted={path} is not a file of accepted pairs ({error}). Give the "
            f"accepted_pairs.json that the review sheet saved, or a CSV file with the columns "
            f"first and second."
        ) from error
