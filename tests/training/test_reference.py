"""The reference of the configuration says what base.py and the table of ranges say."""

import pathlib

from configs import base
from mtbus_jax.training import fields, reference, run_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = reference.read((ROOT / "configs" / "base.py").read_text(encoding="utf-8"))


def test_every_field_is_there_once_with_its_default_and_a_meaning():
    flat = run_folder.flatten(base.get_config().to_dict())
    assert sorted(field.name for field in FIELDS) == sorted(flat)
    for field in FIELDS:
        value = eval(field.default, {})
        assert (list(value) if isinstance(value, tuple) else value) == flat[field.name], field
        assert field.meaning, field.name


def test_every_range_is_of_a_field():
    names = {field.name for field in FIELDS}
    assert fields.RANGES.keys() | fields.CHOICES.keys() <= names


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.page(), (
        "python -m mtbus_jax.training.reference > docs/configuration.md"
    )


def test_comments_above_and_beside_belong_to_the_field_below():
    text = """
    train = config.train = config_dict.ConfigDict()
    # Of all.

    # Above it,
    # on two lines.
    train.one = 1.5
    train.two = config_dict.placeholder(int)  # beside it
    other.three = 3
    """
    assert reference.read(text) == [
        ("train.one", "1.5", "Above it, on two lines."),
        ("train.two", "None", "beside it"),
    ]
