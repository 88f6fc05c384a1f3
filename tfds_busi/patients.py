"""Which pictures show the same person, according to their DICOM files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from mtbus_jax import grouping
from mtbus_jax.images import dicom_patient
from tfds_busi import listing

# A patient with a greater share of the pictures does not fit into one of four folds.
_LARGE = 0.25
_FEW = 20  # pictures; of fewer, one patient easily has a quarter
_NAME_THEM = "name the patients in a column group of a manifest.csv"


class Patients(NamedTuple):
    """What the files say.

    Attributes:
      names: a name for each picture's patient, made from that patient's first picture, because
        identifiers would identify people; "" if the patient is not known.
      said: how many patients there are, as text; empty if none is known.
      notes: what a person should know about them, in sentences.
    """

    names: list[str]
    said: list[str]
    notes: list[str]


def of(entries: Sequence[listing.Entry]) -> Patients:
    """Patients by the elements PatientID and StudyInstanceUID.

    Pictures that share one of them are of one patient. A study with a single picture says nothing
    about its patient. An element with the same value in all files that have it, as after
    anonymisation, distinguishes nobody and is not used.
    """
    said = [dicom_patient.patient_and_study(entry.image) for entry in entries]
    patient, study = (list(each) for each in zip(*said, strict=True))
    notes = []
    if _tells_nothing(patient):
        notes.append(
            f"{sum(map(bool, patient))} DICOM files name the same patient, which is not used to "
            f"keep pictures together. If they are of several, {_NAME_THEM}."
        )
        patient = [""] * len(entries)
    # A study of one picture keeps nothing together: many anonymisers give each file its own.
    unused = {each for each, count in Counter(study).items() if count == 1}
    unused |= set(study) if _tells_nothing(study) else set()
    study = ["" if each in unused else each for each in study]
    joined = grouping.merge_groups(
        [f"patient {each}" if each else "" for each in patient],
        [f"study {each}" if each else "" for each in study],
    )
    of_study = sum(bool(s) and not p for p, s in zip(patient, study, strict=True))
    if of_study:
        notes.append(
            f"{of_study} DICOM files are kept together by their study alone, as they name no "
            "patient that tells them apart. Someone who was examined twice counts as two: "
            f"{_NAME_THEM} if that can be."
        )
    first: dict[str, str] = {}
    names = [
        f"patient of {first.setdefault(name, entry.uid)}" if name else ""
        for name, entry in zip(joined.tolist(), entries, strict=True)
    ]
    counts = Counter(filter(None, names))
    if counts and len(entries) >= _FEW:
        name, most = counts.most_common(1)[0]
        if most > _LARGE * len(entries):
            notes.append(
                f"{most} of {len(entries)} pictures are of one patient by their DICOM files "
                f"({name}), and stay in one fold. If they are of several, {_NAME_THEM}."
            )
    what = "patients or studies" if of_study else "patients"
    return Patients(names, [f"{len(counts)} {what} by their DICOM files"] * bool(counts), notes)


def _tells_nothing(values: Sequence[str]) -> bool:
    counts = Counter(filter(None, values))
    return len(counts) == 1 and counts.total() > 1
