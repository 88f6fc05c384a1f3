"""On the real datasets: the published figures, and the committed lists of copies."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mtbus_jax.curate import analysis, groups, pipeline
from mtbus_jax.curate.audit import audit_split
from mtbus_jax.grouping import merge_groups, read_near_duplicates

pytestmark = [pytest.mark.real, pytest.mark.long]

LISTS = Path(__file__).resolve().parents[2] / "tfds_busi"


def duplicate_groups():
    with (LISTS / "duplicate_groups.csv").open(encoding="utf-8", newline="") as file:
        return {f"{row['class']}_{row['id']}": row["group"] for row in csv.DictReader(file)}


def as_sets(group_of):
    sets = {}
    for uid, name in group_of.items():
        sets.setdefault(name, set()).add(uid)
    return {frozenset(s) for s in sets.values()}


@pytest.fixture(scope="module")
def busi(real_data_dir):
    return pipeline.curate(real_data_dir / "Dataset_BUSI_with_GT")


def test_the_rule_finds_every_removed_image_and_nine_more(busi):
    uid = np.array(busi.archive.uid)
    removed = np.isin(uid, list(duplicate_groups()))
    assert removed.sum() == 330
    found = groups.group_column(len(uid), busi.groups) != ""
    recall = (found & removed).sum() / 330
    precision = (found & removed).sum() / found.sum()
    assert recall >= 0.99 and precision >= 0.95
    assert set(uid[found & ~removed]) == {
        "benign_61", "benign_94", "benign_108", "benign_114", "benign_116", "benign_119",
        "benign_122", "malignant_11", "malignant_113",
    }  # fmt: skip


def test_the_committed_groups_are_the_ones_found(busi):
    uid = busi.archive.uid
    found = {frozenset(uid[m] for m in g.members) for g in busi.groups}
    committed = as_sets(duplicate_groups())
    assert Counter(map(len, committed)) == {4: 5, 3: 22, 2: 122}
    assert committed <= found
    near = read_near_duplicates(LISTS / "near_duplicates.csv", "busi", uid)
    named = {u: g for u, g in zip(uid, near, strict=True) if g}
    assert as_sets(named) == found
    assert all(named[u] == g for u, g in duplicate_groups().items())


def test_ssim_and_masks_of_the_published_groups(busi):
    """§4.2 of the paper: 0.614 ± 0.172, 0.103 ± 0.040, threshold about 0.23; masks."""
    uid = busi.archive.uid
    number = {u: k for k, u in enumerate(uid)}
    sets = [tuple(sorted(number[u] for u in s)) for s in as_sets(duplicate_groups())]
    published = pipeline.dataclasses.replace(
        busi, groups=[groups.Group(str(k), s, ()) for k, s in enumerate(sets)]
    )
    copies, others = analysis.split_ssim(published)
    result = analysis.compare_ssim(copies, others)
    assert len(copies) == 218
    assert result.copies.mean == pytest.approx(0.614, abs=0.005)
    assert result.copies.sd == pytest.approx(0.172, abs=0.005)
    assert result.others.mean == pytest.approx(0.103, abs=0.005)
    assert result.others.sd == pytest.approx(0.040, abs=0.002)
    assert result.threshold == pytest.approx(0.23, abs=0.01)
    assert result.others.lilliefors[1] < 0.05 and result.mann_whitney[1] < 1e-4
    _, table = analysis.mask_agreement(published)
    # The paper's shares times 218, last three classes: 7, 9 and 5.
    assert [table[k] for k in ("0.3 to 0.5", "above 0 to 0.3", "0")] == [7, 9, 5]
    conflicts = groups.conflicts(published.groups, busi.archive.label)
    assert len(conflicts) == 8


def test_the_shortcut_finds_the_same_groups(busi, real_data_dir):
    root = real_data_dir / "Dataset_BUSI_with_GT"
    quick = pipeline.curate(root, pipeline.Options(full_ssim_up_to=0))
    assert [g.members for g in quick.groups] == [g.members for g in busi.groups]


def test_bus_uclm_files_one_patient_under_two_names(real_data_dir):
    found = pipeline.curate(real_data_dir / "BUS-UCLM")
    patient = [entry.patient for entry in found.archive.entries]
    uid = found.archive.uid
    across = [
        {uid[m] for m in group.members}
        for group in found.groups
        if len({patient[m] for m in group.members}) > 1
    ]  # fmt: skip
    assert across == [
        {"CHCO_000", "CHVI_005"}, {"CHCO_001", "CHVI_008"}, {"CHCO_002", "CHVI_009"},
        {"CHCO_003", "CHVI_013"},
    ]  # fmt: skip
    near = read_near_duplicates(LISTS / "near_duplicates.csv", "bus_uclm", uid)
    merged = merge_groups(patient, near)
    assert len(set(patient)) == 38 and len(set(merged)) == 37
    assert not audit_split(uid, merged, np.array(patient)).clean
