"""What is said of JSON that does not fit its schema."""

import pytest

from mtbus_jax.schema import Each, misfit

SCHEMA = {
    "name": str,
    "seed": (int, [int]),
    "rate": float,
    "on?": bool,
    "folds": [{"test": [str]}],
    "figures?": Each((float, None)),
}
RIGHT = {"name": "a", "seed": 1, "rate": 2, "folds": [{"test": ["x"], "more": 3}], "other": []}


@pytest.mark.parametrize(
    "change",
    [{}, {"seed": [1, 2]}, {"on": True}, {"figures": {"a": 1.5, "b": None}}, {"folds": []}],
)
def test_what_fits(change):
    assert misfit(RIGHT | change, SCHEMA) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, "name is not a text"),
        ({"seed": "1"}, "seed is not a whole number"),
        ({"seed": True}, "seed is not a whole number"),
        ({"seed": 1.5}, "seed is not a whole number"),
        ({"rate": "fast"}, "rate is not a number"),
        ({"on": 1}, "on is not true or false"),
        ({"folds": {}}, "folds is not a list"),
        ({"folds": [{"test": []}, {}]}, "folds[1].test is missing"),
        ({"folds": [{"test": ["a", 2]}]}, "folds[0].test[1] is not a text"),
        ({"folds": [None]}, "folds[0] has no fields"),
        ({"figures": {"dice": "x"}}, "figures.dice is not a number"),
    ],
)
def test_what_does_not(change, words):
    assert misfit(RIGHT | change, SCHEMA) == words


@pytest.mark.parametrize("content", [[], None, 3, "text"])
def test_another_kind_of_file(content):
    assert misfit(content, SCHEMA) == "the whole has no fields"


def test_a_field_that_is_gone():
    assert misfit({k: v for k, v in RIGHT.items() if k != "name"}, SCHEMA) == "name is missing"
