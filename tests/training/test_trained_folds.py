"""Weights from run folders: which folds are taken, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from predict_dummies import SIZE, write_run

from mtbus_jax import files, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.predict import Predictor
from mtbus_jax.training import run_folder, trained_folds


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run of two folds: (its folder, configuration, variables by fold)."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, *write_run(workdir)


def refused(workdir, *words, **options):
    with pytest.raises(UserError) as caught:
        trained_folds.load(workdir, **options)
    for word in words:
        assert word in str(caught.value)


def started(workdir, fold):
    """A fold whose first checkpoint is being written, or was when the run was killed."""
    best = workdir / f"fold_{fold}" / "checkpoints" / "best"
    (best / "3.orbax-checkpoint-tmp-12").mkdir(parents=True)
    return best


def test_the_best_weights_of_each_fold(world):
    workdir, config, variables = world
    found = trained_folds.load(workdir)
    assert (found.folds, found.untested, found.without_weights) == ((0, 1), (), ())
    assert found.image_size == SIZE
    assert found.config.data == config.data
    assert isinstance(found.module, tiny.TinyNet)
    assert [member.fold for member in found.members] == list(variables)
    for member in found.members:
        expected = variables[member.fold]
        jax.tree.map(np.testing.assert_array_equal, member.variables, expected)
    first, second = (jax.tree.leaves(variables[fold]) for fold in (0, 1))
    assert any((one != other).any() for one, other in zip(first, second, strict=True))
    assert trained_folds.load(workdir, [1, 0]).folds == (1, 0)


def test_missing(tmp_path):
    refused(tmp_path / "nowhere", "is not a folder")
    refused(tmp_path, "config.json", "not a run folder")


def test_without_weights(tmp_path):
    write_run(tmp_path, folds=())
    refused(tmp_path, "no trained fold")
    best = started(tmp_path, 0)
    refused(tmp_path, "no trained fold")
    assert [path.name for path in best.parent.iterdir()] == ["best"]


def test_a_fold_without_weights_is_told(tmp_path):
    write_run(tmp_path)
    started(tmp_path, 3)
    found = trained_folds.load(tmp_path)
    assert (found.folds, found.untested, found.without_weights) == ((0, 1), (), (3,))
    refused(tmp_path, "--folds=0,3", "has 0, 1.", folds=[0, 3])


def test_a_fold_in_training_is_left_out_unless_named(tmp_path):
    write_run(tmp_path, folds=(0, 1, 2))
    for fold in (0, 2):
        (tmp_path / f"fold_{fold}" / "cases.csv").write_text("uid\n")
    found = trained_folds.load(tmp_path)
    assert (found.folds, found.untested, found.without_weights) == ((0, 2), (1,), ())
    assert trained_folds.load(tmp_path, [1]).folds == (1,)
    assert trained_folds.is_tested(tmp_path, 0)
    assert not trained_folds.is_tested(tmp_path, 1)


def test_a_checkpoint_that_is_cut(tmp_path):
    write_run(tmp_path, folds=(0,))
    state = tmp_path / "fold_0" / "checkpoints" / "best" / "1" / "state"
    for path in list(state.rglob("*")):
        if path.is_file():
            path.unlink()
    refused(tmp_path, "cannot be read", "fold 0")


def test_another_network_in_the_configuration(tmp_path):
    config, _ = write_run(tmp_path, folds=(0,))
    config.model.width = 6
    files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
    refused(tmp_path, "another configuration")


def test_an_incomplete_configuration(tmp_path):
    config, _ = write_run(tmp_path, folds=(0,))
    content = config.to_dict()
    del content["loss"], content["seed"]
    files.write_json(tmp_path / run_folder.CONFIG, content)
    refused(tmp_path, "config.json", "incomplete")
    files.write_json(tmp_path / run_folder.CONFIG, config.to_dict() | {"train": None})
    refused(tmp_path, "config.json", "incomplete")
    (tmp_path / run_folder.CONFIG).write_text('{"data": ')
    refused(tmp_path, "config.json", "not valid JSON")


def test_classes_in_another_order(tmp_path):
    write_run(tmp_path, folds=(0,))
    names = list(types.CLASS_NAMES)
    files.write_json(tmp_path / "summary.json", {"class_names": names})
    trained_folds.load(tmp_path)
    files.write_json(tmp_path / "summary.json", {"class_names": names[::-1]})
    refused(tmp_path, "summary.json", "classes", "normal")


@pytest.mark.parametrize("folds", [[2], [], [0, 0], [-1]])
def test_folds_that_are_not_there(world, folds):
    refused(world[0], "--folds=", "0, 1", folds=folds)


def test_many_devices_in_training_need_not_be_here(tmp_path):
    config, _ = write_run(tmp_path, folds=(0,))
    config.train.devices = 64
    files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
    assert len(Predictor(tmp_path)([np.zeros((40, 60), np.uint8)] * 3)) == 3


def test_a_digest_names_the_weights(world, tmp_path):
    found = trained_folds.load(world[0])
    digest = found.digest()
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert trained_folds.load(world[0]).digest() == digest
    assert trained_folds.load(world[0], [0]).digest() != digest
    assert trained_folds.load(world[0], [1, 0]).digest() != digest
    # One number of one weight.
    leaves, tree = jax.tree.flatten(jax.device_get(found.members[1].variables))
    leaves[-1] = leaves[-1].copy()
    leaves[-1].flat[0] += 1e-6
    other = found.members[1]._replace(variables=jax.tree.unflatten(tree, leaves))
    assert dataclasses.replace(found, members=(found.members[0], other)).digest() != digest
