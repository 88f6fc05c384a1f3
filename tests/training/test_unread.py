"""Fields that have no effect beside the others of a run."""

import pytest

from configs import base
from mtbus_jax import configuration
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_folder, unread


@pytest.mark.parametrize(
    ("field", "value", "unread_with", "read_with"),
    [
        ("train.warmup", "0.3", {}, {"train.course": "cosine"}),
        ("train.cosine_floor", "0.1", {}, {"train.course": "cosine"}),
        ("train.decay_epochs", "3", {}, {"train.course": "decay"}),
        ("train.average_decay", "0.5", {}, {"train.keep": "average"}),
        ("data.fold_count", "5", {}, {"data.split": "grouped"}),
        ("train.plateau_patience", "3", {"train.course": "cosine"}, {"train.course": "plateau"}),
        ("train.rotation_fill", "reflect", {"train.augment": "False"}, {"train.augment": "True"}),
        ("train.elastic", "0.5", {"train.augment": "False"}, {"train.augment": "True"}),
        ("train.speckle", "0.5", {"train.augment": "False"}, {"train.augment": "True"}),
        ("train.small_scale", "0.5", {}, {"train.small_share": "0.6"}),
        ("train.mixup", "0.2", {"train.batch_size": "1"}, {"train.batch_size": "2"}),
        (
            "train.oversample_rule",
            "ceil",
            {"train.oversample": "False"},
            {"train.oversample": "True"},
        ),
        ("loss.class_weights", "1,2,3", {"tasks": "seg"}, {}),
        ("loss.cross_entropy", "0.5", {"tasks": "cls"}, {}),
        ("loss.weight", "0.5", {"tasks": "seg"}, {}),
        ("loss.weight", "0.5", {"loss.weighting": "learned"}, {"loss.weighting": "fixed"}),
        ("data.validation", "False", {"data.split": "all"}, {}),
    ],
)
def test_what_has_no_effect_is_refused_with_the_mend(field, value, unread_with, read_with):
    changes = {field: value}
    config = configuration.read(configuration.Given("base", changes | unread_with))
    mend = ".*".join(map("=".join, read_with.items()))
    with pytest.raises(UserError, match=rf"--config\.{field} has no effect.*{mend}"):
        unread.check(config, changes | unread_with)
    config = configuration.read(configuration.Given("base", changes | read_with))
    unread.check(config, changes | read_with)


def test_the_plain_value_may_be_given():
    changes = {"train.warmup": "0.0", "train.average_decay": "0.99"}
    unread.check(configuration.read(configuration.Given("base", changes)), changes)


def test_every_field_of_the_table_exists():
    assert unread._READ.keys() <= run_folder.flatten(base.get_config()).keys()


def test_a_folder_of_ones_own_may_be_split_into_so_many_folds(tmp_path):
    changes = {"data.name": str(tmp_path), "data.fold_count": "2"}
    unread.check(configuration.read(configuration.Given("base", changes)), changes)
