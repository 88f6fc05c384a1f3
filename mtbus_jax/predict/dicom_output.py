"""The DICOM objects of a whole prediction, grouped into series; written with ``--dicom``."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any, NamedTuple

from mtbus_jax.images import Source, silence
from mtbus_jax.predict import dicom_objects, dicom_source
from mtbus_jax.predict.dicom_objects import Place, Software
from mtbus_jax.predict.prediction import Prediction

_KINDS = ("segmentation", "capture")
_NO_OBJECTS = "no DICOM objects: "


class Made(NamedTuple):
    """The objects of one prediction.

    Attributes:
      segmentation: a file, or None if there is no mask or it is empty.
      capture: a file, or None if no object can be made.
      note: why there is none; "" otherwise.
    """

    segmentation: bytes | None
    capture: bytes | None
    note: str


class DicomOutput:
    """Makes the objects of one prediction after another.

    Every prediction gets new UIDs: an object records when it was made, and archives treat two
    different objects with the same UID as an error. Each source series gets one series of
    Segmentations and one of Secondary Captures.

    Attributes:
      count: pictures with objects.
      without: pictures without, by reason.
    """

    def __init__(self, software: Software):
        """Starts without any series.

        Args:
          software: what makes the objects.

        Raises:
          UserError: if highdicom is missing.
        """
        dicom_objects.check_installed()
        self._software = software
        self._series: dict[tuple[str, str, str], str] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        self._read: tuple[Path, Any] | None = None  # the frames of a file come one by one
        self.count = 0
        self.without: collections.Counter[str] = collections.Counter()

    def make(self, source: Source, prediction: Prediction, lines: list[str]) -> Made:
        """Makes the objects of a prediction.

        Args:
          source: where the picture comes from.
          prediction: the result for it.
          lines: text for the capture.
        """
        try:
            header = self._header(source.path)
            shape = prediction.frame.grey.shape
            if shape != (header.get("Rows"), header.get("Columns")):
                raise dicom_source.NoObjectsError("the picture has another size than its header")
            with silence.quiet():
                made = self._made(header, prediction, lines)
            self.count += 1
            return made
        except dicom_source.NoObjectsError as error:
            reason = str(error)
        except Exception as error:  # the header may hold values that no device should write
            reason = f"the header cannot be used ({type(error).__name__})"
        self.without[reason] += 1
        return Made(None, None, f"{_NO_OBJECTS}{reason}")

    def resume(self, source: Source, out: Path, rows: list[dict[str, str]]) -> bool:
        """Continues the series of objects that an earlier prediction made from a source.

        Args:
          source: where the pictures come from.
          out: the folder of results.
          rows: the rows of its table about the source.

        Returns:
          Whether the objects that the rows name can be read.
        """
        import pydicom

        places = []
        for row in rows:
            for kind in _KINDS:
                if not row[f"dicom_{kind}"]:
                    continue
                try:
                    header = self._header(source.path)
                    tags = ["SeriesInstanceUID", "InstanceNumber"]
                    with silence.quiet():
                        made = pydicom.dcmread(out / row[f"dicom_{kind}"], specific_tags=tags)
                    series, number = str(made.SeriesInstanceUID), int(made.InstanceNumber)
                    places.append((_key(header, kind), Place(series, number)))
                except Exception:  # damaged; it is made again
                    return False
        for key, place in places:
            self._series[key] = place.series
            self._counts[place.series] = max(self._counts[place.series], place.number)
        self.count += sum(1 for row in rows if row["dicom_capture"])
        for row in rows:
            if not row["dicom_capture"]:
                self.without[row["notes"].rpartition(_NO_OBJECTS)[2]] += 1
        return True

    def _header(self, path: Path) -> Any:
        """The header of a source; raises `dicom_source.NoObjectsError`, for each of its frames."""
        if self._read is None or self._read[0] != path:
            try:
                self._read = path, dicom_source.read(path)
            except dicom_source.NoObjectsError as error:
                self._read = path, error
        found = self._read[1]
        if isinstance(found, dicom_source.NoObjectsError):
            raise found
        return found

    def _made(self, header: Any, prediction: Prediction, lines: list[str]) -> Made:
        segmentation = None
        if prediction.mask is not None and prediction.mask.any():
            place = self._place(header, "segmentation")
            segmentation = dicom_objects.segmentation(header, prediction, self._software, place)
        place = self._place(header, "capture")
        capture = dicom_objects.capture(header, prediction, lines, self._software, place)
        return Made(segmentation, capture, "")

    def _place(self, header: Any, kind: str) -> Place:
        """The next place in the series of that kind which belongs to the source's series."""
        import highdicom

        series = self._series.setdefault(_key(header, kind), str(highdicom.UID()))
        self._counts[series] += 1
        return Place(series, self._counts[series])


def _key(header: Any, kind: str) -> tuple[str, str, str]:
    """What the objects of one series share."""
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID), kind
