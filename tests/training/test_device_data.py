"""A dataset that is streamed to the devices trains and tests as one that is resident."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from mtbus_jax import crossval, data, models
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate
from mtbus_jax.runtime import parallel
from mtbus_jax.splits import published_folds
from mtbus_jax.training import device_data, fold, folds
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Setup
from mtbus_jax.training.logbook import read_metrics

BATCH = 6
IMAGE_BYTES = 2 * tiny.HEIGHT * tiny.WIDTH  # with its mask


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    use_tiny_world(monkeypatch)


def use_tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())


def make_config(resident, *, steps_per_call=0, devices=1, epochs=2):
    config = tiny.make_config(
        epochs=epochs, batch_size=BATCH, steps_per_call=steps_per_call, devices=devices
    )
    config.data.resident = resident
    config.eval.batch_size = 2
    config.log.tensorboard = False
    return config


def without_extras(config):
    config.eval.tta = config.eval.refine = False
    return config


def fold_arguments():
    cases = tiny.make_cases()
    split = published_folds(cases.label, cases.test_fold)[0]
    origin = {"dataset": data.fingerprint(cases), "split": split.fingerprint(cases.uid)}
    return cases, split, origin


def train_and_test(config, directory):
    """One fold, without the tables and reports of a run."""
    cases, split, origin = fold_arguments()
    for work in (fold.train_fold, evaluate.evaluate_fold):
        work(config, cases, split, fold=0, directory=directory / "fold_0", origin=origin)


def read_states(config, directory):
    """The whole latest state, and the best weights."""
    origin = fold_arguments()[2]
    like = Setup.from_config(config).abstract_state(config)
    with Checkpoints(directory / "fold_0" / "checkpoints", origin) as checkpoints:
        return checkpoints.restore_latest(like), checkpoints.restore_best(like)


def assert_same_run(one, other, config):
    """Every figure, weight and prediction agrees to the last bit."""
    rows = [read_metrics(run / "fold_0") for run in (one, other)]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert len(rows[0]) == config.train.epochs
    assert rows[0] == rows[1]
    states = [read_states(config, run) for run in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    files = sorted((one / "fold_0").glob("*.npz"))
    assert len(files) == 2  # validation and test
    for file in files:
        arrays = [np.load(run / "fold_0" / file.name) for run in (one, other)]
        assert arrays[0].files == arrays[1].files
        for name in arrays[0].files:
            np.testing.assert_array_equal(arrays[0][name], arrays[1][name], err_msg=name)
    cases = [(run / "fold_0" / "cases.csv").read_text() for run in (one, other)]
    assert cases[0] == cases[1]


def test_streamed_training_and_testing_equal_resident_to_the_bit(tmp_path):
    """Programs of 4 steps; the last one of an epoch is not full."""
    for resident in (True, False):
        config = make_config(resident, steps_per_call=4)
        train_and_test(config, tmp_path / str(resident))
    assert_same_run(tmp_path / "True", tmp_path / "False", config)


# In a process of its own, because the number of devices is fixed when JAX starts.
_TWO_DEVICES_PROGRAM = """
import pathlib, sys
import jax, pytest, test_device_data as t
directory = pathlib.Path(sys.argv[1])
t.use_tiny_world(pytest.MonkeyPatch())
assert len(jax.local_devices()) == 2
for resident in (True, False):
    config = t.make_config(resident, devices=2, steps_per_call=4)
    config.eval.tta = False
    t.train_and_test(config, directory / str(resident))
