"""Tests between rows: against scipy, with the right pairs, signs and correction."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.reproduce.compare import compare
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Row, Section, TableRun

RUN = TableRun("curated_busi", "unetpp")
COUNT = 40


def make_result(label, quality, *, refined=False, seed=0, missing=(), masks=True, classes=True):
    """A row whose Dice and share of right classes rise with ``quality``."""
    rng = np.random.default_rng([seed, int(100 * quality)])
    true = np.arange(COUNT) % 3
    right = rng.random(COUNT) < quality
    predicted = np.where(right, true, (true + 1) % 3)
    names = np.array(types.CLASS_NAMES)
    cases = pd.DataFrame(
        {
            "uid": [f"case_{i}" for i in range(COUNT)],
            "fold": np.arange(COUNT) // 20,
            "label": names[true],
        }
    )
    prefix = "refined_" if refined else ""
    if masks:
        cases[f"{prefix}dice"] = np.clip(rng.normal(quality, 0.1, COUNT), 0, 1)
    if classes:
        cases[f"{prefix}predicted"] = names[predicted]
    row = Row(label, label, RUN if masks else None, RUN if classes else None, refined)
    return RowResult(row, tuple(missing), None if missing else cases)


def make_section(metrics=("dsc_average", "acc"), title="", confusion=False):
    return Section(title, metrics, (), confusion)


def right(result):
    prefix = "refined_" if result.row.refined else ""
    return (result.cases[f"{prefix}predicted"] == result.cases.label).to_numpy()


def test_against_scipy():
    worse, better = make_result("worse", 0.5), make_result("better", 0.8, refined=True)
    (_, dice), (_, correct) = compare([(make_section(), [worse, better])])
    assert (dice.a, dice.b, dice.measure) == ("better", "worse", "dice")
    assert (correct.measure, correct.images, dice.images) == ("correct", COUNT, COUNT)
    a, b = better.cases.refined_dice, worse.cases.dice
    assert dice.difference == pytest.approx((a - b).mean())
    assert dice.difference > 0.2
    assert dice.low < dice.difference < dice.high
    assert dice.low > 0
    assert 0.9 < dice.effect <= 1
    assert dice.p_value == pytest.approx(stats.wilcoxon(a, b, zero_method="pratt").pvalue)
    only_a, only_b = (right(better) & ~right(worse)).sum(), (right(worse) & ~right(better)).sum()
    exact = stats.binomtest(int(only_a), int(only_a + only_b)).pvalue
    assert correct.p_value == pytest.approx(exact)
    assert correct.difference == pytest.approx((only_a - only_b) / COUNT)
    assert correct.effect == pytest.approx(only_a / (only_a + only_b) - 0.5)


def test_the_sign_turns_with_the_rows():
    first, last = make_result("first", 0.8), make_result("last", 0.5)
    (_, dice), (_, correct) = compare([(make_section(), [first, last])])
    assert dice.difference < 0 > dice.effect
    assert correct.difference < 0 > correct.effect


def test_correction_is_over_the_whole_table():
    rows = [make_result(str(quality), quality) for quality in (0.5, 0.72, 0.75)]
    reference = make_result("last", 0.75, seed=1)
    sections = [(make_section(title=title), [*rows, reference]) for title in ("first", "second")]
    found = compare(sections)
    assert len(found) == 12
    assert [title for title, _ in found] == ["first"] * 6 + ["second"] * 6
    raw = np.array([c.p_value for _, c in found])
    order = np.argsort(raw)
    expected = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(12, 0, -1)))
    np.testing.assert_allclose(np.array([c.p_holm for _, c in found])[order], expected)
    assert compare(sections[:1])[0][1].p_holm < found[0][1].p_holm


def test_intervals_are_drawn_within_folds():
    """Two folds with opposite constant differences: without strata the mean would vary."""
    one, other = make_result("one", 0.5), make_result("other", 0.5)
    one.cases["dice"] = 0.5
    other.cases["dice"] = np.where(other.cases.fold == 0, 0.6, 0.4)
    ((_, dice),) = compare([(make_section(("dsc_average",)), [one, other])])
    assert dice.low == pytest.approx(0) == dice.high


@pytest.mark.parametrize(
    ("metrics", "confusion", "measures"),
    [
        (("dsc_average",), False, {"dice"}),
        (("acc", "f1_weighted"), False, {"correct"}),
        ((), True, {"correct"}),
        (("incoherent_ratio",), False, set()),
        (("hausdorff", "dsc_average", "jaccard"), False, {"dice"}),
    ],
)
def test_what_a_section_shows_is_compared(metrics, confusion, measures):
    results = [make_result("one", 0.5), make_result("other", 0.6)]
    found = compare([(make_section(metrics, confusion=confusion), results)])
    assert {c.measure for _, c in found} == measures


def test_a_row_is_compared_in_what_it_has():
    results = [
        make_result("seg", 0.5, classes=False),
        make_result("cls", 0.5, masks=False),
        make_result("last", 0.6),
    ]
    found = compare([(make_section(), results)])
    assert [(c.b, c.measure) for _, c in found] == [("seg", "dice"), ("cls", "correct")]


def test_missing_rows_are_left_out():
    one, gone, last = (
        make_result("one", 0.5),
        make_result("gone", 0.5, missing=["job"]),
        make_result("last", 0.6),
    )
    assert {c.b for _, c in compare([(make_section(), [one, gone, last])])} == {"one"}
    assert compare([(make_section(), [one, last, gone])]) == []


@pytest.mark.parametrize("column", ["uid", "fold", "label"])
def test_rows_of_other_images_are_not_compared(column):
    one, other = make_result("one", 0.5), make_result("other", 0.6)
    one.cases.loc[4, column] = one.cases.loc[0, column] if column != "fold" else 1
    assert not one.cases[column].equals(other.cases[column])
    with pytest.raises(UserError, match="different images"):
        compare([(make_section(), [one, other])])
