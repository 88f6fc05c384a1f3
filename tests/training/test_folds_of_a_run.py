"""When a fold counts as trained, and that all folds of a run are of the same data."""

import dataclasses
import json

import numpy as np
import pytest
import tiny

from mtbus_jax import bundle, cli, crossval, data, ensemble, models
from mtbus_jax.errors import Stopped, UserError
from mtbus_jax.report import run as report_run
from mtbus_jax.training import checkpoint, fold, run_folder, trained_folds

CASES = tiny.make_cases()


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data, "load_configured", lambda config: CASES)


def config_of(*folds, epochs=3, **changes):
    config = tiny.make_config(epochs=epochs, **changes)
    config.data.folds, config.log.tensorboard = folds, False
    return config


def stop_after_one_epoch(workdir, *folds, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold.stopping, "asked", lambda: True)
        with pytest.raises(Stopped, match="up to epoch 1"):
            crossval.train_and_evaluate(config_of(*folds, **changes), workdir)


def record(workdir, number):
    return json.loads((workdir / f"fold_{number}" / run_folder.TRAINED).read_text())


@pytest.fixture
def half(tmp_path):
    """Fold 0 is trained, fold 1 is stopped after one of its three epochs."""
    crossval.train_and_evaluate(config_of(0), tmp_path)
    stop_after_one_epoch(tmp_path, 0, 1)
    return tmp_path


def test_a_fold_in_training_is_not_tested(half, capsys):
    assert trained_folds.is_over(half, 0)
    assert not trained_folds.is_over(half, 1)
    result = crossval.evaluate(half)
    assert result["folds"] == [0]
    assert "left out: fold 1, whose training is not over" in capsys.readouterr().err
    assert not (half / "fold_1" / run_folder.CASES).exists()
    assert trained_folds.load(half).untested == (1,)
    result = crossval.train_and_evaluate(config_of(0, 1), half)
    assert result["folds"] == [0, 1]
    assert trained_folds.tested_folds(half) == [0, 1]


def test_a_run_without_a_trained_fold_is_not_tested(tmp_path):
    stop_after_one_epoch(tmp_path, 0)
    with pytest.raises(UserError, match=r"no trained fold.*it continues"):
        crossval.evaluate(tmp_path)
    assert trained_folds.load(tmp_path).in_training == (0,)


def test_a_trained_fold_that_trains_on_counts_when_it_is_done_again(tmp_path):
    crossval.train_and_evaluate(config_of(0, epochs=1), tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold.stopping, "asked", lambda: True)
        with pytest.raises(Stopped):
            crossval.train_and_evaluate(config_of(0), tmp_path)
    assert not trained_folds.is_tested(tmp_path, 0)
    crossval.train_and_evaluate(config_of(0), tmp_path)
    assert trained_folds.is_tested(tmp_path, 0)
    assert record(tmp_path, 0)["train.epochs"] == 3


def test_a_fold_without_the_record_is_judged_by_its_epochs(half):
    (half / "fold_0" / run_folder.TRAINED).unlink()
    assert trained_folds.is_over(half, 0)
    metrics = half / "fold_1" / "metrics.jsonl"
    row = json.loads(metrics.read_text())
    # Early stopping, if that epoch is on disk: best at 1, patience 50.
    metrics.write_text("".join(json.dumps(row | {"epoch": e}) + "\n" for e in range(1, 53)))
    assert not trained_folds.is_over(half, 1)
    latest = half / "fold_1" / "checkpoints" / checkpoint.LATEST
    (latest / "1").rename(latest / "52")
    assert trained_folds.is_over(half, 1)
    # A folder that was handed on with weights alone.
    metrics.unlink()
    assert trained_folds.is_over(half, 1)


def test_what_a_fold_was_trained_with_is_not_written_over(tmp_path):
    crossval.train_and_evaluate(config_of(0), tmp_path)
    assert record(tmp_path, 0)["train.stop_patience"] == 50
    result = crossval.train_and_evaluate(config_of(0, 1, stop_patience=7), tmp_path)
    assert [record(tmp_path, n)["train.stop_patience"] for n in (0, 1)] == [50, 7]
    assert result["differing_settings"] == ["train.stop_patience is 50 in fold 0, 7 in fold 1"]