t.assert_same_run(directory / "True", directory / "False", config)
print("the same")
"""


def test_streamed_equals_resident_on_two_devices(tmp_path):
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    command = [sys.executable, "-c", _TWO_DEVICES_PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the same"


def test_a_run_goes_on_in_the_other_way(tmp_path):
    """With one step per program, as is the default on a CPU."""
    config = without_extras(make_config(True))
    train_and_test(config, tmp_path / "whole")
    train_and_test(without_extras(make_config(True, epochs=1)), tmp_path / "changed")
    train_and_test(without_extras(make_config(False)), tmp_path / "changed")
    assert_same_run(tmp_path / "whole", tmp_path / "changed", config)


def test_a_run_from_before_the_field_existed_can_be_tested_again(tmp_path, capsys):
    config = without_extras(make_config(None, epochs=1))
    config.log.progress = True
    crossval.train_and_evaluate(config, tmp_path)
    assert "48 images, published folds" in capsys.readouterr().out
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["data"]["resident"]
    path.write_text(json.dumps(content))
    before = (tmp_path / "fold_0" / "cases.csv").read_text()
    crossval.evaluate(tmp_path, overrides=make_config(False))
    assert (tmp_path / "fold_0" / "cases.csv").read_text() == before


@pytest.mark.parametrize(("steps_per_call", "shapes"), [(4, [4, 4, 3]), (5, [4, 4, 3]), (11, [11])])
def test_parts_hold_what_the_index_names_and_have_one_shape(steps_per_call, shapes):
    cases = tiny.make_cases()
    index = np.random.default_rng(0).integers(0, len(cases), (11, BATCH)).astype(np.int32)
    valid = np.random.default_rng(1).integers(0, 2, index.shape).astype(np.float32)
    streamed = device_data.Streamed(cases, jax.devices()[:1])
    parts = list(streamed.parts(index, valid, steps_per_call))
    assert [part.step_count for part in parts] == shapes
    assert len({part.data.image.shape for part in parts}) == 1
    done = 0
    for part in parts:
        of_part = slice(done, done + part.step_count)
        for name in ("image", "mask", "label"):
            (array,) = np.asarray(getattr(part.data, name))
            found = array[part.index[0, : part.step_count]]
            np.testing.assert_array_equal(found, getattr(cases, name)[index[of_part]])
        np.testing.assert_array_equal(part.valid[0, : part.step_count], valid[of_part])
        assert not part.valid[0, part.step_count :].any()
        done += part.step_count


def test_default_parts_keep_to_their_share_of_memory(monkeypatch):
    """Where a program would hold a whole epoch, a part holds what PART_BYTES allows."""
    monkeypatch.setattr(parallel, "default_steps_per_call", lambda steps: steps)
    monkeypatch.setattr(device_data, "PART_BYTES", 5 * BATCH * IMAGE_BYTES + 1)
    streamed = device_data.Streamed(tiny.make_cases(), jax.devices()[:1])
    index = np.zeros((12, BATCH), np.int32)
    parts = list(streamed.parts(index, np.ones(index.shape, np.float32), 0))
    assert [part.index.shape for part in parts] == [(1, 4, BATCH)] * 3
    for part in parts:
        assert part.data.image.nbytes + part.data.mask.nbytes <= device_data.PART_BYTES
    monkeypatch.setattr(device_data, "PART_BYTES", 1)  # less than a step
    parts = list(streamed.parts(index, np.ones(index.shape, np.float32), 0))
    assert [part.index.shape for part in parts] == [(1, 1, BATCH)] * 12


def test_a_dataset_is_resident_if_it_fits(monkeypatch):
    cases, devices = tiny.make_cases(), jax.devices()[:1]
    needed = len(cases) * IMAGE_BYTES
    expected = {
        # memory: (None, True, False)
        None: (True, True, False),
        4 * needed: (True, True, False),
        4 * needed - 4: (False, True, False),
        needed: (False, True, False),
    }
    for memory, answers in expected.items():
        monkeypatch.setattr(parallel, "memory_bytes", lambda device, memory=memory: memory)
        for resident, answer in zip((None, True, False), answers, strict=True):
            config = make_config(resident)
            assert device_data.is_resident(config, cases, devices) is answer, (memory, resident)
    monkeypatch.setattr(parallel, "memory_bytes", lambda device: needed - 1)
    with pytest.raises(UserError, match=r"data\.resident=True: the 48 images and masks take 0\.0"):
        device_data.place(make_config(True), cases, devices)


def test_too_large_a_dataset_is_streamed_and_the_first_line_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parallel, "memory_bytes", lambda device: 48 * IMAGE_BYTES)
    gathered = []
    gather = device_data.Streamed._gather
    monkeypatch.setattr(
        device_data.Streamed,
        "_gather",
        lambda self, index, valid, **rest: gathered.append(1) or gather(self, index, valid, **rest),
    )
    config = without_extras(make_config(None, epochs=1))
    config.log.progress = True
    crossval.train_and_evaluate(config, tmp_path)
    assert "48 images (dataset streamed), published folds" in capsys.readouterr().out
    assert gathered


@pytest.mark.parametrize(
    ("resident", "why"), [(False, "data.resident=False"), (None, "the dataset's size")]
)
@pytest.mark.parametrize("mapping", ["vmap", "pmap"])
def test_folds_at_once_need_a_resident_dataset(tmp_path, monkeypatch, mapping, resident, why):
    monkeypatch.setattr(parallel, "memory_bytes", lambda device: 48 * IMAGE_BYTES)
    config = make_config(resident)
    config.data.folds, config.train.fold_mapping = (0, 1), mapping
    with pytest.raises(UserError) as error:
        crossval.train_and_evaluate(config, tmp_path / "run")
    for word in (f"train.fold_mapping={mapping}", why, "train.fold_mapping=sequence"):
        assert word in str(error.value)
    assert not (tmp_path / "run").exists()
    folds.check_mapping(config, (0,), resident=False)  # one fold is trained as alone


def test_turned_images_need_no_copy_of_a_streamed_dataset():
    cases = tiny.make_cases()
    streamed = device_data.Streamed(cases, jax.devices()[:1])
    turned = streamed.other(dataclasses.replace(cases, image=cases.image[:, :, ::-1]))
    (part,) = turned.parts(np.array([[7, 3]]), np.ones((1, 2), np.float32), 1)
    found = np.asarray(part.data.image)[0][part.index[0, 0]]
    np.testing.assert_array_equal(found, cases.image[[7, 3], :, ::-1])
