"""Intervals by the bootstrap over groups."""

import numpy as np
import pandas as pd
import pytest

from mtbus_jax.external import score


def mean_of(rows):
    return {"mean": (float(rows.value.mean()), len(rows))}


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = score.intervals(pd.DataFrame({"value": values}), np.arange(400), mean_of)["mean"]
    assert found.value == pytest.approx(values.mean()) and found.n == 400
    expected = 1.96 * values.std() / 20
    assert found.high - found.value == pytest.approx(expected, rel=0.1)
    assert found.value - found.low == pytest.approx(expected, rel=0.1)


def test_copies_within_a_group_make_no_interval_narrower():
    values = np.random.default_rng(2).normal(size=40)
    once = score.intervals(pd.DataFrame({"value": values}), np.arange(40), mean_of)["mean"]
    copies = pd.DataFrame({"value": np.repeat(values, 5)})
    grouped = score.intervals(copies, np.repeat(np.arange(40), 5), mean_of)["mean"]
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    apart = score.intervals(copies, np.arange(200), mean_of)["mean"]
    assert apart.high - apart.low < 0.6 * (once.high - once.low)


def test_an_undefined_figure_has_no_interval():
    rows = pd.DataFrame({"value": [np.nan, np.nan]})
    found = score.intervals(rows, np.arange(2), lambda rows: {"mean": (np.nan, 0)})["mean"]
    assert found == score.Interval(None, None, None, 0)


def test_risk_falls_with_uncertainty_that_knows():
    rows = pd.DataFrame(
        {
            "label": ["benign"] * 10,
            "answer_class": ["benign"] * 8 + ["malignant"] * 2,
            "answer_dice": [0.9] * 8 + [0.2, np.nan],
            "uncertainty": np.linspace(0, 1, 10),
        }
    )
    found = score.risk(rows)  # the last image has no mask, so 9 count
    assert found["wrong_class"]["all"] == pytest.approx(1 / 9)
    assert found["dice_loss"]["all"] == pytest.approx((8 * 0.1 + 0.8) / 9)
    assert found["wrong"]["kept"] < found["wrong"]["all"]
