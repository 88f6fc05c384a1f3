"""The folder of results: masks, overlays, probability maps, DICOM objects; tables at the end."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtbus_jax.errors import UserError
from mtbus_jax.files import cell, write_bytes, write_json, write_text
from mtbus_jax.images import ReadError, Source, overlay
from mtbus_jax.predict.dicom_output import DicomOutput
from mtbus_jax.predict.measure import DICOM_COLUMNS, columns, measure, result_name
from mtbus_jax.predict.predictor import UNCERTAIN, Prediction

SETTINGS, PREDICTIONS, FAILURES = "settings.json", "predictions.csv", "failures.csv"
MASKS, OVERLAYS, PROBABILITIES, DICOM = "masks", "overlays", "probabilities", "dicom"
SEGMENTATION, CAPTURE = ".seg.dcm", ".sc.dcm"  # endings in DICOM
PROBABILITY_FORMATS = ("npy", "png")
_FOLDERS = (MASKS, OVERLAYS, PROBABILITIES, DICOM)
_OURS = {SETTINGS, PREDICTIONS, FAILURES, *_FOLDERS}
# Columns of the table.
_PATHS = ("mask", "overlay", "probability_map", *DICOM_COLUMNS)


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder that results cannot go to; changes nothing.

    Raises:
      UserError: if it is a file, or holds something and ``overwrite`` is not given, or something
        that no earlier prediction wrote, among the masks too.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not held:
        return
    if not overwrite:
        raise UserError(
            f"--out={out} is not empty. Give another folder, or --overwrite to replace the results "
            "of an earlier prediction there."
        )
    if SETTINGS not in held or held - _OURS:
        foreign = sorted(held - _OURS) or sorted(held)
        raise UserError(
            f"--out={out} holds {', '.join(foreign[:3])}, which no prediction wrote, so "
            "--overwrite does not touch it. Give another folder."
        )
    added = sorted(_files_in(out) - _written(out))
    if added:
        more = f" and {len(added) - 3} more" if len(added) > 3 else ""
        raise UserError(
            f"--out={out} holds {', '.join(added[:3])}{more}, which no prediction wrote, so "
            "--overwrite does not touch it. Move it elsewhere, or give another folder."
        )


def _files_in(out: Path) -> set[str]:
    """The files in the folders of results, as ``masks/name.png``."""
    folders = [out / name for name in _FOLDERS]
    found = [path for folder in folders for path in folder.rglob("*") if not path.is_dir()]
    return {path.relative_to(out).as_posix() for path in found}


def _written(out: Path) -> set[str]:
    """Those of them that an earlier prediction wrote, by its table.

    Where it ended before the table was written, an overlay is its own, and whatever is called like
    one.
    """
    held = _files_in(out)
    unfinished = {name for name in held if name.endswith(".partial")}  # by `files.write_bytes`
    try:
        with (out / PREDICTIONS).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return unfinished | {row.get(column) or "" for row in rows for column in _PATHS}
    except FileNotFoundError:
        drawn = {_stem(name) for name in held if name.startswith(f"{OVERLAYS}/")}
        return unfinished | {name for name in held if _stem(name) in drawn}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{out / PREDICTIONS} cannot be read ({error}), so --overwrite does not know what to "
            "replace. Give another folder."
        ) from None


def _stem(name: str) -> str:
    """``sub/x`` of ``masks/sub/x.png`` and of ``dicom/sub/x.seg.dcm``."""
    name = name.partition("/")[2]
    for ending in (SEGMENTATION, CAPTURE):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name.rpartition(".")[0]


class Output:
    """Writes results into a folder; every file appears whole or not at all."""

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        *,
        probabilities: str | None = None,
        dicom: DicomOutput | None = None,
    ):
        """Empties the folder (see `check_free`), or makes it, and writes the settings.

        Args:
          out: the folder.
          settings: what the results were made with, for ``settings.json``.
          probabilities: one of `PROBABILITY_FORMATS` to write probability maps, or None.
          dicom: what makes DICOM objects, or None for none.

        Raises:
          UserError: if the folder cannot be written.
        """
        self._out, self._probabilities, self._dicom = out, probabilities, dicom
        self._class_names = tuple(settings["class_names"])
        self._rows: list[dict[str, Any]] = []
        self.failures: list[ReadError] = []
        try:
            for name in sorted(_OURS - {SETTINGS}):
                path = out / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / SETTINGS, settings)
        except OSError as error:
            raise UserError(f"--out={out} cannot be written ({error}).") from None

    @property
    def count(self) -> int:
        """Predictions written so far."""
        return len(self._rows)

    def write(self, source: Source, prediction: Prediction) -> None:
        """Writes the files of one prediction and keeps its row.

        Raises:
          UserError: if they cannot be written.
        """
        name = result_name(source, prediction)
        row = measure(source, prediction)
        lines = caption(row, prediction.class_names)
        colour = overlay.colour(prediction.class_names, prediction.class_id)
        drawn = overlay.draw(
            prediction.frame.grey,
            prediction.mask,
            lines,
            removed=prediction.unrefined_mask,
            colour=colour,
        )
        # Speckle hardly compresses: the lowest level takes a quarter of the time.
        # The overlay comes first: by it `_written` knows the other files, should this end early.
        row["overlay"] = self._save(OVERLAYS, f"{name}.png", png(drawn, compress_level=1))
        if prediction.mask is not None:
            row["mask"] = self._save(MASKS, f"{name}.png", png(prediction.mask))
        if prediction.probability is not None and self._probabilities:
            content = _ENCODERS[self._probabilities](prediction.probability_map())
            file_name = f"{name}.{self._probabilities}"
            row["probability_map"] = self._save(PROBABILITIES, file_name, content)
        if self._dicom is not None:
            made = self._dicom.make(source, prediction, lines)
            row["notes"] = "; ".join(filter(None, (row["notes"], made.note)))
            if made.segmentation is not None:
                file_name = f"{name}{SEGMENTATION}"
                row["dicom_segmentation"] = self._save(DICOM, file_name, made.segmentation)
            if made.capture is not None:
                row["dicom_capture"] = self._save(DICOM, f"{name}{CAPTURE}", made.capture)
        self._rows.append(row)

    def finish(self) -> None:
        """Writes the tables.

        Raises:
          UserError: if they cannot be written.
        """
        failures = [
            {"file": each.file, "from_frame": each.number, "reason": each.reason}
            for each in self.failures
        ]
        try:
            write_text(self._out / PREDICTIONS, _table(columns(self._class_names), self._rows))
            write_text(self._out / FAILURES, _table(("file", "from_frame", "reason"), failures))
        except OSError as error:
            raise UserError(f"--out={self._out} cannot be written ({error}).") from None

    def _save(self, folder: str, file_name: str, content: bytes) -> str:
        path = self._out / folder / file_name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}). What was written before stays; "
                "--overwrite replaces it next time."
            ) from None
        return f"{folder}/{file_name}"


def caption(row: dict[str, Any], class_names: tuple[str, ...]) -> list[str]:
    """The lines below an overlay, from a row of `measure` about a run with these classes."""
    lines = []
    if "class" in row:
        shown = (f"{name} {row[f'probability_{name}']:.2f}" for name in class_names)
        lines.append(f"{row['class']} ({', '.join(shown)})")
    if "area_px" in row:
        area = f"lesion {row['area_px']:,} px" if row["area_px"] else "no lesion outlined"
        if row.get("area_mm2"):
            area += f" = {row['area_mm2']:,.1f} mm2"  # the font of the overlays has no ²
        lines.append(area)
    if row["refined"] not in ("", "no", "off"):
        dashed = " (dashed)" if "mask removed" in row["refined"] else ""
        lines.append(f"refined: {row['refined']}{dashed}")
    if row["warning"] == UNCERTAIN:
        lines.append(f"warning: uncertain (probability of being wrong {row['uncertainty']:.2f})")
    return lines


def png(pixels: np.ndarray, **options: int) -> bytes:
    """A picture as a PNG file.

    Args:
      pixels: ``(height, width)`` bool, written as 0 and 255, or uint8; or ``(height, width, 3)``
        uint8.
      **options: of Pillow's writer.
    """
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def _npy(probability: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, probability)
    return buffer.getvalue()


def _probability_png(probability: np.ndarray) -> bytes:
    # In steps of 1/256 that keep the side of the threshold: p > 1/2 exactly where the grey ≥ 128.
    return png(np.clip(np.ceil(probability * 256) - 1, 0, 255).astype(np.uint8))


_ENCODERS = {"npy": _npy, "png": _probability_png}


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()
