"""Folds trained together leave what each leaves alone, and what is over costs nothing more."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mtbus_jax import crossval, data, models
from mtbus_jax.errors import UserError
from mtbus_jax.splits import Split
from mtbus_jax.training import fold as fold_training
from mtbus_jax.training import folds as folds_training
from mtbus_jax.training import folds_together
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Setup
from mtbus_jax.training.fold import FoldRun
from mtbus_jax.training.logbook import read_metrics

# Float32 sums in another order; losses are about 1, weights below 1.
ROWS = {"rtol": 2e-5, "atol": 2e-6}
WEIGHTS = {"rtol": 0, "atol": 2e-5}
EPOCHS = 3
STOPPED = 1  # the fold whose validation loss only rises
FOLDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)


def make_cases():
    """The last eight images contradict the others: what is marked there is the background."""
    cases = tiny.make_cases(60)
    cases.mask[52:] = 1 - cases.mask[52:]
    return cases


def make_splits():
    """Folds of 6, 8 and 5 steps; the second is validated on images that contradict."""
    order = np.random.default_rng(3).permutation(52)
    return [
        Split(order[:23], order[40:46], order[46:]),
        Split(order[8:40], np.arange(52, 60), order[:8]),
        Split(order[20:40], order[40:45], order[:20]),
    ]


def make_config(mapping, model="tiny", **changes):
    config = tiny.make_config(
        **{
            "epochs": EPOCHS,
            "batch_size": 4,
            "stop_patience": 0,
            "oversample": False,
            "devices": 1,
        }
        | changes
    )
    config.model = {"name": model, "width": 4}
    config.log.tensorboard = False
    config.eval.batch_size = 4
    config.train.fold_mapping = mapping
    return config


def train_all(config, directory, folds=FOLDS):
    """Trains; returns the folds in the order in which they ended."""
    cases, parts, setup = make_cases(), make_splits(), Setup.from_config(config)
    runs = [
        FoldRun(
            config,
            setup,
            cases,
            parts[fold],
            fold=fold,
            directory=directory / f"fold_{fold}",
            origin={"dataset": "contradicting", "split": str(fold)},
        )
        for fold in folds
    ]
    return [run.fold for run in folds_training.train_folds(config, setup, cases, runs)]


def read_state(config, directory, fold):
    like = Setup.from_config(config).abstract_state(config)
    path = directory / f"fold_{fold}" / "checkpoints"
    with Checkpoints(path, {"split": str(fold)}) as checkpoints:
        return checkpoints.restore_latest(like), checkpoints.restore_best(like)


def assert_same_results(config, expected, found, folds=FOLDS):
    """Rows, whole latest state and best weights."""
    for fold in folds:
        rows = [read_metrics(d / f"fold_{fold}") for d in (expected, found)]
        assert [r["epoch"] for r in rows[0]] == [r["epoch"] for r in rows[1]]
        for old, new in zip(*rows, strict=True):
            assert old.keys() == new.keys()
            for name in old.keys() - {"seconds"}:
                np.testing.assert_allclose(new[name], old[name], **ROWS, err_msg=name)
        old, new = (read_state(config, d, fold) for d in (expected, found))
        assert int(old[0].step) == int(new[0].step)
        close = functools.partial(np.testing.assert_allclose, **WEIGHTS)
        jax.tree.map(close, new, old)


_make_loop, _LOOPS = folds_training._loop_for, {}


def note_sizes(patch):
    """How many folds each new device program held.

    A program for some number of folds is compiled once for all tests of this file: their
    configurations do not differ in anything that it depends on.
    """
    sizes = []

    def note(config, setup, cases, count):
        sizes.append(count)
        if count not in _LOOPS:
            _LOOPS[count] = _make_loop(config, setup, cases, count)
        return _LOOPS[count]

    patch.setattr(folds_training, "_loop_for", note)
    return sizes


@pytest.fixture
def loop_sizes(monkeypatch):
    return note_sizes(monkeypatch)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folds one after the other; what everything else is compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        sizes = note_sizes(patch)
        directory = tmp_path_factory.mktemp("alone")
        assert train_all(make_config("sequence"), directory) == [0, 1, 2]
        assert sizes == [1]
    return directory


def test_the_folds_are_unlike_enough_to_test_with(alone):
    epochs = [len(read_metrics(alone / f"fold_{fold}")) for fold in FOLDS]
    assert epochs == [EPOCHS, 2, EPOCHS]  # the second stops early
    steps_done = [int(read_state(make_config("sequence"), alone, f)[0].step) for f in FOLDS]
    assert steps_done == [6 * EPOCHS, 8 * 2, 5 * EPOCHS]


def test_stacked_folds_give_each_fold_the_same_result_as_alone(alone, tmp_path, loop_sizes):
    ended = train_all(make_config("vmap"), tmp_path)
    assert ended == [STOPPED, 0, 2]
    assert loop_sizes == [3, 2]  # the fold that stopped early is no longer computed
    assert_same_results(make_config("vmap"), alone, tmp_path)


# In a process of its own, because the number of devices is fixed when JAX starts.
_TWO_DEVICES_PROGRAM = """
import json, pathlib, sys
import jax, tiny, test_folds as t
from mtbus_jax import models
models.REGISTRY["tiny"] = tiny.TinyNet
assert len(jax.local_devices()) == 2
sizes = t.note_sizes(t.pytest.MonkeyPatch())
mapping, model, folds, changes = json.loads(sys.argv[2])
config = t.make_config(mapping, model, **changes)
print(t.train_all(config, pathlib.Path(sys.argv[1]), folds), sizes)
"""


def train_on_two_devices(directory, mapping, model="tiny", *, folds=FOLDS, **changes):
    """Returns the folds in the order in which they ended, and the sizes of the programs."""
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    arguments = json.dumps([mapping, model, folds, changes])
    done = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES_PROGRAM, str(directory), arguments],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_fold_per_device_gives_each_fold_the_same_result_as_alone(alone, tmp_path):
    """Three folds on two devices: the third takes the place of the one that stops early."""
    line = train_on_two_devices(tmp_path, "pmap")
    # Epochs 1 and 2 of folds 0 and 1, epoch 3 of fold 0 with fold 2's first, the rest of fold 2.
    assert line == "[1, 0, 2] [2, 1]"
    assert_same_results(make_config("pmap"), alone, tmp_path)


def test_stacked_folds_whose_batches_are_spread_give_the_same_result(alone, tmp_path):
    """Both at once: two folds on each of two devices, half of every batch on each."""
    line = train_on_two_devices(tmp_path, "vmap", devices=2, folds=(0, 2))
    assert line == "[0, 2] [2]"
    assert_same_results(make_config("vmap"), alone, tmp_path, folds=(0, 2))


@pytest.mark.long
def test_a_real_network_gives_each_fold_the_same_result_as_alone(tmp_path):
    """One whose convolutions become grouped ones under vmap; UNet++ would compile for minutes.

    At the published learning rate. At 100 times that, changing the initial weights by one unit in
    the last place moves the final ones by up to 1e-2, so there is nothing to compare.
    """
    rate = {"learning_rate": 1e-4}
    config = make_config("sequence", "unet", **rate)
    train_all(config, tmp_path / "sequence")
    final, fresh = read_state(config, tmp_path / "sequence", 0)[0], Setup.from_config(config)
    moved = jax.tree.map(
        lambda new, old: np.abs(new - old).max(), final.params, fresh.init_state(config, 0).params
    )
    assert np.median(jax.tree.leaves(moved)) > 20 * WEIGHTS["atol"]
    train_all(make_config("vmap", "unet", **rate), tmp_path / "vmap")
    assert_same_results(config, tmp_path / "sequence", tmp_path / "vmap")
    train_on_two_devices(tmp_path / "pmap", "pmap", "unet", **rate)
    assert_same_results(config, tmp_path / "sequence", tmp_path / "pmap")


class Killed(BaseException):
    """As SIGKILL: nothing may catch it."""


def train_until_killed(config, directory, *, fold, epoch):
    """Dies after that fold's line of that epoch, before its checkpoint."""
    write = fold_training.Logbook.write

    def write_then_die(self, row):
        write(self, row)
        if row["epoch"] == epoch and self._path.parent.name == f"fold_{fold}":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_training.Logbook, "write", write_then_die)
        with pytest.raises(Killed):
            train_all(config, directory)


