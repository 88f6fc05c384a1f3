"""Folds, leaks and oversampling: published numbers, hand-made groups, planted errors."""

import csv
import json
import pathlib

import numpy as np
import pytest
import sklearn.model_selection
import tiny

from mtbus_jax import oversampling, splits, types
from mtbus_jax.errors import UserError

FOLDS_CSV = pathlib.Path(__file__).parent / "data" / "curated_busi_test_folds.csv"


@pytest.fixture(scope="module")
def curated():
    """uid, label and test fold of the 450 images, in the published order."""
    with FOLDS_CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    uid = np.array([row["uid"] for row in rows])
    label = np.array([types.CLASS_NAMES.index(u.rsplit("_", 1)[0]) for u in uid])
    order = sorted(range(len(uid)), key=lambda i: (label[i], int(uid[i].rsplit("_", 1)[1])))
    assert order == list(range(len(uid)))
    return uid, label, np.array([int(row["fold"]) for row in rows])


def assert_partition(split, count):
    parts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(parts.tolist()) == list(range(count))


def test_published_folds_have_the_published_sizes(curated):
    _, label, test_fold = curated
    assert np.bincount(label).tolist() == [222, 164, 64]
    folds = splits.published_folds(label, test_fold)
    assert [len(f.train) for f in folds] == [269, 269, 270, 270]
    assert [len(f.validation) for f in folds] == [68] * 4
    assert [len(f.test) for f in folds] == [113, 113, 112, 112]
    train = np.array([np.bincount(label[f.train]) for f in folds])
    assert train.tolist() == [[133, 98, 38], [133, 98, 38], [134, 98, 38], [134, 98, 38]]
    oversampled = [len(oversampling.oversample(f.train, label)) for f in folds]
    assert oversampled == [826, 826, 828, 828]


def test_published_folds_test_each_image_once_and_where_the_file_says(curated):
    _, label, test_fold = curated
    folds = splits.published_folds(label, test_fold)
    for number, split in enumerate(folds):
        assert_partition(split, 450)
        assert (test_fold[split.test] == number).all()
    assert sorted(np.concatenate([f.test for f in folds]).tolist()) == list(range(450))


def test_published_file_is_the_stated_scikit_learn_recipe(curated):
    uid, label, test_fold = curated
    names = np.array([u.rsplit("_", 1)[0] for u in uid])
    outer = sklearn.model_selection.StratifiedKFold(4, shuffle=True, random_state=1993)
    folds = splits.published_folds(label, test_fold)
    for (rest, test), found in zip(outer.split(uid, names), folds, strict=True):
        # The recipe by file names and class names, as a data frame of them would be split.
        train, validation = sklearn.model_selection.train_test_split(
            uid[rest], train_size=0.8, random_state=1993, stratify=names[rest]
        )
        assert set(uid[found.test]) == set(uid[test])
        assert set(uid[found.train]) == set(train)
        assert set(uid[found.validation]) == set(validation)


def test_another_seed_moves_validation_but_not_test(curated):
    _, label, test_fold = curated
    first = splits.published_folds(label, test_fold)[0]
    other = splits.published_folds(label, test_fold, seed=7)[0]
    np.testing.assert_array_equal(first.test, other.test)
    assert set(first.validation) != set(other.validation)


def test_published_folds_refuse_a_dataset_without():
    label = np.array([0, 1, 2, 0])
    with pytest.raises(UserError, match="grouped"):
        splits.published_folds(label, np.full(4, types.NO_FOLD))
    with pytest.raises(UserError, match="no published folds"):
        splits.published_folds(label, np.array([0, 1, types.NO_FOLD, 0]))


