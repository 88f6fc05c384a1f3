"""What time_to_published.py concludes from rows, and what it hands to the PyTorch side."""

import importlib
import json
import pathlib
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from scipy.spatial import distance

from benchmarks import peer_batches, reaching
from configs import best, mt_unetpp
from mtbus_jax import models, refine, splits
from mtbus_jax.errors import UserError
from mtbus_jax.training import device_data, fold
from mtbus_jax.training.evaluator import make_batches
from mtbus_jax.training.experiment import Experiment, fold_keys
from mtbus_jax.training.totals import Totals

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def imported(monkeypatch):
    """Imports a file of benchmarks/, which finds its neighbours as when a script is run."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def row(epoch, seconds, dice=0.0, accuracy=0.0, *, refined=(0.0, 0.0)):
    return {
        "epoch": epoch,
        "processor_seconds": seconds,
        "dice": dice,
        "accuracy": accuracy,
        "refined_dice": refined[0],
        "refined_accuracy": refined[1],
    }


@pytest.mark.parametrize(
    ("enough", "first", "held"),
    [
        ("..x.xx", 3.0, 5.0),
        ("xxxxxx", 1.0, 1.0),
        ("......", None, None),
        (".xxxx.", 2.0, None),
        (".....x", 6.0, 6.0),
    ],
)
def test_first_reached_and_held_to_the_end(enough, first, held):
    minutes = np.arange(1.0, 7.0)
    found = reaching.when(minutes, np.array([each == "x" for each in enough]))
    assert found == (first, held)


def test_folds_are_averaged_and_one_that_stopped_early_keeps_its_last_row():
    folds = [[row(1, 60), row(2, 120), row(3, 180)], [row(1, 30), row(2, 40)]]
    seconds = reaching.over_folds(folds, "processor_seconds")
    np.testing.assert_array_equal(seconds, [45, 80, 110])


def test_both_are_reached_in_one_epoch_of_the_mean_over_folds():
    folds = [
        [row(1, 60, 0.8, 0.5), row(2, 120, 0.6, 0.9), row(3, 180, 0.8, 0.9)],
        [row(1, 120, 0.8, 0.5), row(2, 240, 0.6, 0.9), row(3, 360, 0.7, 0.7)],
    ]
    found = reaching.compare(folds, reaching.Target("t", "", 0.75, 0.8))
    assert found["dice"] == [1.5, 4.5]  # 0.8, 0.6, 0.75
    assert found["accuracy"] == [3.0, 3.0]  # 0.5, 0.9, 0.8
    assert found["both"] == [4.5, 4.5]
    assert (found["last_dice"], found["last_accuracy"]) == pytest.approx((0.75, 0.8))


def test_refined_targets_read_the_refined_figures():
    folds = [[row(1, 60, 0.9, 0.9, refined=(0.1, 0.2))]]
    found = reaching.compare(folds, reaching.Target("t", "refined_", 0.5, 0.5))
    assert found["both"] == [None, None]
    assert (found["last_dice"], found["last_accuracy"]) == (0.1, 0.2)


def test_epochs_that_are_missing_cost_as_much_as_the_last():
    rows = [row(1, 600), row(2, 660), row(3, 780)]  # the first one compiles
    assert reaching.whole_minutes(rows, epochs=10, finished=False) == (780 + 7 * 120) / 60
    assert reaching.whole_minutes(rows, epochs=10, finished=True) == 13


def test_figures_are_those_of_scipy_and_of_the_librarys_refining():
    rng = np.random.default_rng(0)
    mask = rng.random((8, 5, 7)) > 0.6
    predicted = rng.random((8, 5, 7)) > 0.5
    mask[:3], predicted[2:5] = False, False  # the third is empty on both sides
    label, class_id = rng.integers(0, 3, 8), np.array([2, 0, 2, 1, 2, 2, 1, 0])
    found = reaching.figures(predicted, class_id, mask, label, normal=2)

    def dice(predicted):
        pairs = list(zip(predicted.reshape(8, -1), mask.reshape(8, -1), strict=True))
        return np.mean([1 - distance.dice(p, m) if (p | m).any() else 1.0 for p, m in pairs])

    refined, classes = refine.refine(predicted, np.eye(3)[class_id])
    assert (classes != class_id).any()
    assert found == pytest.approx(
        {
            "dice": dice(predicted),
            "accuracy": np.mean(class_id == label),
            "refined_dice": dice(np.asarray(refined)),
            "refined_accuracy": np.mean(np.asarray(classes) == label),
        }
    )


def test_targets_are_those_of_the_published_table(imported):
    table = pd.read_csv(ROOT / "mtbus_jax" / "evaluation" / "published.csv", dtype=str)
    table = table[table.model == "unetpp"].set_index(["dataset", "setting", "metric"])["mean"]

    def rows(dataset):
        return {
            (t.name, t.prefix): (t.dice, t.accuracy)
            for t in imported("time_to_published").targets_of(dataset, ())
        }

    def printed(*of):
        return tuple(float(table[(*of, metric)]) for metric in ("dsc_average", "acc"))

    assert rows("curated_busi") == {
        ("MT+PR+DO", "refined_"): printed("curated_busi", "MT+PR+DO"),
        ("MT+DO", ""): printed("curated_busi", "MT+DO"),
    }
    assert rows("bus_uclm") == {("MT+PR+DO", "refined_"): printed("bus_uclm", "MT+PR+DO")}
    with pytest.raises(UserError, match="no published figures for phantom"):
        imported("time_to_published").targets_of("phantom", ())


@pytest.mark.parametrize("epochs", ["1", "201", "two"])
def test_epochs_that_cannot_be_extrapolated_from_are_refused(imported, epochs):
    with pytest.raises(UserError, match="give a number of epochs from 2"):
        imported("time_to_published").read_recipe(f"configs/mt_unetpp.py:{epochs}", {})


def test_folds_without_validation_images_are_refused(imported, phantom_data_dir):
    config = best.get_config()
    config.data.name, config.data.data_dir = "phantom", str(phantom_data_dir)
    config.data.image_size = (32, 32)
    check_data = imported("time_to_published").check_data
    check_data(config, (0,))
    config.data.validation = False
    with pytest.raises(UserError, match="validation=False: there are no validation images"):
        check_data(config, (0,))


def test_a_peer_that_computes_something_else_ends_the_comparison(imported):
    check_same = imported("training_sides").check_same
    ours = {"parameters": 7, "losses": [1.0, 0.9, 0.8]}
    check_same({"parameters": 7, "losses": [1.0005, 0.9, 0.8]}, ours=ours)
    for other in ({"parameters": 8}, {"losses": [1.0, 0.9, 0.9]}):
        with pytest.raises(SystemExit, match="the sides differ"):
            check_same(ours | other, ours=ours)


def test_a_side_is_stopped_if_the_check_fails(imported):
    program = "import json, time; print(json.dumps({'losses': [1]}), flush=True); time.sleep(60)"

    def check(facts):
        raise SystemExit(str(facts))

    with pytest.raises(SystemExit, match="losses"):
        imported("training_sides").watch([sys.executable, "-c", program], {}, check=check)


def test_a_side_that_fails_ends_the_comparison(imported):
    line = json.dumps(row(1, 5))
    with pytest.raises(SystemExit, match="exit code 3"):
        imported("training_sides").watch(
            [sys.executable, "-c", f"print('{line}'); raise SystemExit(3)"], {}
        )


def test_recipes_of_another_network_or_loss_have_no_peer():
    assert peer_batches.without_peer(best.get_config()) == []
    odd = peer_batches.without_peer(mt_unetpp.get_config())
    assert "model.name='unetpp' instead of 'lite_unet'" in odd
    config = best.get_config()
    config.loss.gamma = 2.0
    assert peer_batches.without_peer(config) == ["loss.gamma=2.0 instead of 0.0"]


def test_the_peers_batches_are_those_of_the_training(monkeypatch):
    """A training of the library, step for step, has the losses that the written batches give."""
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    config = tiny.make_config(augmentation="varied")
    cases = tiny.make_cases()
    experiment = Experiment.from_config(config)
    placed = device_data.place(cases, experiment.devices)
    train = splits.make_folds(cases, "published")[1].train
    key = fold_keys(config.seed, 1)[1]
    batches = peer_batches.augmented_batches(experiment, placed, train, number=1, epochs=2)
    whole = jax.jit(experiment.train_steps(None))
    alone = jax.jit(experiment.train_step())
    state, seen = experiment.init_state(1), []
    for epoch in (1, 2):
        order = fold.epoch_order(train, seed=config.seed, fold=1, epoch=epoch)
        for index, valid in zip(*make_batches(order, 5), strict=True):
            dropout_key = jax.random.split(jax.random.fold_in(key, state.step))[0]
            dropout_key = jax.random.fold_in(dropout_key, 0)
            _, sums = alone(state, next(batches), key=dropout_key)
            state, totals = whole(state, Totals.zero(), placed, index[None], valid[None], key)
            seen.append((float(sums.loss), float(totals.loss), float(totals.count)))
    assert next(batches, None) is None
    found, expected, count = np.array(seen).T
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert count.sum() == 2 * len(train)
    assert len(set(found)) == len(found)
