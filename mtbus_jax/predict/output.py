"""The folder of results: masks, overlays, probability maps, and tables at the end."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtbus_jax.errors import UserError
from mtbus_jax.files import write_bytes, write_json, write_text
from mtbus_jax.images import ReadError, Source, overlay
from mtbus_jax.predict.measure import columns, measure, result_name
from mtbus_jax.predict.predictor import UNCERTAIN, Prediction

SETTINGS, PREDICTIONS, FAILURES = "settings.json", "predictions.csv", "failures.csv"
MASKS, OVERLAYS, PROBABILITIES = "masks", "overlays", "probabilities"
PROBABILITY_FORMATS = ("npy", "png")
_OURS = {SETTINGS, PREDICTIONS, FAILURES, MASKS, OVERLAYS, PROBABILITIES}


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder that results cannot go to; changes nothing.

    Raises:
      UserError: if it is a file, or holds something and ``overwrite`` is not given, or something
        that no earlier prediction wrote.
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


class Output:
    """Writes results into a folder; every file appears whole or not at all."""

    def __init__(self, out: Path, settings: dict[str, Any], *, probabilities: str | None = None):
        """Empties the folder (see `check_free`), or makes it, and writes the settings.

        Args:
          out: the folder.
          settings: what the results were made with, for ``settings.json``.
          probabilities: one of `PROBABILITY_FORMATS` to write probability maps, or None.

        Raises:
          UserError: if the folder cannot be written.
        """
        self._out, self._probabilities = out, probabilities
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
        """Writes the pictures of one prediction and keeps its row.

        Raises:
          UserError: if they cannot be written.
        """
        name = result_name(source, prediction)
        row = measure(source, prediction)
        if prediction.mask is not None:
            row["mask"] = self._save(MASKS, f"{name}.png", _png(prediction.mask))
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
        row["overlay"] = self._save(OVERLAYS, f"{name}.png", _png(drawn, compress_level=1))
        if prediction.probability is not None and self._probabilities:
            content = _ENCODERS[self._probabilities](prediction.probability_map())
            file_name = f"{name}.{self._probabilities}"
            row["probability_map"] = self._save(PROBABILITIES, file_name, content)
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
            area += f" = {row['area_mm2']:,.1f} mm²"
        lines.append(area)
    if row["refined"] not in ("", "no", "off"):
        dashed = " (dashed)" if "mask removed" in row["refined"] else ""
        lines.append(f"refined: {row['refined']}{dashed}")
    if row["warning"] == UNCERTAIN:
        lines.append(f"warning: uncertain (probability of being wrong {row['uncertainty']:.2f})")
    return lines


def _png(pixels: np.ndarray, **options: int) -> bytes:
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
    return _png(np.clip(np.ceil(probability * 256) - 1, 0, 255).astype(np.uint8))


_ENCODERS = {"npy": _npy, "png": _probability_png}


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
