"""Several trainings as one run: what it answers, what it keeps, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.special
import tiny

from configs import mt_unetpp
from mtbus_jax import crossval, data, ensemble, files, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate, published, stored_predictions
from mtbus_jax.export import command
from mtbus_jax.metrics import calibration
from mtbus_jax.predict import Predictor
from mtbus_jax.training import run_folder, run_splits, steps, trained_folds
from mtbus_jax.training.experiment import Experiment

SEEDS = (1, 2, 3)
VERSIONS = 4  # flips; the images are not square
CLASS_COLUMNS = [f"probability_{name}" for name in types.CLASS_NAMES]


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
        yield


def train_run(workdir, *, seed, folds, **changes):
    config = tiny.make_config(epochs=2, **changes)
    config.seed, config.data.folds, config.log.tensorboard = seed, folds, False
    crossval.train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs; the last has one fold only."""
    root = tmp_path_factory.mktemp("runs")
    folds = {1: (0, 1), 2: (0, 1), 3: (0,)}
    return [train_run(root / f"seed_{s}", seed=s, folds=folds[s]) for s in SEEDS]


@pytest.fixture(scope="module")
def joined(runs, tmp_path_factory):
    """An ensemble of the first two runs."""
    out = tmp_path_factory.mktemp("joined") / "both"
    ensemble.make_ensemble(runs[:2], out)
    return out


def network_says(run, fold, images):
    """Probabilities of a run's network for images as they are: masks and classes."""
    found = trained_folds.load(run, [fold])
    outputs = jax.jit(found.module.apply)(found.members[0].variables, images.astype(np.float32))
    masks = scipy.special.expit(np.asarray(outputs.segmentation[0], np.float64))
    return masks[..., 0], scipy.special.softmax(np.asarray(outputs.class_logits), axis=-1)


def flipped(images, number):
    """The four versions of a picture that is not square; each undoes itself."""
    return images[:, :: -1 if number & 1 else 1, :: -1 if number & 2 else 1]


def rows_of(workdir, fold):
    path = run_folder.fold_dir(workdir, fold) / run_folder.CASES
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def refused(runs, out, *words):
    before = sorted(out.parent.iterdir())
    with pytest.raises(UserError) as caught:
        ensemble.make_ensemble(runs, out)
    for word in words:
        assert word in str(caught.value)
    assert sorted(out.parent.iterdir()) == before


# What it answers.


@pytest.mark.parametrize("fold", [0, 1])
def test_the_answer_is_the_mean_of_the_networks(runs, joined, fold):
    cases, rows = tiny.make_cases(), rows_of(joined, fold)
    images = np.stack([cases.image[np.flatnonzero(cases.uid == uid)[0]] for uid in rows.uid])
    said = [network_says(run, fold, images) for run in runs[:2]]
    assert np.abs(said[0][1] - said[1][1]).max() > 1e-3  # they differ
    classes = (said[0][1] + said[1][1]) / 2
    np.testing.assert_allclose(rows[CLASS_COLUMNS], classes, atol=1e-6)
    assert rows.predicted.tolist() == [types.CLASS_NAMES[c] for c in classes.argmax(axis=-1)]
    masks = (said[0][0] + said[1][0]) / 2
    stored = stored_predictions.read(run_folder.fold_dir(joined, fold))
    np.testing.assert_allclose(stored.probability, masks, atol=1 / 512 + 1e-5)
    clear = np.abs(masks - 0.5).min(axis=(1, 2)) > 1e-6
    assert clear.sum() > len(clear) / 2
    assert ((masks > 0.5).sum(axis=(1, 2)) == rows.predicted_pixels)[clear].all()


def test_with_average_the_flipped_versions_are_part_of_the_answer(runs, joined, tmp_path):
    for workdir, networks in ((runs[0], runs[:1]), (joined, runs[:2])):
        copy = shutil.copytree(workdir, tmp_path / workdir.name)
        config = run_folder.load_config(copy)
        config.eval.average = True
        result = crossval.evaluate(copy, overrides=config)
        rows, cases = rows_of(copy, 0), tiny.make_cases()
        images = np.stack([cases.image[np.flatnonzero(cases.uid == uid)[0]] for uid in rows.uid])
        each = [
            network_says(run, 0, flipped(images, number))
            for run in networks
            for number in range(VERSIONS)
        ]
        classes = np.mean([said for _, said in each], axis=0)
        np.testing.assert_allclose(rows[CLASS_COLUMNS], classes, atol=1e-6)
        back = [flipped(masks, k % VERSIONS) for k, (masks, _) in enumerate(each)]
        stored = stored_predictions.read(run_folder.fold_dir(copy, 0))
        np.testing.assert_allclose(stored.probability, np.mean(back, axis=0), atol=1 / 512 + 1e-5)
        np.testing.assert_allclose(stored.mean_probability, stored.probability, atol=1e-6)
        assert np.abs(rows[CLASS_COLUMNS] - rows_of(workdir, 0)[CLASS_COLUMNS]).to_numpy().max() > 0
        # The tiny dataset has no published figures, so no departures from them either.
        assert result["departures_from_published_recipe"] is None
        assert run_folder.load_config(copy).eval.average  # the folder says what its figures are
        assert not run_folder.load_config(workdir).eval.average