@pytest.mark.parametrize(("first", "then"), [("vmap", "sequence"), ("sequence", "vmap")])
def test_a_run_may_be_stopped_in_one_mapping_and_go_on_in_another(
    alone, tmp_path, loop_sizes, first, then
):
    train_until_killed(make_config(first), tmp_path, fold=2, epoch=2)
    finished = {"vmap": [1], "sequence": [0, 1]}[first]
    stamps = [(tmp_path / f"fold_{f}/metrics.jsonl").stat().st_mtime_ns for f in finished]
    loop_sizes.clear()
    assert sorted(train_all(make_config(then), tmp_path)) == [0, 1, 2]
    # Folds that were over are not computed again; a last one is trained as alone.
    assert loop_sizes == [1]
    assert stamps == [(tmp_path / f"fold_{f}/metrics.jsonl").stat().st_mtime_ns for f in finished]
    assert_same_results(make_config(then), alone, tmp_path)


def test_folds_at_different_epochs_go_on_together(alone, tmp_path, loop_sizes):
    train_all(make_config("sequence", epochs=1), tmp_path, folds=(0,))
    loop_sizes.clear()
    assert train_all(make_config("vmap"), tmp_path) == [0, 1, 2]
    assert loop_sizes == [3, 1]  # folds 0 and 1 have two epochs to go, fold 2 three
    assert_same_results(make_config("vmap"), alone, tmp_path)


