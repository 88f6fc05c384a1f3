"""Folds without validation or test images, and folds that use a part of the dataset."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import small_runs
import tiny

from mtbus_jax import crossval, data, ensemble, files, models, splits
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.predict import Predictor
from mtbus_jax.report import command as report_command
from mtbus_jax.training import logbook


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data, "load_configured", lambda config: small_runs.CASES)


@pytest.fixture(scope="module")
def trained_on_all(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(data, "load_configured", lambda config: small_runs.CASES)
        folder = tmp_path_factory.mktemp("all") / "run"
        config = tiny.make_config(keep="last")
        config.data.split, config.data.folds = "all", ()
        config.log.tensorboard = False
        return folder, crossval.train_and_evaluate(config, folder)


def edited(tmp_path, change, **train):
    """A run whose ``splits.json`` was changed by hand before the training."""
    workdir = tmp_path / "run"
    config = small_runs.make_config(**train)
    parts = splits.make_folds(small_runs.CASES, "published")
    workdir.mkdir()
    content = {
        "dataset": "phantom",
        "split": "published",
        "folds": [fold.to_uids(small_runs.CASES.uid) for fold in parts],
    }
    change(content["folds"])
    files.write_json(workdir / "splits.json", content)
    return workdir, config


def test_all_images_are_in_the_training_list():
    cases = small_runs.CASES
    (fold,) = splits.make_folds(cases, "all", count=7)
    assert fold.train.tolist() == list(range(len(cases)))
    assert len(fold.validation) == len(fold.test) == 0


def test_a_run_on_all_images_says_that_nothing_was_tested(trained_on_all):
    folder, result = trained_on_all
    assert result["results"] == {} and result["test_images"] == 0
    assert result["folds"] == [0] and result["split"] == "all"
    text = (folder / "summary.md").read_text()
    assert "Nothing was tested" in text and "published" not in text
    assert not (folder / "report.html").exists()
    assert len(read_cases(folder)) == 0


def test_an_ensemble_of_such_runs_says_so_too(trained_on_all, tmp_path):
    other = shutil.copytree(trained_on_all[0], tmp_path / "other")
    content = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(content | {"seed": 7}))
    result = ensemble.make_ensemble([trained_on_all[0], other], tmp_path / "both")
    assert result["results"] == {} and "networks" not in result
    assert "Nothing was tested" in (tmp_path / "both" / "summary.md").read_text()


def test_its_training_loss_steers_in_place_of_the_validation_loss(trained_on_all):
    rows = logbook.read_metrics(trained_on_all[0] / "fold_0")
    assert not any(name.startswith("validation") for row in rows for name in row)
    lowest = min(rows, key=lambda row: row["train_loss"])
    assert rows[-1]["best_epoch"] == lowest["epoch"]
    assert rows[-1]["tested_epoch"] == 3


def test_it_predicts_and_is_evaluated_again(trained_on_all, tmp_path):
    folder = shutil.copytree(trained_on_all[0], tmp_path / "run")
    picture = np.full((40, 60), 90, np.uint8)
    (prediction,) = Predictor(folder)([picture])
    assert prediction.mask.shape == picture.shape
    assert prediction.warning == "not calibrated"
    assert crossval.evaluate(folder) == trained_on_all[1]


def test_a_report_of_nothing_is_refused(trained_on_all):
    with pytest.raises(UserError, match="has not tested an image"):
        report_command.main([f"--run={trained_on_all[0]}"])


def test_a_fold_without_validation_images(tmp_path):
    def change(folds):
        folds[0]["train"] += folds[0]["validation"]
        folds[0]["validation"] = []

    workdir, config = edited(tmp_path, change)
    result = crossval.train_and_evaluate(config, workdir)
    assert result["split"] == "custom"
    assert result["results"]["raw"]["figures"]["acc"]["n"] == [12, 12]
    # Trust is fitted where there are validation images.
    assert list(json.loads((workdir / "trust.json").read_text())["folds"]) == ["1"]
    assert (workdir / "report.html").stat().st_size > 10_000


def test_folds_that_train_on_their_validation_images_too(tmp_path):
    config = small_runs.make_config(keep="last")
    config.data.validation = False
    result = crossval.train_and_evaluate(config, tmp_path)
    # The folds are those of the split, not of a file that was edited.
    assert result["split"] == "published"
    assert result["results"]["raw"]["figures"]["acc"]["n"] == [12, 12]
    content = json.loads((tmp_path / "splits.json").read_text())
    usual = splits.make_folds(small_runs.CASES, "published")
    for given, fold in zip(content["folds"], usual, strict=True):
        expected = fold.to_uids(small_runs.CASES.uid)
        assert given["validation"] == [] and given["test"] == expected["test"]
        assert given["train"] == expected["train"] + expected["validation"]
    assert not (tmp_path / "trust.json").exists()
    assert result["validation_images"] == 0
    assert "**No validation images:**" in (tmp_path / "summary.md").read_text()
    # It goes on as it was, and no other way.
    assert crossval.train_and_evaluate(config, tmp_path)["results"] == result["results"]
    config.data.validation = True
    with pytest.raises(UserError, match=r"data\.validation"):
        crossval.train_and_evaluate(config, tmp_path)


def test_a_fold_without_test_images_beside_one_with(tmp_path):
    def change(folds):
        folds[1]["train"] += folds[1]["test"]
        folds[1]["test"] = []

    workdir, config = edited(tmp_path, change)
    result = crossval.train_and_evaluate(config, workdir)
    assert result["folds"] == [0] and result["test_images"] == 12
    assert pd.read_csv(workdir / "fold_1" / "cases.csv").empty
    assert Predictor(workdir).folds == (0, 1)


def test_a_part_of_the_images(tmp_path):
    def change(folds):
        for fold in folds:
            fold["train"] = fold["train"][5:]

    workdir, config = edited(tmp_path, change)
    result = crossval.train_and_evaluate(config, workdir)
    assert result["unused_images"] == 10
    assert "10 images" in (workdir / "summary.md").read_text()


def test_no_training_images_are_refused(tmp_path):
    workdir, config = edited(tmp_path, lambda folds: folds[0].update(train=[]))
    with pytest.raises(UserError, match="fold 0 has no training images"):
        crossval.train_and_evaluate(config, workdir)


def test_a_byte_order_mark_in_splits_json_is_read(tmp_path):
    workdir, config = edited(tmp_path, lambda folds: None)
    path = workdir / "splits.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert crossval.train_and_evaluate(config, workdir)["split"] == "published"
