"""The loop and the main job: learning, resuming, refusing, what a run folder holds."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import tiny

from mtbus_jax import augment, crossval, data, files, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.splits import published_folds
from mtbus_jax.training import fold as fold_training
from mtbus_jax.training import run_folder, steps
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    """Registers the tiny network; `data.load_cases` gives the tiny dataset."""
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())


def final_state(config, directory, origin):
    like = Experiment.from_config(config).abstract_state()
    with Checkpoints(directory / "checkpoints", origin) as checkpoints:
        return checkpoints.restore_latest(like), checkpoints.restore_best(like)


def test_training_lowers_the_loss_and_keeps_the_best_weights(tmp_path):
    config = tiny.make_config(epochs=12)
    origin = tiny.train_one(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    validation = [row["validation_loss"] for row in rows]
    state, best = final_state(config, tmp_path, origin)
    assert int(state.plateau.best_epoch) == 1 + int(np.argmin(validation))
    assert float(state.plateau.best_loss) == pytest.approx(min(validation))
    jax.tree.map(np.testing.assert_array_equal, best["params"], state.best_params)
    # 36 images rest, 28 of them train: 10/9/9 or so, tripled by oversampling.
    train_count = len(
        published_folds(tiny.make_cases().label, tiny.make_cases().test_fold)[0].train
    )
    assert int(state.step) == 12 * -(-3 * train_count // 5)


@pytest.mark.parametrize("keep", ["best", "last", "average"])
def test_which_weights_are_kept_to_be_tested(tmp_path, monkeypatch, keep):
    # Only the first epoch is better than what was before.
    monkeypatch.setattr(state_lib, "is_better", lambda loss, best: best == np.inf)
    config = tiny.make_config(epochs=2, keep=keep)
    origin = tiny.train_one(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["best_epoch"] for row in rows] == [1, 1]
    assert [row["tested_epoch"] for row in rows] == [1, 1 if keep == "best" else 2]
    state, kept = final_state(config, tmp_path, origin)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), kept["params"], state.params)
    assert all(jax.tree.leaves(same)) == (keep == "last")


def test_with_an_average_epochs_are_judged_by_it(tmp_path):
    config = tiny.make_config(epochs=1, keep="average", average_decay=0.8)
    origin = tiny.train_one(config, tmp_path)
    state, kept = final_state(config, tmp_path, origin)
    experiment, cases = Experiment.from_config(config), tiny.make_cases()
    validation = published_folds(cases.label, cases.test_fold)[0].validation
    evaluator = tiny.make_loop(experiment, cases)._evaluator
    (row,) = read_metrics(tmp_path)
    assert row["validation_loss"] == pytest.approx(evaluator(kept, validation)[0]["loss"])
    assert row["validation_loss"] != pytest.approx(
        evaluator(state.variables, validation)[0]["loss"]
    )


def test_a_killed_run_goes_on_as_if_never_stopped(tmp_path):
    config = tiny.make_config(epochs=5)
    origin = tiny.train_one(config, tmp_path / "whole")
    with tiny.killed_after(3):
        tiny.train_one(config, tmp_path / "killed")
    assert len(read_metrics(tmp_path / "killed")) == 3
    tiny.train_one(config, tmp_path / "killed")
    whole, killed = (
        final_state(config, tmp_path / name, origin)[0] for name in ("whole", "killed")
    )
    jax.tree.map(np.testing.assert_array_equal, whole, killed)
    rows = [tiny.without_times(read_metrics(tmp_path / name)) for name in ("whole", "killed")]
    assert rows[0] == rows[1]


def test_the_same_run_twice_gives_the_same_numbers(tmp_path):
    config = tiny.make_config(epochs=2)
    for name in ("a", "b"):
        tiny.train_one(config, tmp_path / name)
    assert tiny.without_times(read_metrics(tmp_path / "a")) == tiny.without_times(
        read_metrics(tmp_path / "b")
    )


def test_another_seed_or_fold_gives_other_numbers(tmp_path):
    config = tiny.make_config(epochs=1)
    tiny.train_one(config, tmp_path / "a")
    tiny.train_one(config, tmp_path / "b", fold=1)
    config.seed = 7
    tiny.train_one(config, tmp_path / "c")
    losses = {read_metrics(tmp_path / name)[0]["train_loss"] for name in "abc"}
    assert len(losses) == 3


def test_the_augmentation_of_the_configuration_is_the_one_trained_with(tmp_path):
    losses = set()
    for number, (shown, kind, fill) in enumerate(
        [
            (True, "released", "zero"),
            (True, "released", "reflect"),
            (True, "upright", "zero"),
            (True, "upright", "reflect"),
            (False, "released", "zero"),
        ]
    ):
        config = tiny.make_config(epochs=1)
        config.train.update(augment=shown, augmentation=kind, rotation_fill=fill)
        tiny.train_one(config, tmp_path / str(number))
        losses.add(read_metrics(tmp_path / str(number))[0]["train_loss"])
    assert len(losses) == 5


def test_early_stopping_and_halved_learning_rate(tmp_path):
    """With a zero-effect learning rate nothing gets better after the first epoch."""
    config = tiny.make_config(
        epochs=30, learning_rate=1e-30, min_learning_rate=0.0, plateau_patience=2, stop_patience=5
    )
    tiny.train_one(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert len(rows) == 7  # the best one, five that it survives, and one more
    rates = [row["learning_rate"] / 1e-30 for row in rows]
    np.testing.assert_allclose(rates, [1, 1, 1, 1, 0.5, 0.5, 0.5], rtol=1e-5)


def test_the_log_has_the_rate_of_each_epochs_first_step(tmp_path):
    """Half a cosine from 1e-3 over four epochs, no warm-up: its value at 0, 1/4, 1/2 and 3/4."""
    config = tiny.make_config(epochs=4, learning_rate=1e-3, course="cosine")
    tiny.train_one(config, tmp_path)
    found = [row["learning_rate"] for row in read_metrics(tmp_path)]
    expected = 0.5e-3 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75])))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_decay_is_that_of_the_steps_too(tmp_path):
    """By 10⁻¹² after each epoch: the log says so, and from the second one on nothing moves."""
    decay = {"course": "decay", "decay_factor": 1e-12, "decay_epochs": 1}
    tiny.train_one(tiny.make_config(epochs=3, **decay), tmp_path)
    rows = read_metrics(tmp_path)
    found = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(found, [1e-2, 1e-14, 1e-26], rtol=1e-4)
    first, second, third = (row["validation_loss"] for row in rows)
    assert first == pytest.approx(second, rel=1e-6) and first == pytest.approx(third, rel=1e-6)
    tiny.train_one(tiny.make_config(epochs=2, **decay | {"decay_factor": 1.0}), tmp_path / "steady")
    moved = [row["validation_loss"] for row in read_metrics(tmp_path / "steady")]
    assert moved[0] == pytest.approx(first, rel=1e-6)
    assert abs(moved[1] - moved[0]) > 1e-3 * moved[0]


def test_finished_training_is_not_repeated(tmp_path):
    config = tiny.make_config(epochs=2)
    tiny.train_one(config, tmp_path)
    before = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    tiny.train_one(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").stat().st_mtime_ns == before


def test_other_data_under_a_checkpoint_is_refused(tmp_path):
    config = tiny.make_config(epochs=1)
    tiny.train_one(config, tmp_path)
    config.train.epochs = 2
    with pytest.raises(UserError, match="dataset"):
        tiny.train_one(config, tmp_path, cases=tiny.make_cases(seed=1))


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    config = tiny.make_config(epochs=5, learning_rate=1e38)
    with pytest.raises(UserError, match=r"epoch 1: the loss is no longer finite.*since step \d"):
        tiny.train_one(config, tmp_path)


@pytest.mark.parametrize("step", [1, 3])
def test_the_step_and_the_images_of_a_loss_that_is_no_number_are_named(tmp_path, monkeypatch, step):
    """The image that gives NaN is known beforehand: the one at place `step` of the first epoch."""
    cases = tiny.make_cases()
    config = tiny.make_config(epochs=2, batch_size=1, oversample=False, augment=False)
    split = published_folds(cases.label, cases.test_fold)[0]
    order = fold_training.epoch_order(split.train, seed=config.seed, fold=0, epoch=1)
    cases.image[order[step - 1]] = 255  # no other pixel is so bright
    whole = steps.train_step

    def poisoned(state, batch, **options):
        bright = (batch.image == 255).all()
        return whole(
            state, batch._replace(image=jnp.where(bright, jnp.nan, batch.image)), **options
        )

    monkeypatch.setattr(steps, "train_step", poisoned)
    with pytest.raises(UserError) as caught:
        tiny.train_one(config, tmp_path, cases=cases)
    text = str(caught.value)
    assert f"since step {step}, whose images are {cases.uid[order[step - 1]]}" in text
    assert ("the step before" in text) == (step > 1)
    if step > 1:
        assert f"the step before are {cases.uid[order[step - 2]]}" in text


def test_weights_that_are_no_numbers_are_refused_before_the_first_step(tmp_path, monkeypatch):
    def spoilt(self, fold):
        state = fresh(self, fold)
        kernel = state.params["fine"]["kernel"].at[0, 0, 1, 0].set(jnp.nan)
        params = {**state.params, "fine": {**state.params["fine"], "kernel": kernel}}
        return state.replace(params=params)

    fresh = Experiment.init_state
    monkeypatch.setattr(Experiment, "init_state", spoilt)
    with pytest.raises(UserError, match=r"not finite, in .*fine.*kernel"):
        tiny.train_one(tiny.make_config(), tmp_path)


def test_make_batches_fills_the_last_one():
    batches, valid = fold_training.make_batches(np.array([4, 8, 15, 16, 23]), 2)
    np.testing.assert_array_equal(valid, [[1, 1], [1, 1], [1, 0]])
    assert batches[valid > 0].tolist() == [4, 8, 15, 16, 23]
    # Batch norm sees what fills it: different images, and no more of one than needed.
    batches, valid = fold_training.make_batches(np.array([4, 8, 15]), 8)
    assert batches.dtype == np.int32
    assert batches.tolist() == [[4, 8, 15, 4, 8, 15, 4, 8]]
    assert valid.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


def test_epoch_order_is_a_permutation_that_changes():
    index = np.repeat(np.arange(10), 2)
    orders = [fold_training.epoch_order(index, seed=1, fold=0, epoch=epoch) for epoch in (1, 2, 1)]
    assert sorted(orders[0]) == index.tolist()
    np.testing.assert_array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


def test_main_job_fills_the_run_folder(tmp_path):
    config = tiny.make_config(epochs=2)
    config.data.folds = (1, 3)
    result = crossval.train_and_evaluate(config, tmp_path)
    for name in ("config.json", "environment.json", "splits.json", "summary.json", "summary.md"):
        assert (tmp_path / name).is_file(), name
    cases = tiny.make_cases()
    tested = []
    for fold in (1, 3):
        rows = pd.read_csv(tmp_path / f"fold_{fold}" / "cases.csv")
        assert rows.uid.tolist() == cases.uid[cases.test_fold == fold].tolist()
        tested += rows.uid.tolist()
        assert len(read_metrics(tmp_path / f"fold_{fold}")) == 2
        assert list((tmp_path / f"fold_{fold}" / "tensorboard").iterdir())
    assert result["folds"] == [1, 3]
    assert result["test_images"] == len(tested)
    dsc = result["results"]["raw"]["figures"]["dsc_average"]
    rows = pd.concat(pd.read_csv(tmp_path / f"fold_{f}" / "cases.csv") for f in (1, 3))
    per_fold = rows.groupby("fold").dice.mean()
    assert dsc["mean"] == pytest.approx(per_fold.mean())
    assert dsc["sd"] == pytest.approx(per_fold.std(ddof=1))
    assert not list(tmp_path.rglob("*.partial"))
    # More folds later: the same folder takes them in.
    config.data.folds = (0,)
    assert crossval.train_and_evaluate(config, tmp_path)["folds"] == [0, 1, 3]


@pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
def test_one_task_runs_through_the_same_path(tmp_path, tasks):
    config = tiny.make_config(epochs=1)
    config.tasks = tasks
    result = crossval.train_and_evaluate(config, tmp_path)
    figures = result["results"]["raw"]["figures"]
    assert ("dsc_average" in figures) == (tasks == ("seg",))
    assert ("acc" in figures) == (tasks == ("cls",))
    assert "refined" not in result["results"]


def test_evaluate_again_gives_the_same_rows(tmp_path):
    crossval.train_and_evaluate(tiny.make_config(epochs=1), tmp_path)
    path = tmp_path / "fold_0" / "cases.csv"
    before = path.read_text()
    path.unlink()
    crossval.evaluate(tmp_path)
    assert path.read_text() == before


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    config = tiny.make_config(epochs=1)
    crossval.train_and_evaluate(config, tmp_path)
    config.loss.weight = 0.5
    with pytest.raises(UserError, match=r"loss\.weight \(0\.85 there, 0\.5 now\)"):
        crossval.train_and_evaluate(config, tmp_path)


def test_a_run_with_its_classes_in_another_order_is_refused(tmp_path):
    config = tiny.make_config(epochs=1)
    crossval.train_and_evaluate(config, tmp_path)
    content = files.read_json(tmp_path / "summary.json")
    content["class_names"].reverse()
    files.write_json(tmp_path / "summary.json", content)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = r"summary\.json: .*'normal', 'malignant', 'benign'"
    with pytest.raises(UserError, match=words):
        crossval.evaluate(tmp_path)
    with pytest.raises(UserError, match=words):
        crossval.train_and_evaluate(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("data.folds", (4,), "folds"),
        ("data.folds", (0, 0), "folds"),
        ("data.split", "patient", "published, given, grouped"),
        ("data.resize", "bilinear", "nearest, area"),
        ("model.name", "unett", "Known"),
        ("tasks", ("seg", "clas"), "cls"),
        ("loss.weight", 1.5, "λ"),
        ("train.oversample_rule", "floor", "round, ceil"),
        ("train.rotation_fill", "edge", "zero, reflect"),
        ("train.augmentation", "elastic", "released, upright"),
        ("train.compute_dtype", "float16", "float32, bfloat16"),
        ("train.epochs", 0, "train.epochs"),
        ("train.keep", "mean", "best, last, average"),
        ("train.average_decay", 1.0, "train.average_decay"),
        ("data.image_size", (100, 128), "multiples of 16"),
        ("train.devices", 99, "train.devices"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_written(tmp_path, field, value, word):
    config = tiny.make_config()
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=word):
        crossval.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_grouped_split_is_written_and_used(tmp_path, monkeypatch):
    cases = tiny.make_cases()
    cases.group[:] = np.array([f"patient_{i // 2}" for i in range(len(cases))])
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
    leaky = crossval.train_and_evaluate(tiny.make_config(epochs=1), tmp_path / "published")
    assert leaky["leaking_test_images"] == 12
    text = (tmp_path / "published" / "summary.md").read_text()
    assert "**Leak:** 12 of 12" in text
    assert "validation images share a patient or a group with training images" in text
    config = tiny.make_config(epochs=1)
    config.data.split = "grouped"
    clean = crossval.train_and_evaluate(config, tmp_path / "grouped")
    assert clean["leaking_test_images"] == 0
    text = (tmp_path / "grouped" / "summary.md").read_text()
    assert "Leak" not in text and "**Validation:**" not in text
    content = json.loads((tmp_path / "grouped" / "splits.json").read_text())
    group = dict(zip(cases.uid, cases.group, strict=True))
    for fold in content["folds"]:
        sides = [{group[u] for u in fold[part]} for part in ("train", "validation", "test")]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_run_folder_remembers_its_configuration(tmp_path):
    config = tiny.make_config(epochs=1)
    crossval.train_and_evaluate(config, tmp_path)
    names = types.CLASS_NAMES
    config.data.update({"class_names": names, "classes": names, "normal_class": "normal"})
    assert run_folder.load_config(tmp_path).to_dict() == config.to_dict()


def test_folds_trained_for_different_numbers_of_epochs_are_named(tmp_path):
    crossval.train_and_evaluate(tiny.make_config(epochs=2), tmp_path)
    config = tiny.make_config(epochs=3)
    config.data.folds = (1,)
    result = crossval.train_and_evaluate(config, tmp_path)
    assert result["differing_settings"] == ["train.epochs is 2 in fold 0, 3 in fold 1"]
    text = (tmp_path / "summary.md").read_text()
    assert "**Folds trained differently:**" in text
    assert "What differs: train.epochs is 2 in fold 0, 3 in fold 1." in text
    config = tiny.make_config(epochs=3)
    result = crossval.train_and_evaluate(config, tmp_path)  # fold 0 goes on for an epoch
    assert result["differing_settings"] == []
    with pytest.raises(UserError, match=r"trained for 3 epochs already, more than the 1 asked"):
        crossval.train_and_evaluate(tiny.make_config(epochs=1), tmp_path)


def test_a_split_edited_by_hand_is_not_called_published(tmp_path):
    config = tiny.make_config(epochs=1)
    assert crossval.train_and_evaluate(config, tmp_path)["split"] == "published"
    content = json.loads((tmp_path / "splits.json").read_text())
    fold = content["folds"][0]
    fold["train"].append(fold["validation"].pop())
    edited = tmp_path / "edited"
    edited.mkdir()
    (edited / "splits.json").write_text(json.dumps(content))
    result = crossval.train_and_evaluate(config, edited)
    assert result["split"] == "custom"
    assert "`splits.json` has other folds than" in (edited / "summary.md").read_text()


def test_tensorboard_events_need_no_tensorflow(tmp_path):
    program = (
        "import pathlib, sys\n"
        "from mtbus_jax.training.logbook import Logbook\n"
        f"directory = pathlib.Path({str(tmp_path)!r})\n"
        "with Logbook(directory, resume_epoch=0, tensorboard=True) as book:\n"
        "    book.write({'epoch': 1, 'train_loss': 0.5})\n"
        "sys.exit('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def next_batches(fold, epoch, **train):
    config = tiny.make_config(**train)
    cases = tiny.make_cases()
    run = fold_training.FoldRun(
        Experiment.from_config(config),
        cases,
        published_folds(cases.label, cases.test_fold)[0],
        fold=fold,
        directory=None,
        origin={},
    )
    run.standing = SimpleNamespace(epoch=epoch)
    index, valid = run.next_batches()
    assert len(index) == run.step_count
    return index[valid > 0].tolist()


def test_each_epoch_and_fold_has_an_order_of_its_own_and_the_same_images():
    orders = [next_batches(fold, epoch) for fold, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert next_batches(0, 1) == orders[1]


def test_the_rule_of_oversampling_arrives():
    """28 images train: 10 normal, 9 benign and 9 malignant or so, N / n_k = 2.8 and 3.1."""
    cases = tiny.make_cases()
    train = published_folds(cases.label, cases.test_fold)[0].train
    counts = np.bincount(cases.label[train])
    up = sum(-(-len(train) // int(n)) * int(n) for n in counts)
    nearest = sum(round(len(train) / int(n)) * int(n) for n in counts)
    assert up != nearest
    assert len(next_batches(0, 0, oversample_rule="ceil")) == up
    assert len(next_batches(0, 0, oversample_rule="round")) == nearest
    assert len(next_batches(0, 0, oversample=False)) == len(train)


def test_the_course_is_laid_over_all_epochs(tmp_path):
    config = tiny.make_config(epochs=3, course="cosine", warmup=0.2)
    origin = tiny.train_one(config, tmp_path)
    state, _ = final_state(config, tmp_path, origin)
    assert int(state.total_steps) == int(state.step) == 3 * (int(state.step) // 3)


def test_fields_arrive_where_they_are_used():
    """Odd values, each another one, so that no two can be exchanged."""
    train = {
        "learning_rate": 0.011,
        "plateau_factor": 0.12,
        "plateau_patience": 13,
        "plateau_threshold": 0.14,
        "min_learning_rate": 0.00015,
        "stop_patience": 16,
        "average_decay": 0.17,
        "warmup": 0.18,
        "cosine_floor": 0.19,
        "decay_factor": 0.2,
        "decay_epochs": 21,
    }
    config = tiny.make_config(**train)
    loss = {
        "weight": 0.22,
        "gamma": 2.3,
        "label_smoothing": 0.24,
        "cross_entropy": 2.5,
        "dice_smoothing": 2.6,
        "double_softmax": True,
        "dice": "plain",
        "class_weights": (2.7, 2.8, 2.9),
    }
    config.loss.update(loss)
    experiment = Experiment.from_config(config)
    renamed = {
        "factor": "plateau_factor",
        "patience": "plateau_patience",
        "threshold": "plateau_threshold",
        "floor": "cosine_floor",
        "decay": "decay_factor",
    }
    schedule = experiment.schedule._asdict()
    found = {renamed.get(name, name): value for name, value in schedule.items()}
    assert {name: found[name] for name in train} == train
    assert {name: experiment.loss._asdict()[name] for name in loss} == loss


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("released", augment.flip_and_rotate),
        ("upright", augment.upright),
        ("varied", augment.varied),
        ("tilted", augment.tilted),
    ],
)
def test_the_named_augmentation_is_used(name, function):
    config = tiny.make_config(augmentation=name, rotation_fill="reflect")
    augmentation = Experiment.from_config(config).augmentation
    assert (augmentation.func, augmentation.keywords) == (function, {"fill": "reflect"})


def test_optimizer_fields_arrive():
    """One step from zero moments, with decay and L2: the closed form of each."""
    params = {"kernel": jnp.full((2, 2), 3.0)}
    gradient = {"kernel": jnp.full((2, 2), 0.5)}
    config = tiny.make_config(adam_b1=0.7, adam_b2=0.8, adam_epsilon=0.1, weight_decay=0.2, l2=0.4)
    optimizer = Experiment.from_config(config).optimizer
    directions, moments = optimizer.update(gradient, optimizer.init(params), params)
    whole = 0.5 + 0.4 * 3
    np.testing.assert_allclose(moments.mu["kernel"], 0.3 * whole, rtol=1e-5)
    np.testing.assert_allclose(moments.nu["kernel"], 0.2 * whole**2, rtol=1e-5)
    expected = whole / (whole + 0.1) + 0.2 * 3
    np.testing.assert_allclose(directions["kernel"], expected, rtol=1e-5)
