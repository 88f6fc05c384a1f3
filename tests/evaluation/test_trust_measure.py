"""Fitting and measuring trust on a hand-made run folder of two folds."""

import numpy as np
import pandas as pd
import pytest
from tiny import make_cases

from mtbus_jax import refine, splits, types
from mtbus_jax.evaluation import evaluate, stored_predictions, trust
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.metrics import calibration, segmentation
from mtbus_jax.training import run_folder, steps

HALF = 24


def make_predictions(cases, rng, members=3):
    """Mostly right; every fifth image has another class, every seventh an empty mask."""
    count = len(cases)
    said = np.where(np.arange(count) % 5 == 0, (cases.label + 1) % 3, cases.label)
    blank = (np.arange(count) % 7 == 0)[:, None, None, None]
    mask = np.where(blank, 0.0, np.where(cases.mask > 0, 0.8, 0.1))
    return [
        steps.Predictions(
            np.clip(mask + 0.1 * rng.normal(size=mask.shape), 0, 1).astype(np.float32),
            (2 * np.eye(3)[said] + rng.normal(size=(count, 3))).astype(np.float32),
        )
        for _ in range(members)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    cases = make_cases(2 * HALF + 24)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(cases))
    train, first, second = order[2 * HALF :], order[:HALF], order[HALF : 2 * HALF]
    folds = [splits.Split(train, first, second), splits.Split(train, second, first)]
    for number, fold in enumerate(folds):
        directory = run_folder.fold_dir(workdir, number)
        directory.mkdir()
        for part in stored_predictions.NAMES:
            index = getattr(fold, part)
            members = make_predictions(cases.take(index), rng)
            stored_predictions.write(directory, part, cases.uid[index], members, answer=members[0])
        rows = evaluate.case_rows(cases.take(fold.test), members_of_test(directory))
        rows.insert(1, "fold", number)
        rows.to_csv(directory / run_folder.CASES, index=False)
    content = measure.write_trust(workdir, cases, folds)
    return workdir, cases, folds, content


def members_of_test(directory):
    stored = stored_predictions.read(directory)
    return steps.Predictions(stored.probability[..., None], stored.class_logits[0])


def test_rows_say_what_was_predicted_corrected_and_whether_it_was_right(run):
    workdir, cases, folds, _ = run
    rows = pd.read_csv(workdir / measure.ROWS, keep_default_na=False).set_index("uid")
    assert len(rows) == 2 * HALF
    for number, fold in enumerate(folds):
        stored = stored_predictions.read(run_folder.fold_dir(workdir, number))
        for i, position in enumerate(fold.test):
            row = rows.loc[cases.uid[position]]
            mask = stored.probability[i] > 0.5
            raw = int(stored.class_logits[0, i].argmax())
            hard_mask = mask & (raw != types.NORMAL)
            hard = raw if mask.any() else types.NORMAL
            dice = segmentation.dice(cases.mask[position, ..., 0] > 0, hard_mask)
            assert row.fold == number
            assert row.predicted == types.CLASS_NAMES[hard]
            assert row.dice == pytest.approx(dice)
            assert row.wrong == (hard != cases.label[position] or dice < 0.5)
            emptied, renamed = mask.any() and raw == 2, not mask.any() and raw != 2
            expected = "mask emptied" if emptied else "class set to normal" if renamed else ""
            assert row.correction == expected
    assert set(rows.correction) == {"", "mask emptied", "class set to normal"}


def test_a_fold_sees_its_own_validation_images_only(run):
    workdir, cases, folds, content = run
    stored = stored_predictions.read(run_folder.fold_dir(workdir, 1), "validation")
    label = cases.label[folds[1].validation]
    expected = calibration.fit_temperature(stored.class_logits, label)
    assert content["folds"]["1"]["temperature"] == pytest.approx(expected)
    assert content["folds"]["1"]["validation_images"] == HALF
    assert content["folds"]["0"]["temperature"] != content["folds"]["1"]["temperature"]
    assert trust.read(workdir)[1].temperature == pytest.approx(expected)


