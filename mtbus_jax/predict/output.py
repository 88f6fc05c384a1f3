"""Writes the results: masks, overlays, probability maps, DICOM objects; tables row by row."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtbus_jax.errors import UserError, unwritable
from mtbus_jax.files import (
    GrowingFile,
    cell,
    csv_line,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from mtbus_jax.images import ReadError, Source, overlay
from mtbus_jax.predict import progress
from mtbus_jax.predict.dicom_output import DicomOutput
from mtbus_jax.predict.measure import columns, measure, result_name
from mtbus_jax.predict.out_folder import (
    CAPTURE,
    DICOM,
    FAILURES,
    MASKS,
    OURS,
    OVERLAYS,
    PROBABILITIES,
    SEGMENTATION,
    SETTINGS,
    files_in,
    source_of,
)
from mtbus_jax.predict.prediction import UNCERTAIN, Prediction
from mtbus_jax.predict.progress import PREDICTIONS, PROGRESS, Done

PROBABILITY_FORMATS = ("npy", "png")
_FAILURE_COLUMNS = ("file", "from_frame", "reason")


class Output:
    """Writes results into a folder.

    Every file is either complete or absent. Tables grow by whole rows; a killed process may leave a
    truncated last row.

    Attributes:
      done: number of pictures of each file that was finished before, by name.
      again: names of files that were finished before, but have changed or lost results since.
      failures: files that cannot be read.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        sources: Sequence[Source],
        *,
        probabilities: str | None = None,
        dicom: DicomOutput | None = None,
        go_on: bool = False,
    ):
        """Makes the folder ready: empties it (see `check_free`), or keeps what is finished there.

        Args:
          out: the folder.
          settings: what the results were made with, for ``settings.json``.
          sources: all files to be predicted, in order.
          probabilities: one of `PROBABILITY_FORMATS` to write probability maps, or None.
          dicom: what makes DICOM objects; None to write none.
          go_on: whether to keep what is finished there.

        Raises:
          UserError: if the folder cannot be written, or holds results of another prediction.
        """
        self._out, self._probabilities, self._dicom = out, probabilities, dicom
        self._columns = columns(tuple(settings["class_names"]))
        self._place = {cell(source.name): place for place, source in enumerate(sources)}
        self._places: list[int] = []  # index of the source of each row of the table
        self._begun: set[str] = set()
        self.done: dict[str, int] = {}
        self.again: list[str] = []
        self.failures: list[ReadError] = []
        rows, lines = [], []
        remove_leftovers(out)
        try:
            if go_on and (out / SETTINGS).exists():
                rows, lines = self._kept(settings, sources)
            else:
                self._empty()
                out.mkdir(parents=True, exist_ok=True)
                write_json(out / SETTINGS, settings)
            self._progress = GrowingFile(out / PROGRESS, "".join(lines))
            self._table = GrowingFile(out / PREDICTIONS, _csv(self._columns, rows, header=True))
            self._failed = GrowingFile(out / FAILURES, _csv(_FAILURE_COLUMNS, [], header=True))
        except OSError as error:
            raise UserError(f"--out={out} cannot be written ({error}).") from None

    def _empty(self) -> None:
        for name in sorted(OURS - {SETTINGS}):
            path = self._out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _kept(
        self, settings: dict[str, Any], sources: Sequence[Source]
    ) -> tuple[list[dict[str, str]], list[str]]:
        """Rows and progress lines of finished sources; removes the files of unfinished ones."""
        path = self._out / SETTINGS
        earlier = read_json(path, {}, mend="Give --overwrite, or another folder")
        progress.check_same(path, earlier, settings)
        begun, done = progress.read(self._out)
        progress.check_inputs(self._out, sources, done)
        rows, lines = [], []
        found = progress.finished(self._out, sources, progress.read_rows(self._out), done)
        for source, known, own in found:
            if self._dicom is not None and not self._dicom.resume(source, self._out, own):
                continue
            self.done[source.name] = known.frames
            self._places += [self._place[cell(source.name)]] * len(own)
            rows += own
            lines += [progress.begun_line(source.name), progress.done_line(source.name, known)]
        self._begun = set(self.done)
        self.again = sorted(done.keys() - self.done.keys())
        for folder in {(self._out / name).parent for name in files_in(self._out)}:
            remove_leftovers(folder)
        for name in files_in(self._out):
            if source_of(name) in begun - self._begun:
                (self._out / name).unlink(missing_ok=True)
        return rows, lines

    @property
    def count(self) -> int:
        """Rows of the table so far."""
        return len(self._places)

    def write(self, source: Source, prediction: Prediction) -> None:
        """Writes the files of one prediction, then its row.

        Raises:
          UserError: if they cannot be written.
        """
        if source.name not in self._begun:  # lets `_written` recognise the files after a stop
            self._progress.append(progress.begun_line(source.name))
            self._begun.add(source.name)
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
        self._table.append(_csv(self._columns, [_cells(row)]))
        self._places.append(self._place[cell(source.name)])

    def end(self, source: Source, done: Done) -> None:
        """Notes that a source has all its results.

        Raises:
          UserError: if that cannot be written.
        """
        self._progress.append(progress.done_line(source.name, done))

    def fail(self, failure: ReadError) -> None:
        """Records a file that cannot be read, or not to its end.

        Raises:
          UserError: if that cannot be written.
        """
        self.failures.append(failure)
        row = {"file": failure.file, "from_frame": failure.number, "reason": failure.reason}
        self._failed.append(_csv(_FAILURE_COLUMNS, [_cells(row)]))

    def finish(self) -> None:
        """Sorts the rows into the order of the sources, which continuing may have mixed up.

        Raises:
          UserError: if the table cannot be written.
        """
        for file in (self._progress, self._table, self._failed):
            file.close()
        if self._places != sorted(self._places):
            rows = progress.read_rows(self._out)
            rows.sort(key=lambda row: self._place[progress.source_name(row["name"])])
            write_text(self._out / PREDICTIONS, _csv(self._columns, rows, header=True))

    def _save(self, folder: str, file_name: str, content: bytes) -> str:
        path = self._out / folder / file_name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from None
        write_bytes(path, content)
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
      **options: options of Pillow's writer.
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
    # Steps of 1/256 that preserve the threshold: p > 1/2 exactly where the grey value is ≥ 128.
    return png(np.clip(np.ceil(probability * 256) - 1, 0, 255).astype(np.uint8))


_ENCODERS = {"npy": _npy, "png": _probability_png}


def _csv(columns: tuple[str, ...], rows: list[dict[str, Any]], *, header: bool = False) -> str:
    lines = [[row.get(column, "") for column in columns] for row in rows]
    return "".join(map(csv_line, [columns, *lines] if header else lines))


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {name: cell(value) for name, value in row.items()}
