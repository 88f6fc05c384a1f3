"""The table of fields: every number of the configuration is in it, and it is kept to."""

import math
import re

import pytest

from configs import base
from mtbus_jax.errors import UserError
from mtbus_jax.training import fields, run_folder
from mtbus_jax.training.experiment import Experiment


def flat():
    return run_folder.flatten(base.get_config())


def test_every_number_of_the_configuration_has_a_range():
    numbers = {k for k, v in flat().items() if type(v) in (int, float)}
    # None, or empty, so that the type does not show.
    assert numbers | {"model.width", "loss.class_weights"} == fields.RANGES.keys()


def test_every_range_and_choice_is_of_a_field_and_holds_its_default():
    known = flat()
    for field, allowed in fields.RANGES.items():
        several = known[field] if isinstance(known[field], list) else [known[field]]
        assert all(value is None or allowed.holds(value) for value in several), field
    for field, choices in fields.CHOICES.items():
        assert known[field] in choices
    fields.check(known)


@pytest.mark.parametrize("field", sorted(fields.RANGES))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e39])
def test_what_makes_no_sense_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"^{field}={re.escape(str(value))}: give "):
        fields.check(flat() | {field: value})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("train.adam_b1", 1.0, False),
        ("train.adam_b1", 0.0, True),
        ("train.plateau_factor", 10, False),
        ("train.plateau_factor", 1.0, True),
        ("train.adam_epsilon", 0.0, False),
        ("train.warmup", 1.0, False),
        ("train.elastic", 1.0, True),
        ("train.speckle", 1.1, False),
        ("train.mixup", 0.0, True),
        ("train.mixup", 100.5, False),
        ("train.mixup", "a lot", False),
        ("loss.class_weights", [0.0, 2.5], True),
        ("loss.class_weights", [1.0, -0.5], False),
        ("loss.class_weights", [1.0, math.nan], False),
        ("loss.weight", 1.0, True),
        ("data.fold_count", 1, False),
        ("model.width", 1_000_000, False),
        ("seed", 2**31, False),
        ("data.image_size", (65_536, 128), False),
        ("data.image_size", (128,), False),
        ("train.keep", "mean", False),
    ],
)
def test_ends_of_ranges(field, value, allowed):
    changed = flat() | {field: value}
    if allowed:
        fields.check(changed)
    else:
        with pytest.raises(UserError, match=field):
            fields.check(changed)


def test_a_message_says_what_may_be_given():
    with pytest.raises(UserError) as caught:
        fields.check(flat() | {"loss.label_smoothing": 1.0})
    assert str(caught.value) == "loss.label_smoothing=1.0: give a share, from 0 to less than 1."


def test_an_ensemble_has_several_seeds():
    fields.check(flat() | {"seed": [1, 2]})
    with pytest.raises(UserError, match="seed"):
        fields.check(flat() | {"seed": [1, -2]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.folds_file": "folds.csv", "data.split": "grouped"},
            r"data\.folds_file=folds\.csv is not used, as data\.split=grouped",
        ),
        (
            {"train.encoder_rate": 0.1},
            r"train\.encoder_rate=0\.1 is not used: unetpp has no encoder",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(fields, message):
    config = base.get_config()
    config.update_from_flattened_dict(fields)
    experiment = Experiment.from_config(config)  # a run from before can still be read
    with pytest.raises(UserError, match=message):
        experiment.check_new()


def test_class_weights_are_one_for_each_class():
    config = base.get_config()
    config.model.name, config.model.width = "unet", 2
    config.loss.class_weights = (1.0, 0.5, 2.0)
    assert Experiment.from_config(config).loss.class_weights == (1.0, 0.5, 2.0)
    config.loss.class_weights = (1.0, 0.5)
    with pytest.raises(UserError, match="each of the 3 classes benign, malignant, normal"):
        Experiment.from_config(config)


def test_whole_numbers_are_whole():
    """True is a number to Python, and 2.0 epochs would be found out by JAX."""
    whole = {k for k, v in flat().items() if type(v) is int} | {"model.width"}
    assert whole == {field for field, allowed in fields.RANGES.items() if allowed.whole}
    for field in whole:
        for value in (True, 2.0, "2"):
            with pytest.raises(UserError, match=rf"^{field}={value}: give .*a whole number from"):
                fields.check(flat() | {field: value})


@pytest.mark.parametrize("value", [["a", "b"], [True, 1.0]])
def test_elements_have_to_be_numbers(value):
    with pytest.raises(UserError, match=r"^loss\.class_weights="):
        fields.check(flat() | {"loss.class_weights": value})


def test_sides_of_an_image_are_whole():
    with pytest.raises(UserError, match=r"^data\.image_size=\(16\.0, 32\.0\)"):
        fields.check(flat() | {"data.image_size": (16.0, 32.0)})


def test_ranges_are_told_in_full():
    with pytest.raises(UserError, match=r"from 0 to 2,147,483,647\.$"):
        fields.check(flat() | {"seed": -1})