def test_after_upright_training_the_mean_is_over_the_image_and_its_mirror_image(tmp_path):
    workdir = train_run(tmp_path / "run", seed=1, folds=(0,), augmentation="upright")
    config = run_folder.load_config(workdir)
    config.eval.average = True
    crossval.evaluate(workdir, overrides=config)
    rows, cases = rows_of(workdir, 0), tiny.make_cases()
    images = np.stack([cases.image[np.flatnonzero(cases.uid == uid)[0]] for uid in rows.uid])
    each = [network_says(workdir, 0, view) for view in (images, images[:, :, ::-1])]
    classes = np.mean([said for _, said in each], axis=0)
    np.testing.assert_allclose(rows[CLASS_COLUMNS], classes, atol=1e-6)
    stored = stored_predictions.read(run_folder.fold_dir(workdir, 0))
    assert len(stored.class_logits) == 2
    mean = (each[0][0] + each[1][0][:, :, ::-1]) / 2
    np.testing.assert_allclose(stored.mean_probability, mean, atol=1 / 512 + 1e-5)


def test_trust_is_fitted_to_all_members(runs, joined):
    content = json.loads((joined / "trust.json").read_text())
    cases = tiny.make_cases()
    for fold in (0, 1):
        stored = stored_predictions.read(run_folder.fold_dir(joined, fold), "validation")
        assert len(stored.class_logits) == 2 * VERSIONS
        alone = [
            stored_predictions.read(run_folder.fold_dir(run, fold), "validation")
            for run in runs[:2]
        ]
        both = np.concatenate([each.class_logits for each in alone])
        np.testing.assert_allclose(stored.class_logits, both, atol=1e-5)
        label = cases.label[[int(np.flatnonzero(cases.uid == uid)[0]) for uid in stored.uid]]
        temperature = calibration.fit_temperature(both, label)
        assert content["folds"][str(fold)]["temperature"] == pytest.approx(temperature, rel=1e-3)
        between = stored.disagreement - np.mean([each.disagreement for each in alone], axis=0)
        assert between.mean() > 0  # networks disagree more than versions of one


def test_the_mean_of_one_prediction_is_that_prediction_and_of_certain_ones_finite():
    one = steps.Predictions(np.full((2, 4, 6, 1), 0.3, np.float32), np.array([[1e4, 0, -1e4]] * 2))
    assert evaluate.mean_prediction([one]) is one
    other = one._replace(class_logits=-one.class_logits)
    mean = evaluate.mean_prediction([one, other])
    np.testing.assert_allclose(
        scipy.special.softmax(mean.class_logits, axis=-1), [[0.5, 0, 0.5]] * 2, atol=1e-12
    )
    masks = evaluate.mean_prediction([one._replace(class_logits=None)] * 3)
    assert masks.class_logits is None
    np.testing.assert_allclose(masks.probability, 0.3, rtol=1e-6)


# What can be done with it.


def test_the_folder_needs_no_other(runs, joined, tmp_path):
    workdir = shutil.copytree(joined, tmp_path / "elsewhere")
    predictor = Predictor(workdir, refine="none")
    assert (predictor.folds, predictor.members) == ((0, 1), 2 * 2 * VERSIONS)
    assert predictor.calibrated
    picture = tiny.make_cases(3, seed=5).image[1, ..., 0]
    (found,) = predictor([picture])
    masks = [
        flipped(network_says(run, fold, flipped(picture[None, ..., None], k))[0], k)[0]
        for fold in (0, 1)
        for run in runs[:2]
        for k in range(VERSIONS)
    ]
    np.testing.assert_allclose(found.probability, np.mean(masks, axis=0), atol=1e-5)
    assert Predictor(workdir, folds=[1], tta=False).members == 2


def test_it_is_exported_as_one_model(runs, joined, tmp_path):
    command.export_run(joined, tmp_path / "out", folds=(0,), wanted=("stablehlo",))
    images = tiny.make_cases(4, seed=6).image.astype(np.float32)
    exported = jax.export.deserialize((tmp_path / "out" / "model.stablehlo").read_bytes())
    outputs = exported.call(images)
    classes = np.mean([network_says(run, 0, images)[1] for run in runs[:2]], axis=0)
    np.testing.assert_allclose(outputs["class_probability"], classes, atol=1e-5)
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "2 copies whose probabilities are averaged: the best weights of 2 trainings of" in card


def test_the_card_of_a_run_that_kept_its_last_weights_says_so(runs, tmp_path):
    workdir = shutil.copytree(runs[2], tmp_path / "run")
    config = run_folder.load_config(workdir)
    config.train.keep = "last"
    files.write_json(workdir / run_folder.CONFIG, config.to_dict())
    command.export_run(workdir, tmp_path / "out", wanted=("stablehlo",))
    assert "the last weights of fold 0" in (tmp_path / "out" / "model_card.md").read_text()