@pytest.mark.parametrize("part", ["image", "mask"])
def test_another_fold_has_to_be_of_the_same_data(part, tmp_path, monkeypatch):
    crossval.train_and_evaluate(config_of(0, epochs=1), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    changed = dataclasses.replace(CASES, **{part: np.flip(getattr(CASES, part), axis=1)})
    monkeypatch.setattr(data, "load_configured", lambda config: changed)
    with pytest.raises(UserError, match=r"fold_0.* trained on a different dataset"):
        crossval.train_and_evaluate(config_of(1, epochs=1), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_fold_has_to_be_of_the_same_split(tmp_path):
    crossval.train_and_evaluate(config_of(0, epochs=1), tmp_path)
    path = tmp_path / "splits.json"
    content = json.loads(path.read_text())
    content["folds"][0]["train"].append(content["folds"][0]["validation"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"fold_0.* trained on a different split"):
        crossval.train_and_evaluate(config_of(1, epochs=1), tmp_path)


def test_a_run_of_two_devices_is_tested_on_one(tmp_path):
    config = config_of(0, epochs=1)
    crossval.train_and_evaluate(config, tmp_path)
    content = json.loads((tmp_path / run_folder.CONFIG).read_text())
    content["train"]["devices"] = 64
    (tmp_path / run_folder.CONFIG).write_text(json.dumps(content))
    crossval.evaluate(tmp_path)


def test_a_test_by_other_rules_that_is_stopped_leaves_no_mixture(tmp_path, monkeypatch):
    crossval.train_and_evaluate(config_of(0, 1, epochs=1), tmp_path)
    overrides = config_of(0, 1, epochs=1)
    overrides.eval.average = True
    tested, evaluate_fold = [], crossval.evaluate_fold

    def stopped(*args, **kwargs):
        if tested:
            raise KeyboardInterrupt
        tested.append(kwargs["fold"])
        return evaluate_fold(*args, **kwargs)

    monkeypatch.setattr(crossval, "evaluate_fold", stopped)
    with pytest.raises(KeyboardInterrupt):
        crossval.evaluate(tmp_path, overrides=overrides)
    assert trained_folds.tested_folds(tmp_path) == [0]
    with pytest.raises(UserError, match=r"summary\.json is missing.*--mode=evaluate"):
        report_run.read(tmp_path)  # the summary of both folds was by the other rules
    monkeypatch.setattr(crossval, "evaluate_fold", evaluate_fold)
    assert crossval.evaluate(tmp_path)["folds"] == [0, 1]


def test_networks_that_train_for_another_time_are_no_ensemble(tmp_path):
    for seed, epochs in ((1, 1), (2, 2)):
        config = config_of(0, epochs=epochs)
        config.seed = seed
        crossval.train_and_evaluate(config, tmp_path / str(seed))
    with pytest.raises(UserError, match=r"train\.epochs \(1 and 2\)"):
        ensemble.make_ensemble([tmp_path / "1", tmp_path / "2"], tmp_path / "both")


def test_a_network_in_training_is_not_bundled(tmp_path):
    stop_after_one_epoch(tmp_path / "run", 0)
    with pytest.raises(UserError, match=r"fold 0 of .* is not trained and tested to the end"):
        bundle.make_bundle(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fields_of_a_test_change_the_runs_own(tmp_path, capsys):
    crossval.train_and_evaluate(config_of(0, epochs=1), tmp_path)
    cli.evaluate(
        [f"--workdir={tmp_path}", "--config.eval.average=True", "--config.data.cache_dir="],
        program="mtbus evaluate",
    )
    assert "eval.average=True instead of False" in capsys.readouterr().err
    written = json.loads((tmp_path / run_folder.CONFIG).read_text())
    assert written["eval"]["average"] is True
    assert written["train"]["epochs"] == 1