def patients(count=60, seed=0):
    """Patients of 1 to 6 images and one class each: 50 % benign, 30 % malignant, 20 % normal."""
    rng = np.random.default_rng(seed)
    label, group = [], []
    for patient in range(count):
        images = 1 + patient % 6
        label += [(0, 0, 0, 0, 0, 1, 1, 1, 2, 2)[(patient // 6) % 10]] * images
        group += [f"patient_{patient:02d}"] * images
    order = rng.permutation(len(label))
    return np.array(label)[order], np.array(group)[order]


@pytest.mark.parametrize("folds", [3, 4])
def test_grouped_folds_never_split_a_group_and_balance_the_classes(folds):
    label, group = patients()
    share = np.bincount(label) / len(label)
    result = splits.grouped_folds(label, group, folds=folds)
    assert len(result) == folds
    for split in result:
        assert_partition(split, len(label))
        names = [set(group[getattr(split, part)]) for part in ("train", "validation", "test")]
        assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
        assert len(splits.leaking(split, group)) == 0
        assert len(split.test) == pytest.approx(len(label) / folds, rel=0.15)
        rest = len(split.train) + len(split.validation)
        assert len(split.validation) == pytest.approx(rest / 5, rel=0.25)
        for part, tolerance in ((split.train, 0.04), (split.test, 0.10)):
            np.testing.assert_allclose(
                np.bincount(label[part], minlength=3) / len(part), share, atol=tolerance
            )
    tests = np.concatenate([split.test for split in result])
    assert sorted(tests.tolist()) == list(range(len(label)))


def test_grouped_folds_are_a_function_of_the_seed():
    label, group = patients()
    first, again, other = (splits.grouped_folds(label, group, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first.train, again.train)
    assert set(first.test) != set(other.test)


def test_factors_are_found_beside_the_splits():
    assert splits.replication_factors is oversampling.replication_factors


def test_one_grouped_fold_is_none():
    with pytest.raises(UserError, match="1 grouped folds are asked for"):
        splits.grouped_folds(np.arange(8) % 2, np.arange(8).astype(str), folds=1)


def test_grouped_folds_of_too_few_groups_are_a_users_error():
    label = np.array([0, 1, 2] * 4)
    with pytest.raises(UserError, match="group"):
        splits.grouped_folds(label, np.array(["a", "b", "c"] * 4))


def test_leaking_finds_planted_leaks():
    group = np.array(list("aabbccdde"))
    split = splits.Split(np.array([0, 2, 4]), np.array([6, 8]), np.array([1, 3, 5, 7]))
    # a, b, c leak into training, d into validation.
    assert splits.leaking(split, group).tolist() == [1, 3, 5, 7]
    split = splits.Split(np.array([0, 1]), np.array([2, 3]), np.array([8, 5, 4, 6, 7]))
    assert splits.leaking(split, group).tolist() == []
    split = splits.Split(np.array([0, 1, 6]), np.array([2, 3]), np.array([8, 5, 4, 7]))
    assert splits.leaking(split, group).tolist() == [7]


def small_cases(count=200):
    label, group = patients()
    label, group = label[:count], group[:count]
    blank = np.zeros((count, 2, 3, 1), np.uint8)
    return types.Cases(
        name="small",
        uid=np.array([f"case_{i}" for i in range(count)]),
        image=blank,
        mask=blank,
        label=label.astype(np.int32),
        original_size=np.tile(np.array([[2, 3]], np.int32), (count, 1)),
        group=group,
        test_fold=np.arange(count, dtype=np.int32) % 2,
    )


def test_make_folds_by_name():
    cases = small_cases()
    published = splits.make_folds(cases, "published")
    assert [split.test.tolist() for split in published] == [
        list(range(0, 200, 2)),
        list(range(1, 200, 2)),
    ]
    grouped = splits.make_folds(cases, "grouped")
    assert len(grouped) == 4
    assert all(len(splits.leaking(split, cases.group)) == 0 for split in grouped)
    with pytest.raises(UserError, match=r"'random'.*published, given, grouped"):
        splits.make_folds(cases, "random")


@pytest.mark.parametrize("kind", ["published", "grouped", "all"])
def test_without_validation_its_images_are_trained_on(kind):
    cases = small_cases()
    pairs = zip(
        splits.make_folds(cases, kind),
        splits.make_folds(cases, kind, validation=False),
        strict=True,
    )
    for usual, without in pairs:
        assert len(without.validation) == 0
        assert sorted(without.train) == sorted([*usual.train, *usual.validation])
        np.testing.assert_array_equal(without.test, usual.test)


def test_where_too_few_remain_to_validate_all_can_be_trained_on():
    label = np.arange(12) % 2
    group = np.array([f"g{i % 2}" for i in range(12)])
    test_fold = np.where(np.arange(12) % 2 == 0, 0, types.NO_FOLD)
    for draw in (
        lambda **options: splits.given_folds(label, test_fold, group, **options),
        lambda **options: splits.grouped_folds(label, group, folds=2, **options),
    ):
        with pytest.raises(UserError, match=r"too few.*--config.data.validation=False") as error:
            draw()
        assert "n_splits" not in str(error.value)  # scikit-learn's own words
        for fold in draw(validation=False):
            assert len(fold.validation) == 0
            assert sorted([*fold.train, *fold.test]) == list(range(12))


def test_of_few_patients_one_validates():
    label = np.arange(60) % 2
    group = np.array([f"p{i // 10}" for i in range(60)])
    for fold in splits.grouped_folds(label, group, folds=4):
        parts = [set(group[each]) for each in (fold.train, fold.validation, fold.test)]
        assert all(parts) and sum(map(len, parts)) == 6


def test_validation_images_may_be_given():
    label = np.arange(20) % 2
    test_fold = np.full(20, types.NO_FOLD)
    test_fold[:4], test_fold[4:8], test_fold[8:11] = 0, 1, types.VALIDATION_FOLD
    first, second = splits.given_folds(label, test_fold, np.arange(20).astype(str))
    assert first.test.tolist() == [0, 1, 2, 3] and second.test.tolist() == [4, 5, 6, 7]
    assert first.validation.tolist() == second.validation.tolist() == [8, 9, 10]
    assert first.train.tolist() == [4, 5, 6, 7, *range(11, 20)]
    nothing_left = np.where(test_fold == types.NO_FOLD, types.VALIDATION_FOLD, 0)
    with pytest.raises(UserError, match="fold 0 has no training images"):
        splits.given_folds(label, nothing_left, np.arange(20).astype(str))
    with pytest.raises(UserError, match="no image of this dataset has a fold"):
        splits.given_folds(label, np.minimum(test_fold, -1), np.arange(20).astype(str))
    with pytest.raises(UserError, match="no published folds"):
        splits.published_folds(label, np.where(test_fold < 0, types.VALIDATION_FOLD, test_fold))


def test_validation_that_shares_groups_with_training_is_found():
    group = np.array(["a", "b", "a", "c", "b", "d"])
    split = splits.Split(np.array([0, 1]), np.array([2, 3, 4]), np.array([5]))
    assert splits.leaking_validation(split, group).tolist() == [2, 4]
    assert splits.leaking(split, group).tolist() == []
    alone = splits.Split(np.array([0, 1]), np.array([], int), np.array([5]))
    assert splits.leaking_validation(alone, group).tolist() == []


def test_round_trip_through_json():
    uid = np.array([f"u{i}" for i in range(6)])
    split = splits.Split(np.array([5, 0]), np.array([3]), np.array([1, 4, 2]))
    parts = json.loads(json.dumps(split.to_uids(uid)))
    assert parts == {"train": ["u5", "u0"], "validation": ["u3"], "test": ["u1", "u4", "u2"]}
    # By name, not by position: the dataset may come in another order.
    moved = uid[::-1]
    back = splits.Split.from_uids(parts, moved)
    assert moved[back.train].tolist() == ["u5", "u0"]
    assert moved[back.validation].tolist() == ["u3"]
    assert moved[back.test].tolist() == ["u1", "u4", "u2"]


def test_an_empty_part_still_indexes():
    split = splits.Split.from_uids({"train": ["a"], "validation": [], "test": []}, np.array(["a"]))
    assert np.array([7])[split.validation].tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": None}, "lacks its list 'validation'"),
        ({"test": ["u1", "gone"]}, "no image 'gone'"),
        ({"test": ["u1", "u0"]}, "'u0' appears twice"),
        ({"test": ["u1", "u1"]}, "'u1' appears twice"),
    ],
)
def test_from_uids_refuses(change, message):
    parts = {"train": ["u0"], "validation": ["u2"], "test": ["u1"]} | change
    parts = {name: uids for name, uids in parts.items() if uids is not None}
    with pytest.raises(UserError, match=message):
        splits.Split.from_uids(parts, np.array(["u0", "u1", "u2"]))


def test_fingerprint_tells_splits_apart():
    uid = np.array([f"u{i}" for i in range(4)])
    one = splits.Split(np.array([0, 1]), np.array([2]), np.array([3]))
    same = splits.Split(np.array([0, 1]), np.array([2]), np.array([3]))
    moved = splits.Split(np.array([0]), np.array([1, 2]), np.array([3]))
    order = splits.Split(np.array([1, 0]), np.array([2]), np.array([3]))
    assert one.fingerprint(uid) == same.fingerprint(uid)
    prints = {split.fingerprint(uid) for split in (one, moved, order)}
    assert len(prints) == 3
    assert one.fingerprint(uid) != one.fingerprint(np.array(["v0", "v1", "v2", "v3"]))
    assert len(one.fingerprint(uid)) == 64


@pytest.mark.parametrize(
    ("counts", "by_round", "by_ceil"),
    [
        ([493, 364, 142], [2, 3, 7], [3, 3, 8]),  # the paper's example, P = .493/.364/.142
        ([133, 98, 38], [2, 3, 7], [3, 3, 8]),  # 269/133 = 2.02, 269/98 = 2.74, 269/38 = 7.08
        ([10, 10, 10], [3, 3, 3], [3, 3, 3]),
        ([20, 10, 10], [2, 4, 4], [2, 4, 4]),
        ([6, 9, 0], [2, 2, 1], [3, 2, 1]),  # 15/6 = 2.5 goes to the even number; 15/9 = 1.67
        ([5, 0, 0], [1, 1, 1], [1, 1, 1]),
        ([90, 5, 5], [1, 20, 20], [2, 20, 20]),
    ],
)
def test_replication_factors_by_hand(counts, by_round, by_ceil):
    assert oversampling.replication_factors(counts) == by_round
    assert oversampling.replication_factors(counts, rule="round") == by_round
    assert oversampling.replication_factors(counts, rule="ceil") == by_ceil


def test_replication_refuses_an_unknown_rule():
    with pytest.raises(UserError, match=r"'floor'.*round, ceil"):
        oversampling.replication_factors([1, 2, 3], rule="floor")


def test_oversample_repeats_each_image_by_its_class():
    label = np.array([2, 0, 0, 1, 0, 1, 0, 2, 0])
    train = np.array([6, 1, 3, 7, 2, 4])  # four benign, one malignant, one normal: 6/4, 6/1, 6/1
    found = oversampling.oversample(train, label)
    assert {int(i): int((found == i).sum()) for i in train} == {6: 2, 1: 2, 2: 2, 4: 2, 3: 6, 7: 6}
    assert len(found) == 20
    two_classes = oversampling.oversample(np.array([1, 3, 2]), label)  # 3/2 → 2, 3/1 → 3, no normal
    assert sorted(two_classes.tolist()) == [1, 1, 2, 2, 3, 3, 3]
    by_ceil = oversampling.oversample(
        np.array([1, 2, 4, 3]), label, rule="ceil"
    )  # 4/3 → 2, 4/1 → 4
    assert sorted(by_ceil.tolist()) == [1, 1, 2, 2, 3, 3, 3, 3, 4, 4]


def test_a_class_with_one_image_cannot_be_split_as_published():
    label = np.array([0] * 12 + [1])
    with pytest.raises(UserError, match="cannot be split into training and validation"):
        splits.published_folds(label, np.arange(13) % 3)


def test_a_fold_that_trains_no_image_of_a_class_is_refused_by_name():
    cases = tiny.make_cases()
    lonely = np.flatnonzero(cases.label == 2)[0]
    rest = np.flatnonzero(cases.label != 2)
    split = splits.Split(rest[:20], rest[20:25], np.append(rest[25:], lonely))
    words = (
        rf"fold 3 trains on no image of the class normal, of which it has 1 \({cases.uid[lonely]}"
    )
    with pytest.raises(UserError, match=words):
        splits.check_classes(split, cases, 3)
    splits.check_classes(
        splits.Split(np.append(rest[:20], lonely), rest[20:25], rest[25:]), cases, 3
    )