def test_measures_follow_from_the_rows(run):
    workdir, _, _, content = run
    rows = pd.read_csv(workdir / measure.ROWS, keep_default_na=False)
    found = content["measured"]["test"]
    by_doubt = rows.sort_values("uncertainty")
    kept = by_doubt.head(int(np.ceil(0.8 * len(rows))))
    assert found["risk"]["wrong"]["all"] == pytest.approx(rows.wrong.mean())
    assert found["risk"]["wrong"]["kept"] == pytest.approx(kept.wrong.mean(), abs=1e-9)
    right = np.sort(rows.wrong)[: len(kept)]
    assert found["risk"]["wrong"]["best"] == pytest.approx(right.mean(), abs=1e-9)
    assert found["risk"]["dice_loss"]["kept"] == pytest.approx(1 - kept.dice.mean())
    wrong_class = kept.predicted != kept.label
    assert found["risk"]["wrong_class"]["kept"] == pytest.approx(wrong_class.mean())
    covered = [
        label in text.split("|")
        for label, text in zip(rows.label, rows.prediction_set, strict=True)
    ]
    assert found["conformal"]["coverage"] == pytest.approx(np.mean(covered))
    sizes = rows.prediction_set.map(lambda text: len(text.split("|")) if text else 0)
    assert found["conformal"]["size"] == pytest.approx(sizes.mean())
    assert found["refining"]["raw"]["acc"] == pytest.approx(
        (rows.raw_predicted == rows.label).mean()
    )
    assert found["refining"]["hard"]["dsc"] == pytest.approx(rows.dice.mean())
    assert found["refining"]["probable"]["dsc"] == pytest.approx(rows.probable_dice.mean())
    assert content["measured"]["validation"]["images"] == 2 * HALF


def test_probable_pairs_are_those_of_the_refining_module(run):
    workdir, cases, folds, _ = run
    rows = pd.read_csv(workdir / measure.ROWS, keep_default_na=False)
    rows = rows[rows.fold == 0]
    stored = stored_predictions.read(run_folder.fold_dir(workdir, 0))
    calibrated = rows[[f"calibrated_{name}" for name in types.CLASS_NAMES]].to_numpy(np.float32)
    _, class_id = refine.refine_probable(
        stored.probability, calibrated, rows.lesion_odds.to_numpy()
    )
    assert [types.CLASS_NAMES[i] for i in np.asarray(class_id)] == rows.probable_predicted.tolist()
    assert rows.uid.tolist() == cases.uid[folds[0].test].tolist()


@pytest.mark.parametrize("fold", [0, 1])
def test_doubt_is_about_the_refined_pair(run, fold):
    workdir, _, _, _ = run
    rows = pd.read_csv(workdir / measure.ROWS, keep_default_na=False)
    rows = rows[rows.fold == fold]
    stored = stored_predictions.read(run_folder.fold_dir(workdir, fold))
    fitted = trust.read(workdir)
    found = trust.join(
        stored.mean_probability, stored.disagreement, stored.class_logits, fitted, [fold]
    )
    raw = stored.probability > 0.5, stored.class_logits[0].argmax(axis=-1)
    hard = tuple(map(np.asarray, refine.refine(raw[0], stored.class_logits[0])))
    by_raw, by_hard = (trust.judge(found, *pair, fitted, [fold]) for pair in (raw, hard))
    np.testing.assert_allclose(rows.uncertainty, by_hard.uncertainty, rtol=1e-6)
    assert (rows.warning == by_hard.warning).all()
    assert np.abs(by_raw.uncertainty - by_hard.uncertainty).max() > 0.01


def test_markdown_shows_every_measure(run):
    lines = "\n".join(measure.to_markdown(run[3]))
    measured = run[3]["measured"]
    for value in (
        measured["test"]["risk"]["wrong"]["kept"],
        measured["test"]["calibration"]["after"],
        measured["test"]["conformal"]["coverage"],
        measured["validation"]["refining"]["probable"]["dsc"],
        measured["test"]["refining"]["hard"]["acc"],
    ):
        assert f"{value:.3f}" in lines


def test_corrections_in_words():
    empty, spot = np.zeros((2, 3), bool), np.eye(2, 3, dtype=bool)
    logits = np.array([[0.0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    found = measure.corrections(np.stack([empty, spot, empty, spot]), logits)
    assert found.tolist() == ["", "mask emptied", "class set to normal", ""]


@pytest.mark.parametrize("task", ["seg", "cls"])
def test_a_single_task_is_measured_by_what_it_has(tmp_path, task):
    cases = make_cases(60)
    rng = np.random.default_rng(1)
    fold = splits.Split(np.arange(20), np.arange(20, 40), np.arange(40, 60))
    directory = run_folder.fold_dir(tmp_path, 0)
    directory.mkdir()
    drop = {"class_logits": None} if task == "seg" else {"probability": None}
    for part in stored_predictions.NAMES:
        index = getattr(fold, part)
        members = [m._replace(**drop) for m in make_predictions(cases.take(index), rng)]
        stored_predictions.write(directory, part, cases.uid[index], members, answer=members[0])
    rows = evaluate.case_rows(cases.take(fold.test), members[0])
    rows.insert(1, "fold", 0)
    rows.to_csv(directory / run_folder.CASES, index=False)
    found = measure.write_trust(tmp_path, cases, [fold])["measured"]["test"]
    expected = {"wrong", "dice_loss"} if task == "seg" else {"wrong", "wrong_class"}
    assert found["risk"].keys() == expected
    assert ("calibration" in found) == (task == "cls")
    assert "refining" not in found
    assert measure.to_markdown(
        {"error_rate": 0.1, "measured": {"test": found, "validation": found}}
    )
