"""The audit of splits, on cases small enough to count by hand."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from mtbus_jax.curate.audit import audit_split
from mtbus_jax.errors import UserError
from mtbus_jax.grouping import merge_groups, read_near_duplicates
from mtbus_jax.types import NO_FOLD

UID = ["a", "b", "c", "d", "e", "f", "g"]


def test_a_leak_counts_every_member_of_the_group():
    group = ["x", "x", "x", "y", "y", "", ""]
    report = audit_split(UID, group, [0, 0, 1, 2, 2, 0, 1])
    assert report.touched == 3
    assert report.groups == 2
    assert [(leak.group, leak.uid) for leak in report.leaks] == [
        ("x", {"0": ("a", "b"), "1": ("c",)})
    ]
    assert report.tested == {"0": 3, "1": 2, "2": 2}
    assert report.touched_in == {"0": 2, "1": 1, "2": 0}
    assert not report.clean
    text = " ".join(report.summary().split())
    assert "1 of 2 groups sits in more than one fold: 3 of 7 test images (42.9 %)" in text
    assert "x (fold 0: a, b; fold 1: c)" in text


def test_a_clean_split_is_called_clean():
    report = audit_split(UID, ["x", "x", "", "", "", "y", "y"], [1, 1, 0, 0, 1, 0, 0])
    assert report.clean and report.touched == 0 and report.groups == 2
    assert "No group sits in more than one fold" in report.summary()


def test_images_of_one_group_outside_the_split_do_not_leak():
    report = audit_split(["a", "b", "c"], ["x", "x", "x"], [NO_FOLD, 1, 1])
    assert report.clean and report.images == 2


def test_a_single_split_into_training_and_test():
    report = audit_split(["a", "b", "c"], ["x", "x", ""], ["train", "test", "test"])
    assert report.touched_in["test"] == 1 and report.tested["test"] == 2


def test_empty_names_are_no_group():
    assert audit_split(["a", "b"], ["", ""], [0, 1]).clean


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="twice"):
        audit_split(["a", "a"], ["", ""], [0, 1])
    with pytest.raises(ValueError, match="3 folds"):
        audit_split(["a", "b"], ["", ""], [0, 1, 2])


def test_image_level_folds_leak_patients_and_the_count_agrees_with_a_plain_loop():
    rng = np.random.default_rng(3)
    patient = np.array([f"P{k:02d}" for k in rng.integers(0, 15, 90)])
    label = rng.integers(0, 3, 90)
    fold = np.zeros(90, int)
    for k, (_, test) in enumerate(
        StratifiedKFold(4, shuffle=True, random_state=1).split(label, label)
    ):
        fold[test] = k
    expected = sum(
        any(patient[j] == patient[i] and fold[j] != fold[i] for j in range(90)) for i in range(90)
    )
    report = audit_split([str(k) for k in range(90)], patient, fold)
    assert report.touched == expected > 0


def test_merging_keeps_together_what_either_grouping_keeps_together():
    near = ["n1", "", "n1", "", "n2", "n2", ""]
    patient = ["P1", "P1", "P2", "P3", "P4", "P5", ""]
    merged = merge_groups(near, patient)
    assert merged[0] == merged[1] == merged[2] != ""
    assert merged[4] == merged[5] != merged[0]
    assert merged[3] == "P3" and merged[6] == ""
    assert (merged == merge_groups(patient, near)).all()


def test_the_file_of_near_duplicates(tmp_path):
    path = tmp_path / "near.csv"
    path.write_text("dataset,uid,group\none,a,g1\none,b,g1\ntwo,a,h\n", encoding="utf-8")
    assert read_near_duplicates(path, "one", ["b", "z", "a"]).tolist() == ["g1", "", "g1"]
    path.write_text("uid,group\na,g\n", encoding="utf-8")
    with pytest.raises(UserError, match="dataset"):
        read_near_duplicates(path, "one", ["a"])


def test_the_audit_needs_no_package_of_the_curate_extra():
    code = (
        "import sys\n"
        "for name in ('cv2', 'faiss', 'statsmodels', 'matplotlib', 'jax', 'tensorflow'):\n"
        "    sys.modules[name] = None\n"
        "import mtbus_jax.curate.audit\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def committed(name):
    path = Path(__file__).resolve().parents[2] / "tfds_busi" / name
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_duplicates_have_the_published_structure():
    rows = committed("duplicate_groups.csv")
    assert len({(row["class"], row["id"]) for row in rows}) == len(rows) == 330
    # BUSI less these images is the published set: 222 benign, 164 malignant, 64 normal.
    assert Counter(row["class"] for row in rows) == {
        "benign": 437 - 222, "malignant": 210 - 164, "normal": 133 - 64,
    }  # fmt: skip
    members = Counter(row["group"] for row in rows)
    assert Counter(members.values()) == {4: 5, 3: 22, 2: 122}
    kind = {4: "quadruplet", 3: "triplet", 2: "duplet"}
    assert all(name.startswith(kind[size]) for name, size in members.items())


def test_the_committed_near_duplicates_agree_with_the_duplicates():
    rows = committed("near_duplicates.csv")
    groups = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["group"]), set()).add(row["uid"])
    assert len({(row["dataset"], row["uid"]) for row in rows}) == len(rows)
    assert all(len(members) > 1 for members in groups.values())
    assert Counter(dataset for dataset, _ in groups) == {
        "busi": 151, "curated_busi": 2, "bus_uclm": 32,
    }  # fmt: skip
    removed = {f"{r['class']}_{r['id']}": r["group"] for r in committed("duplicate_groups.csv")}
    in_busi = {row["uid"]: row["group"] for row in rows if row["dataset"] == "busi"}
    curated = {row["uid"]: row["group"] for row in rows if row["dataset"] == "curated_busi"}
    assert in_busi == {**removed, **curated} and not set(removed) & set(curated)
