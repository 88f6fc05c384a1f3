"""Damaged and foreign files in a run folder: one paragraph, and no results from half of it.

Each trial damages one file of a copy of a trained run; then every command that reads run folders
is given the copy. It may do its work, where it does not need the file, or refuse; a fault of any
other kind fails the test.
"""

import json

import damages
import numpy as np
import pandas as pd
import pytest
from small_runs import make_config

from mtbus_jax import crossval, ensemble
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.export import source as export_source
from mtbus_jax.predict import Predictor
from mtbus_jax.report import command as report_command
from mtbus_jax.report import compare


def apply(folder, name, damage):
    found = sorted(folder.glob(name))
    assert found, name
    for path in found:
        damage(path)


def commands(world, copy, tmp_path):
    """What reads a run folder, by name; those that read only come first."""
    picture = np.full((40, 60), 90, np.uint8)
    return {
        "report": lambda: report_command.main([f"--run={copy}"]),
        "compare": lambda: compare.compare([copy, world.run]),
        "export": lambda: export_source.load(copy),
        "predict": lambda: Predictor(copy)([picture]),
        "ensemble": lambda: ensemble.make_ensemble([copy, world.run], tmp_path / "out"),
        "tables": lambda: crossval.write_tables(make_config(), copy),
        "evaluate": lambda: crossval.evaluate(copy),
        "train": lambda: crossval.train_and_evaluate(make_config(epochs=4), copy),
    }


def check(world, tmp_path, name, damage, wanted):
    """Runs commands on a damaged copy; each works or refuses."""
    copy = world.copy(tmp_path)
    apply(copy, name, damage)
    told = {}
    for command, work in commands(world, copy, tmp_path).items():
        if command not in wanted:
            continue
        try:
            work()
        except UserError as error:
            told[command] = str(error)
            assert len(str(error)) < 1500
    return copy, told


def ids(trial):
    return trial if isinstance(trial, str) else trial.__name__


@pytest.mark.parametrize(("name", "damage"), damages.QUICK, ids=ids)
def test_commands_that_read_work_or_refuse(world, tmp_path, name, damage):
    check(world, tmp_path, name, damage, ("report", "compare", "export", "predict"))


@pytest.mark.long
@pytest.mark.parametrize(("name", "damage"), damages.TRIALS, ids=ids)
def test_all_commands_work_or_refuse(world, tmp_path, name, damage):
    check(world, tmp_path, name, damage, commands(world, tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("name", "damage", "command", "words"),
    [
        ("config.json", damages.change("train", "epochs", to="3"), "predict", "train.epochs is"),
        ("config.json", damages.foreign_fields, "report", "name is missing"),
        ("splits.json", damages.change("folds", 0, to=...), "report", "as long as folds"),
        ("environment.json", damages.foreign_list, "report", "environment.json"),
        ("summary.json", damages.cut, "compare", "not valid JSON"),
        ("trust.json", damages.change("folds", to=[]), "predict", "folds has no fields"),
        ("trust.csv", damages.cut, "report", "trust.csv is broken"),
        ("fold_0/cases.csv", damages.drop_last_lines, "report", "5 rows, but fold 0 has 12"),
        ("fold_0/cases.csv", damages.cut_line(4), "report", "row 4 has"),
        ("fold_0/metrics.jsonl", damages.cut_line(2), "report", "line 2, is broken"),
        ("fold_0/metrics.jsonl", damages.double_a_line, "report", "epoch 2 comes after epoch 2"),
        ("fold_0/predictions.npz", damages.flip, "report", "predictions.npz is broken"),
        ("fold_0/checkpoints/best/*/state", damages.remove, "predict", "fold_0/checkpoints/best"),
    ],
    ids=ids,
)
def test_what_is_refused_names_the_file_and_the_fault(
    world, tmp_path, name, damage, command, words
):
    copy, told = check(world, tmp_path, name, damage, (command,))
    assert words in told[command]
    assert str(copy) in told[command]


def test_a_damaged_metrics_file_keeps_its_good_lines(world, tmp_path):
    """A training that goes on refuses before it writes the file again."""
    copy = world.copy(tmp_path)
    path = copy / "fold_0" / "metrics.jsonl"
    damages.cut_line(2)(path)
    before = path.read_text()
    with pytest.raises(UserError, match="line 2"):
        crossval.train_and_evaluate(make_config(epochs=4), copy, folds=(0,))
    assert path.read_text() == before


def test_stray_folders_are_no_folds(world, tmp_path):
    copy = world.copy(tmp_path)
    expected = read_cases(copy)
    for name in ("fold_0_copy", "fold_x", "fold_", "fold_-1", "fold_00"):
        (copy / name).mkdir()
        (copy / name / "cases.csv").write_bytes((copy / "fold_0" / "cases.csv").read_bytes())
    pd.testing.assert_frame_equal(read_cases(copy), expected)
    report_command.main([f"--run={copy}"])
    (copy / "fold_9").mkdir()
    report_command.main([f"--run={copy}"])
    (copy / "fold_9" / "cases.csv").write_bytes((copy / "fold_0" / "cases.csv").read_bytes())
    with pytest.raises(UserError, match="fold_9 is a stray folder"):
        report_command.main([f"--run={copy}"])


def test_a_fold_without_weights_is_named_and_stops_nothing(world, tmp_path, capsys):
    copy = world.copy(tmp_path)
    (copy / "fold_2").mkdir()
    assert crossval.evaluate(copy)["folds"] == [0, 1]
    assert "left out: fold 2, without a finished checkpoint" in capsys.readouterr().err


def test_predictions_of_other_images_are_refused(world, tmp_path):
    copy = world.copy(tmp_path)
    content = json.loads((copy / "splits.json").read_text())
    first = copy / "fold_0" / "predictions_validation.npz"
    first.write_bytes((copy / "fold_0" / "predictions.npz").read_bytes())
    with pytest.raises(UserError, match="not the"):
        crossval.write_tables(make_config(), copy)
    assert json.loads((copy / "splits.json").read_text()) == content