def test_the_summary_and_the_report_show_its_networks(runs, joined):
    result = json.loads((joined / "summary.json").read_text())
    assert [network["seed"] for network in result["networks"]] == [1, 2]
    text, page = (joined / "summary.md").read_text(), (joined / "report.html").read_text()
    for run, network in zip(runs, result["networks"], strict=False):
        own = json.loads((run / "summary.json").read_text())["results"]["refined"]["figures"]
        for name in ("dsc_average", "acc", "f1_weighted"):
            assert network[name] == pytest.approx(own[name]["mean"])
            assert f"{network[name]:.3f}" in text
            assert f"{network[name]:.3f}" in page
    assert "mean of 2 networks per fold" in text
    assert "mean of 2 networks per fold" in page
    assert "network_*/fold_*" in page  # where the curves are
    assert "both" in page
    assert ".partial" not in text + page


def test_testing_it_again_changes_nothing(joined, tmp_path):
    workdir = shutil.copytree(joined, tmp_path / "again")
    crossval.evaluate(workdir)
    for fold in (0, 1):
        pd.testing.assert_frame_equal(rows_of(workdir, fold), rows_of(joined, fold))


def test_folds_that_not_all_have_are_left_out(runs, tmp_path, capsys):
    result = ensemble.make_ensemble(runs, tmp_path / "three")
    assert result["folds"] == [0]
    assert len(result["networks"]) == 3
    assert "left out: fold 1" in capsys.readouterr().out
    assert trained_folds.load(tmp_path / "three").folds == (0,)


def test_a_departure_from_the_published_recipe():
    config = mt_unetpp.get_config().to_dict()
    assert published.departures(run_folder.flatten(config)) == []
    config["eval"]["average"] = True
    config["seed"] = (1, 2, 3)
    assert published.departures(run_folder.flatten(config)) == [
        "eval.average = True instead of False",
        "the mean of 3 networks instead of one",
    ]


# What is refused, and leaves nothing.


def test_too_few_and_the_same_network_twice(runs, tmp_path):
    refused(runs[:1], tmp_path / "out", "two run folders or more")
    refused([runs[0], runs[0]], tmp_path / "out", "same seed", "--config.seed")


def test_runs_that_do_not_go_together(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    config = run_folder.load_config(other)
    config.train.learning_rate = 0.5
    files.write_json(other / run_folder.CONFIG, config.to_dict())
    refused([runs[0], other], tmp_path / "out", "train.learning_rate (0.01 and 0.5)")


def test_runs_with_other_folds(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    content = files.read_json(other / run_splits.SPLITS)
    content["folds"] = content["folds"][::-1]
    files.write_json(other / run_splits.SPLITS, content)
    refused([runs[0], other], tmp_path / "out", "splits.json", "may have trained")


def test_no_tested_fold_in_common(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    (run_folder.fold_dir(other, 0) / run_folder.CASES).unlink()
    shutil.rmtree(run_folder.fold_dir(other, 1) / "checkpoints" / "best")
    refused([runs[0], other], tmp_path / "out", "no fold in common", "none")


def test_what_cannot_be_copied(runs, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    refused(runs[:2], tmp_path / "out", "cannot be made", "No space left")


def test_no_run_and_an_ensemble_of_ensembles(runs, joined, tmp_path):
    (tmp_path / "empty").mkdir()
    refused([runs[0], tmp_path / "empty"], tmp_path / "out", "config.json", "not a run folder")
    refused([joined, runs[2]], tmp_path / "out", "ensemble itself")


def test_what_exists_is_not_replaced(runs, tmp_path):
    (tmp_path / "out").mkdir()
    refused(runs[:2], tmp_path / "out", "exists")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        ensemble.make_ensemble(runs[:2], tmp_path / "file" / "out")


def test_without_the_dataset_nothing_is_made(runs, tmp_path, monkeypatch):
    def load(name, **kwargs):
        raise UserError(f"{name} is not to be had")

    monkeypatch.setattr(data.arrays, "load_cases", load)
    refused(runs[:2], tmp_path / "out", "not to be had")


def test_a_network_that_was_lost(joined, tmp_path):
    workdir = shutil.copytree(joined, tmp_path / "cut")
    shutil.rmtree(workdir / "network_0")
    for use in (trained_folds.load, crossval.evaluate, Predictor):
        with pytest.raises(UserError, match="lacks network_0"):
            use(workdir)


def test_it_is_not_trained_on(joined):
    config = tiny.make_config(epochs=4)
    config.seed, config.data.folds, config.log.tensorboard = 1, (0, 1), False
    with pytest.raises(UserError, match="seed"):
        crossval.train_and_evaluate(config, joined)


def test_average_wants_versions():
    config = tiny.make_config()
    config.eval.average, config.eval.tta = True, False
    with pytest.raises(UserError, match=r"eval.average.*eval.tta=True"):
        Experiment.from_config(config)


def test_what_a_later_version_adds_to_splits_json_makes_no_other_folds(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    content = files.read_json(other / run_splits.SPLITS)
    del content["unused_images"]
    files.write_json(other / run_splits.SPLITS, content)
    ensemble.make_ensemble([runs[0], other], tmp_path / "out")
    assert (tmp_path / "out" / "summary.json").is_file()
