"""Pictures of one patient stay together by what their DICOM files say."""

import dicom_dummies
import numpy as np
import pytest
from dicom_dummies import SECRET
from PIL import Image

from mtbus_jax import data, splits
from mtbus_jax.check import look
from mtbus_jax.images import dicom_patient
from tfds_busi import layouts, own

pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")


def picture(path, seed, patient=None, study=None, **elements):
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 40, 56)).astype(np.uint8)
    known = {"PatientID": patient or "", **({"StudyInstanceUID": study} if study else {})}
    dicom_dummies.write(path, pixels, **known, **elements)


def folder(tmp_path, patients, studies=None):
    """A folder for each of two classes; pictures go to them in turn."""
    root = tmp_path / "mine"
    for i, patient in enumerate(patients):
        study = studies[i] if studies else None
        picture(root / "ab"[i % 2] / f"{i:02d}.dcm", i, patient, study)
    return root


def groups(root):
    """Names of the pictures in each group of several."""
    listing = layouts.read(root)
    found = {}
    for entry, name in zip(listing.entries, own.groups(listing), strict=True):
        found.setdefault(name, set()).add(entry.uid.rpartition("/")[2])
    return {name: uids for name, uids in found.items() if len(uids) > 1}


def test_pictures_of_a_patient_are_one_group_named_without_an_identifier(tmp_path):
    root = folder(
        tmp_path, [f"{SECRET}-1", f"{SECRET}-2", f"{SECRET}-1 ", f"{SECRET}-2".lower(), ""]
    )
    assert groups(root) == {
        "patient of a/00": {"00", "02"},
        "patient of b/01": {"01", "03"},
    }
    listing = layouts.read(root)
    assert listing.layout.endswith("; 2 patients by their DICOM files")
    assert SECRET.lower() not in str(listing).lower()
    (note,) = listing.notes
    assert "1 pictures have no group beside others with one, such as a/04" in note


def test_a_study_joins_what_patients_do_not(tmp_path):
    root = folder(tmp_path, ["x", "", "y", "", "z"], ["1.2", "1.2", "1.3", "1.4", "1.4"])
    assert list(groups(root).values()) == [{"00", "01"}, {"03", "04"}]
    listing = layouts.read(root)
    assert listing.layout.endswith("; 3 patients or studies by their DICOM files")
    (by_study,) = listing.notes
    assert "2 DICOM files are kept together by their study alone" in by_study


def test_a_study_of_each_file_tells_no_patient(tmp_path):
    root = tmp_path / "mine"
    for i in range(6):
        picture(root / "ab"[i % 2] / f"P{i // 2}" / f"{i}.dcm", i, study=f"1.{i}")
    assert groups(root) == {}
    (note,) = layouts.read(root).notes
    assert "a folder's pictures are not kept together" in note
    assert "DICOM" not in layouts.read(root).layout


@pytest.mark.parametrize("studies", [None, ["1.1"] * 6])
def test_an_identifier_that_is_the_same_everywhere_is_not_used(tmp_path, studies):
    root = folder(tmp_path, ["ANON"] * 6, studies)
    assert groups(root) == {}
    (note,) = layouts.read(root).notes
    assert "6 DICOM files name the same patient, which is not used" in note
    assert "ANON" not in note


def test_one_study_each_tells_patients_apart_where_their_identifiers_do_not(tmp_path):
    root = folder(tmp_path, ["ANON"] * 6, ["1.1", "1.1", "1.2", "1.2", "1.3", "1.3"])
    assert list(groups(root).values()) == [{"00", "01"}, {"02", "03"}, {"04", "05"}]
    same, by_study = layouts.read(root).notes
    assert "6 DICOM files name the same patient" in same and "by their study alone" in by_study


def test_a_patient_with_most_of_the_pictures_is_named(tmp_path):
    root = folder(tmp_path, ["ANON"] * 15 + ["p1"] * 3 + ["p2"] * 2)
    (note,) = layouts.read(root).notes
    assert "15 of 20 pictures are of one patient by their DICOM files (patient of a/00)" in note


def test_groups_of_a_table_come_first_and_are_joined_where_some_are_missing(tmp_path):
    root = tmp_path / "mine"
    for i, patient in enumerate(("x", "x", "y", "y")):
        picture(root / f"{i}.dcm", i, patient)
    rows = [f"{i}.dcm,{'ab'[i % 2]}" for i in range(4)]
    given = [f"{row},g{i}" for i, row in enumerate(rows)]
    table = root / "manifest.csv"
    table.write_text("\n".join(["image,label,group", *given]))
    assert groups(root) == {}  # a person has said it for all
    (note,) = layouts.read(root).notes
    assert "the column group divides the pictures of 2 patients by their DICOM files" in note
    assert "DICOM files" not in layouts.read(root).layout
    table.write_text("\n".join(["image,label,group", *given[:1], *(f"{row}," for row in rows[1:])]))
    assert groups(root) == {"group g0": {"0", "1"}, "patient of 2": {"2", "3"}}


def test_grouped_folds_keep_patients_apart_and_the_check_shows_them(tmp_path):
    root = folder(tmp_path, [f"p{i // 4}" for i in range(32)])
    cases = data.load_cases(root, data_dir=tmp_path / "built", image_size=(32, 32))
    assert len(set(cases.group.tolist())) == 8
    for fold in splits.make_folds(cases, "grouped"):
        train = set(cases.group[[*fold.train, *fold.validation]].tolist())
        assert not train & set(cases.group[fold.test].tolist())
    checked = look.check(root)
    assert {each.group for each in checked.seen} == {
        f"patient of a/{i:02d}" for i in range(0, 32, 4)
    }


def test_folders_of_patients_are_not_taken_for_classes_unsaid(tmp_path):
    root = tmp_path / "mine"
    for i in range(6):
        picture(root / f"NAME{'XYZ'[i // 2]}" / f"{i}.dcm", i, f"p{i // 2}")
    assert any("each of the 3 folders holds the pictures of one patient" in note
               for note in layouts.read(root).notes)  # fmt: skip
    picture(root / "NAMEX" / "more.dcm", 9, "p1")
    assert layouts.read(root).notes == []


def test_patients_in_folders_of_their_own_are_kept_together(tmp_path):
    root = tmp_path / "mine"
    for i in range(8):
        picture(root / "ab"[i % 2] / f"P{i % 4}" / f"{i}.dcm", i, f"p{i % 4}")
    assert layouts.read(root).notes == []
    assert len(groups(root)) == 4


def test_other_files_say_nothing(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "x.png")
    (tmp_path / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (tmp_path / "text.dcm").write_text("no picture")
    picture(tmp_path / "unnamed", 0, "p", "1.2")
    for name, said in (
        ("x.png", ("", "")),
        ("cut.dcm", ("", "")),
        ("text.dcm", ("", "")),
        ("missing.dcm", ("", "")),
        ("unnamed", ("p", "1.2")),
    ):
        assert dicom_patient.patient_and_study(tmp_path / name) == said
