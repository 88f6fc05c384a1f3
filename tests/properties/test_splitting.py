"""Splits, groups and oversampling, for datasets of any composition."""

import collections
import fractions

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from mtbus_jax import grouping, oversampling, splits, types
from mtbus_jax.errors import UserError


@st.composite
def datasets(draw, most=60, classes=3):
    """Class codes and group names of some images; groups may hold several classes."""
    count = draw(st.integers(12, most))
    label = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    group = draw(st.lists(st.integers(0, count // 2), min_size=count, max_size=count))
    return np.array(label, np.int32), np.array([f"patient {number}" for number in group])


def assert_whole(split, count):
    """Each image is in one part and in one alone."""
    parts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(parts.tolist()) == list(range(count))
    assert len(split.train) > 0


def groups_of(group, indices):
    return set(group[indices].tolist())


@given(datasets(), st.integers(2, 5), st.integers(0, 2**31))
def test_grouped_folds(dataset, folds, seed):
    label, group = dataset
    try:
        found = splits.grouped_folds(label, group, folds=folds, seed=seed)
    except UserError:
        # Five parts are made of what one fold leaves: too few groups, or images of each class.
        assert len(set(group)) < folds + 5 or np.bincount(label).max() < max(folds, 5) * 2
        return
    assert len(found) == folds
    tested = np.concatenate([split.test for split in found])
    assert sorted(tested.tolist()) == list(range(len(label)))  # each image once
    for split in found:
        assert_whole(split, len(label))
        sides = [groups_of(group, part) for part in (split.train, split.validation, split.test)]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert len(splits.leaking(split, group)) == 0
    again = splits.grouped_folds(label, group, folds=folds, seed=seed)
    assert [s.to_json() for s in again] == [s.to_json() for s in found]


@given(datasets(), st.data())
def test_given_folds(dataset, data):
    label, group = dataset
    count = len(label)
    fold = st.lists(st.integers(types.NO_FOLD, 3), min_size=count, max_size=count)
    test_fold = np.array(data.draw(fold))
    numbers = set(test_fold.tolist()) - {types.NO_FOLD}
    try:
        found = splits.given_folds(label, test_fold, group)
    except UserError:
        gaps = numbers != set(range(len(numbers)))
        few = any(len(groups_of(group, test_fold != each)) < 10 for each in numbers)
        few |= any(np.bincount(label[test_fold != each]).max(initial=0) < 10 for each in numbers)
        assert not numbers or gaps or few
        return
    assert len(found) == len(numbers)
    for number, split in enumerate(found):
        assert_whole(split, count)
        assert set(split.test.tolist()) == set(np.flatnonzero(test_fold == number).tolist())
        assert not groups_of(group, split.train) & groups_of(group, split.validation)
        # Test groups are the data's own affair; the audit must name every image concerned.
        seen = {*split.train.tolist(), *split.validation.tolist()}
        wanted = {i for i in split.test.tolist() if any(group[i] == group[j] for j in seen)}
        assert set(splits.leaking(split, group).tolist()) == wanted


@given(datasets(), st.integers(2, 4), st.data())
def test_published_folds(dataset, folds, data):
    label, _ = dataset
    count = len(label)
    fold = st.lists(st.integers(0, folds - 1), min_size=count, max_size=count)
    test_fold = np.array(data.draw(fold))
    test_fold[:folds] = np.arange(folds)
    for number in range(folds):  # what scikit-learn can split with the classes balanced
        counts = np.bincount(label[test_fold != number], minlength=3)
        assume(all(each == 0 or each >= 2 for each in counts) and counts.sum() >= 15)
    found = splits.published_folds(label, test_fold)
    assert len(found) == folds
    for number, split in enumerate(found):
        assert_whole(split, count)
        assert set(split.test.tolist()) == set(np.flatnonzero(test_fold == number).tolist())
        rest = count - len(split.test)
        assert len(split.train) == int(0.8 * rest)
        # The classes are balanced: no class is more than an image off its share.
        for code in range(3):
            share = 0.8 * np.count_nonzero(label[test_fold != number] == code)
            assert abs(np.count_nonzero(label[split.train] == code) - share) <= 1


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9, unique=True), st.data())
def test_splits_survive_their_file(names, data):
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names)))
    parts = np.array(parts)
    split = splits.Split(*(np.flatnonzero(parts == part) for part in range(3)))
    uid = np.array(names)
    back = splits.Split.from_uids(split.to_uids(uid), uid)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(back, name), getattr(split, name))
    assert splits.Split.from_json(split.to_json()).to_json() == split.to_json()


@given(
    st.lists(st.integers(0, 2) | st.just(types.NO_LABEL), min_size=1, max_size=60),
    st.sampled_from(oversampling.REPLICATION_RULES),
    st.data(),
)
def test_oversampling(label, rule, data):
    """RF = round(1/P) or ceil(1/P), in fractions; every image at least once, none of others."""
    label = np.array(label)
    chosen = data.draw(st.sets(st.integers(0, len(label) - 1), min_size=1))
    train = np.array(sorted(chosen))
    assume((label[train] != types.NO_LABEL).any())
    found = collections.Counter(oversampling.oversample(train, label, rule=rule).tolist())
    assert found.keys() == chosen
    known = [label[i] for i in train if label[i] != types.NO_LABEL]
    for index in train:
        if label[index] == types.NO_LABEL:
            assert found[index] == 1
            continue
        inverse = fractions.Fraction(len(known), known.count(label[index]))
        wanted = round(inverse) if rule == "round" else -(-inverse.numerator // inverse.denominator)
        assert found[index] == wanted


NAMES = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=8, max_size=8)


@given(NAMES, st.lists(st.sampled_from(["", "x", "y", "z"]), min_size=8, max_size=8))
def test_merged_groups_are_connected_components(first, second):
    """Against the transitive closure of "shares a name", by powers of a matrix."""
    pairs = [
        [i == j or any(g[i] and g[i] == g[j] for g in (first, second)) for j in range(8)]
        for i in range(8)
    ]
    reached = np.linalg.matrix_power(np.array(pairs, int), 8) > 0
    merged = grouping.merge_groups(first, second)
    for i in range(8):
        alone = not first[i] and not second[i]
        assert (merged[i] == "") == alone
        for j in range(8):
            if not alone and (first[j] or second[j]):
                assert (merged[i] == merged[j]) == reached[i, j]