def test_a_loss_that_explodes_names_its_fold_and_spares_the_others(
    tmp_path, monkeypatch, loop_sizes
):
    means = folds_training._means

    def explode(totals):
        rows = means(totals)
        rows[1]["loss"] = float("nan")
        return rows

    monkeypatch.setattr(folds_training, "_means", explode)
    with pytest.raises(UserError, match=r"fold 1, epoch 1: the loss is no longer finite"):
        train_all(make_config("vmap"), tmp_path)
    assert [len(read_metrics(tmp_path / f"fold_{f}")) for f in FOLDS] == [1, 0, 1]
    assert int(read_state(make_config("vmap"), tmp_path, 2)[0].epoch) == 1


def test_stack_batches_by_hand():
    first = np.array([[3, 1], [4, 3]], np.int32), np.array([[1, 1], [1, 0]], np.float32)
    second = np.array([[7, 8, 9]], np.int32), np.ones((1, 3), np.float32)
    index, valid = folds_training.stack_batches([first, second])
    np.testing.assert_array_equal(index, [[[3, 1, 0], [4, 3, 0]], [[7, 8, 9], [0, 0, 0]]])
    np.testing.assert_array_equal(valid, [[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]])
    assert index.dtype == np.int32
    assert valid.dtype == np.float32


def test_unstack_undoes_stack():
    trees = [{"a": jnp.arange(6.0).reshape(2, 3) + k, "b": jnp.int32(k)} for k in range(3)]
    stacked = folds_together.stack(trees)
    assert stacked["a"].shape == (3, 2, 3)
    assert stacked["b"].tolist() == [0, 1, 2]
    jax.tree.map(np.testing.assert_array_equal, folds_together.unstack(stacked), trees)


def test_stacked_index_is_spread_over_devices_batch_by_batch():
    placement = folds_together.StackedFolds(["first", "second"])  # devices are only counted here
    index = np.arange(24).reshape(2, 3, 4)  # folds, steps, batch
    shares = placement.spread(index)
    assert shares.shape == (2, 2, 3, 2)  # devices, folds, steps, share
    np.testing.assert_array_equal(shares[1, 0], [[2, 3], [6, 7], [10, 11]])
    np.testing.assert_array_equal(shares[0, 1], [[12, 13], [16, 17], [20, 21]])


@pytest.mark.parametrize(
    ("mapping", "devices", "words"),
    [
        ("scan", 0, ("train.fold_mapping", "sequence, vmap, pmap")),
        ("pmap", 2, ("train.devices=2", "train.fold_mapping=pmap")),
        ("pmap", 0, ("only one", "vmap or sequence")),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(monkeypatch, mapping, devices, words):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    with pytest.raises(UserError) as error:
        folds_training.check_mapping(make_config(mapping, devices=devices), (0, 1))
    for word in words:
        assert word in str(error.value)


def test_one_fold_is_trained_as_alone_under_every_mapping(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    for mapping in folds_training.MAPPINGS:
        folds_training.check_mapping(make_config(mapping), (2,))


@pytest.mark.long
def test_main_job_changes_the_mapping_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
    config = make_config("sequence", epochs=1)
    config.eval.tta = False
    crossval.train_and_evaluate(config, tmp_path)
    config.data.folds, config.train.fold_mapping = (0, 2, 3), "vmap"
    result = crossval.train_and_evaluate(config, tmp_path)
    assert result["folds"] == [0, 2, 3]
    assert json.loads((tmp_path / "config.json").read_text())["train"]["fold_mapping"] == "vmap"
    for fold in (2, 3):
        assert (tmp_path / f"fold_{fold}" / "cases.csv").is_file()
