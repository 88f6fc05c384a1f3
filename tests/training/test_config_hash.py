"""The hash that stands for the settings of a run."""

import hashlib
import json

import pytest

from configs import base
from mtbus_jax import configuration
from mtbus_jax.training import config_hash


def hash_of(file="mt_nnunet_small", **changes):
    """Of a shipped configuration with fields changed; ``__`` stands for the dot."""
    changes = {field.replace("__", "."): value for field, value in changes.items()}
    return config_hash.of(configuration.load_config(file, changes).to_dict())


def test_the_published_recipe_changes_nothing():
    expected = hashlib.sha256(b"{}").hexdigest()[:8]
    assert hash_of("mt_unetpp") == expected == "44136fa3"
    assert config_hash.of(base.get_config().to_dict()) == expected


def test_it_is_the_sha256_of_the_changed_fields_by_name():
    text = (
        b'{"data.image_size":[64,96],"data.name":"bus_uclm","seed":7,"train.learning_rate":0.002}'
    )
    changes = {"data__image_size": (64, 96), "data__name": "bus_uclm", "seed": 7}
    found = hash_of("mt_unetpp", **changes, train__learning_rate=2e-3)
    assert found == hashlib.sha256(text).hexdigest()[:8]


def test_settings_of_the_published_figures_keep_their_hash():
    assert hash_of("best") == "b5d99677"
    assert hash_of("best", seed=1994) == "fc539ae6"
    assert hash_of("best", data__split="grouped") == "89063835"
    assert hash_of("best_bus_uclm") == "e7ec1d1e"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"data__data_dir": "/elsewhere"},
        {"data__manual_dir": "/elsewhere"},
        {"data__cache_dir": "/elsewhere"},
        {"data__arrays_file": "/elsewhere/all.npz"},
        {"data__folds": (0,)},
        {"log__progress": False},
        {"log__tensorboard": False},
        {"train__devices": 2},
        {"train__steps_per_call": 5},
        {"train__checkpoint_seconds": 0.0},
        {"eval__batch_size": 3},
        {"eval__tta": False},
    ],
    ids=str,
)
def test_places_and_what_is_shown_do_not_count(changes):
    assert hash_of(**changes) == hash_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"tasks": ("seg",)},
        {"data__split": "grouped"},
        {"data__classes": ("benign", "malignant")},
        {"data__folds_file": "folds.csv"},
        {"model__width": 8},
        {"loss__weight": 0.5},
        {"train__learning_rate": 3e-3},
        {"train__epochs": 3},
        {"train__stop_patience": 3},
        {"train__start_from": "runs/other"},
        {"eval__fill_holes": True},
    ],
    ids=str,
)
def test_what_changes_the_result_counts(changes):
    assert hash_of(**changes) != hash_of()


def test_changes_that_differ_have_hashes_that_differ():
    assert hash_of(seed=1) != hash_of(seed=2)
    assert hash_of(train__learning_rate=0.01) != hash_of(train__learning_rate=0.02)
    # The value belongs to its field.
    assert hash_of(loss__gamma=0.5) != hash_of(loss__dice_smoothing=0.5)


def test_the_order_of_the_fields_does_not_matter():
    content = configuration.load_config("best").to_dict()
    turned = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(content.items())
    }
    assert json.dumps(turned) != json.dumps(content)
    assert config_hash.of(turned) == config_hash.of(content)


def test_a_configuration_counts_as_its_json_does():
    content = configuration.load_config("best", {"data.image_size": (64, 96)}).to_dict()
    before = json.dumps(content)
    assert config_hash.of(json.loads(before)) == config_hash.of(content)
    assert json.dumps(content) == before  # nothing was changed on the way


def test_classes_named_by_the_run_count_as_the_empty_field():
    content = configuration.load_config("best").to_dict()
    names = ["benign", "malignant", "normal"]
    content["data"] |= {"classes": names, "class_names": names, "normal_class": "normal"}
    assert config_hash.of(content) == hash_of("best")


def test_a_run_from_before_a_field_existed_counts_as_what_it_was():
    content = configuration.load_config("best").to_dict()
    for section, field in (("loss", "dice"), ("train", "l2"), ("data", "arrays_file")):
        del content[section][field]
    assert config_hash.of(content) == hash_of("best")
    del content["train"]["plateau_threshold"]  # it was 0, which is not the default now
    assert config_hash.of(content) == hash_of("best", train__plateau_threshold=0.0)


def test_files_and_folders_count_by_their_names(tmp_path):
    first, second = (tmp_path / name / "pictures" for name in ("a", "b"))
    for folder in (first, second):
        folder.mkdir(parents=True)
    one, other = (
        hash_of(data__name=str(folder), train__start_from=f"{folder}/run/fold_1")
        for folder in (first, second)
    )
    assert one == other
    assert one != hash_of(data__name=str(first), train__start_from=f"{first}/run/fold_2")


def test_an_ensemble_counts_with_its_seeds():
    content = configuration.load_config("best").to_dict()
    one, other = (config_hash.of(content | {"seed": seeds}) for seeds in ([1, 2], [1, 3]))
    assert len({one, other, config_hash.of(content)}) == 3
