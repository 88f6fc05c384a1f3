"""The published figures, their names, and what counts as a departure from their recipe."""

import math

import pandas as pd
import pytest

from configs import base, mt_unetpp_bus_uclm
from mtbus_jax.data import places
from mtbus_jax.evaluation import published
from mtbus_jax.training import run_folder


def test_figures_of_the_main_row():
    # Table 5, MT UNet++, last row.
    found = published.figures("curated_busi", "unetpp", "MT+PR+DO")
    assert {metric: (f.mean, f.sd) for metric, f in found.items()} == {
        "dsc_benign": (0.773, 0.050),
        "dsc_malignant": (0.711, 0.057),
        "dsc_normal": (0.781, 0.157),
        "dsc_average": (0.751, 0.018),
        "f1_benign": (0.826, 0.029),
        "f1_malignant": (0.791, 0.025),
        "f1_normal": (0.741, 0.060),
        "f1_weighted": (0.801, 0.026),
        "acc": (0.802, 0.018),
    }
    assert {f.table for f in found.values()} == {"5"}


def test_figures_depend_on_dataset_model_and_setting():
    assert published.figures("curated_busi", "nnunet", "MT+PR+DO")["acc"] == ("6", 0.780, 0.017)
    found = published.figures("bus_uclm", "unetpp", "MT+PR+DO")
    assert found["dsc_average"] == ("10", 0.803, 0.025)
    assert found["acc"] == ("11", 0.858, 0.025)
    assert published.figures("curated_busi", "unetpp", "MT")["acc"] == ("5", 0.742, 0.028)


def test_a_figure_without_printed_deviation():
    figure = published.figures("curated_busi", "unetpp", "MT")["incoherent_ratio"]
    assert (figure.table, figure.mean) == ("text", 0.109)
    assert math.isnan(figure.sd)


@pytest.mark.parametrize(
    "row",
    [
        ("phantom", "unetpp", "MT+PR+DO"),
        ("curated_busi", "mystery", "MT"),
        ("curated_busi", "unetpp", "MT+XX"),
    ],
)
def test_no_figures_no_error(row):
    assert published.figures(*row) == {}


def test_the_table_is_sound():
    table = pd.read_csv(published.Path(published.__file__).with_name("published.csv"))
    assert not table.duplicated(["dataset", "model", "setting", "metric"]).any()
    assert table["mean"].between(0, 1).all()
    assert table.sd.dropna().between(0, 0.2).all()
    assert not table.drop(columns="sd").isna().any(axis=None)


@pytest.mark.parametrize(
    ("tasks", "oversample", "refined", "expected"),
    [
        (("seg", "cls"), True, True, "MT+PR+DO"),
        (("seg", "cls"), True, False, "MT+DO"),
        (("seg", "cls"), False, True, "MT+PR"),
        (("cls", "seg"), False, False, "MT"),
        (("seg",), False, False, "ST(Seg)"),
        (("seg",), True, False, "ST(Seg)+DO"),
        (("cls",), False, False, "ST(Cls)"),
        (("cls",), True, False, "ST(Cls)+DO"),
    ],
)
def test_setting_name(tasks, oversample, refined, expected):
    assert published.setting_name(tasks, oversample=oversample, refined=refined) == expected


def flat(config):
    return run_folder.flatten(config.to_dict())


def test_the_shipped_configurations_are_the_published_recipe():
    assert published.departures(flat(base.get_config())) == []
    assert published.departures(flat(mt_unetpp_bus_uclm.get_config())) == []


def test_what_the_tables_vary_is_no_departure():
    config = base.get_config()
    config.train.oversample = False
    config.eval.refine = False
    config.model.name = "nnunet"
    assert published.departures(flat(config)) == []


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("seg", {"train.keep": "last", "eval.fill_holes": True}),
        ("cls", {"loss.double_softmax": True}),
    ],
)
def test_single_task_rows_have_a_recipe_of_their_own(task, changes):
    config = base.get_config()
    config.model.name = "nnunet"
    config.tasks = (task,)
    assert len(published.departures(flat(config))) == len(changes)
    config.update_from_flattened_dict(changes)
    assert published.departures(flat(config)) == []


def test_departures_are_named_with_both_values():
    config = base.get_config()
    config.train.epochs = 3
    config.data.folds = (0, 2)
    config.data.image_size = (128, 96)
    found = published.departures(flat(config))
    assert sorted(found) == [
        "data.folds = [0, 2] instead of [0, 1, 2, 3]",
        "data.image_size = [128, 96] instead of [128, 128]",
        "train.epochs = 3 instead of 200",
    ]


def test_each_dataset_has_its_own_recipe():
    config = base.get_config()
    config.data.name = "bus_uclm"
    found = published.departures(flat(config))
    assert sorted(found) == [
        "loss.weight = 0.85 instead of 0.4",
        "train.epochs = 200 instead of 250",
    ]
    config.data.name = "phantom"
    assert published.departures(flat(config)) is None


def test_every_field_of_the_recipe_exists_in_the_configuration():
    # A renamed field would silently stop being compared.
    known = flat(base.get_config())
    for field, value in published._RECIPE.items():
        assert field in known
        found = published.departures(known | {field: "other"})
        assert found == [f"{field} = other instead of {value}"]


def test_networks_whose_published_runs_had_other_options():
    known = flat(base.get_config())
    for name, option, published_value in (
        ("residual_unet", "model.legacy", True),
        ("swin_unetr", "model.centred_grey", False),
    ):
        config = known | {"model.name": name}
        said = f"{option} = {not published_value} instead of {published_value}"
        assert published.departures(config) == [said]
        assert published.departures(config | {option: not published_value}) == [said]
        assert published.departures(config | {option: published_value}) == []
        assert published.network_options(name) == {option: published_value}
    assert published.network_options("unetpp") == {}


def test_every_field_that_decides_a_training_is_part_of_the_recipe():
    # One that is not compared lets another recipe pass for the published one.
    tables_vary = {"train.oversample"}
    how_not_what = {"train.devices", "train.steps_per_call", "train.checkpoint_seconds"}
    decide = {field for field in flat(base.get_config()) if field.startswith(("loss.", "train."))}
    assert decide - set(published._RECIPE) == tables_vary | how_not_what
    # Which dataset it is, where it lies, and what the split "published" stands for.
    known = {
        "data.name",
        "data.fold_count",
        "data.folds_file",
        *(f"data.{p}" for p in places.PLACES),
    }
    order_and_meaning_of_classes = {"data.class_names", "data.normal_class"}
    decide = {field for field in flat(base.get_config()) if field.startswith("data.")}
    assert decide - set(published._RECIPE) == known | order_and_meaning_of_classes


@pytest.mark.parametrize(("name", "width"), [("unetpp", 24), ("nnunet", 32), ("adityan", 64)])
def test_each_network_has_its_own_width_and_its_default_is_no_departure(name, width):
    known = flat(base.get_config()) | {"model.name": name}
    assert published.departures(known | {"model.width": None}) == []
    assert published.departures(known | {"model.width": width}) == []
    found = published.departures(known | {"model.width": 12})
    assert found == [f"model.width = 12 instead of {width}"]
