"""Checkpoints that rot, go stale, are of a former version or cannot be written."""

import os
import pathlib
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from mtbus_jax import models
from mtbus_jax.errors import UserError
from mtbus_jax.models import channel_order
from mtbus_jax.training import packing
from mtbus_jax.training.checkpoint import BEST, LATEST, Checkpoints, epoch_on_disk
from mtbus_jax.training.experiment import Experiment

ORIGIN = {"dataset": "a", "split": "b"}


@pytest.fixture(scope="module")
def fresh():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        return jax.device_get(Experiment.from_config(tiny.make_config()).init_state(0))


def after(fresh, epoch, *, best=None, course=0.0):
    """A state of its own for each epoch, of which epoch ``best`` is the best one."""
    best = epoch if best is None else best
    params, best_params = (
        jax.tree.map(lambda leaf, e=e: leaf + np.float32(e + course), fresh.params)
        for e in (epoch, best)
    )
    plateau = fresh.plateau._replace(best_epoch=np.int32(best))
    return fresh.replace(
        epoch=np.int32(epoch), params=params, best_params=best_params, plateau=plateau
    )


def save(directory, *states):
    for state in states:  # each as a process of its own
        with Checkpoints(directory, ORIGIN) as checkpoints:
            checkpoints.save(state, int(state.plateau.best_epoch))


def latest(directory, like):
    with Checkpoints(directory, ORIGIN) as checkpoints:
        return checkpoints.restore_latest(like)


def best(directory, like):
    with Checkpoints(directory, ORIGIN) as checkpoints:
        return checkpoints.restore_best(like)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def flip_a_weight(step: pathlib.Path):
    """Writes a checkpoint again with one bit of one number changed and everything else in order."""
    handler = ocp.CompositeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        state = checkpointer.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
        )["state"]
    numbers = np.array(state["float32"])
    numbers.view(np.uint32)[7] ^= 1 << 20
    shutil.rmtree(step / "state")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(step / "state", state | {"float32": numbers})


def damage_files(step: pathlib.Path):
    for path in (step / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def remove_files(step: pathlib.Path):
    shutil.rmtree(step / "state")


def remove_origin(step: pathlib.Path):
    shutil.rmtree(step / "origin")


def break_leaves(step: pathlib.Path):
    (step / "leaves" / "metadata").write_text('[{"path"')


DAMAGES = [flip_a_weight, damage_files, remove_files, remove_origin, break_leaves]


def test_what_is_saved_is_restored(tmp_path, fresh):
    state = after(fresh, 3, best=2)
    save(tmp_path, state)
    assert_same(latest(tmp_path, fresh), state)
    assert_same(best(tmp_path, fresh), state.best_variables)


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_goes_on_from_the_state_before_a_damaged_one(tmp_path, capsys, fresh, damage):
    states = [after(fresh, epoch, best=1) for epoch in (1, 2, 3)]
    save(tmp_path, *states)
    damage(tmp_path / LATEST / "3")
    assert_same(latest(tmp_path, fresh), states[1])
    said = capsys.readouterr().err
    assert f"{tmp_path / LATEST / '3'} is damaged" in said
    assert "Continuing from epoch 2." in said
    # The damaged one makes room for its successor of the same epoch.
    save(tmp_path, states[2])
    assert_same(latest(tmp_path, fresh), states[2])
    assert not capsys.readouterr().err


def test_without_a_whole_state_training_does_not_begin_anew_by_itself(tmp_path, fresh):
    save(tmp_path, after(fresh, 1), after(fresh, 2))
    for epoch in "12":
        flip_a_weight(tmp_path / LATEST / epoch)
    with pytest.raises(UserError, match=r"latest/2 .*latest/1 .*no earlier state"):
        latest(tmp_path, fresh)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_not_tested(tmp_path, fresh, damage):
    state = after(fresh, 2)
    save(tmp_path, state)
    damage(tmp_path / BEST / "2")
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / BEST / '2'))} cannot be read"):
        best(tmp_path, fresh)
    # As the message says: without them, training writes them again from its state.
    shutil.rmtree(tmp_path / BEST / "2")
    with Checkpoints(tmp_path, ORIGIN) as checkpoints:
        checkpoints.save_best(checkpoints.restore_latest(fresh), 2)
        assert_same(checkpoints.restore_best(fresh), state.best_variables)


def test_the_digest_names_the_array(tmp_path, fresh):
    save(tmp_path, after(fresh, 2))
    flip_a_weight(tmp_path / BEST / "2")
    with pytest.raises(UserError, match=r"\['params'\]\['cls'\].*SHA-256"):
        best(tmp_path, fresh)


@pytest.mark.parametrize("old", [9, 2])
def test_weights_of_a_training_that_began_anew_are_replaced(tmp_path, fresh, old):
    """Without its state, a training begins again; its best epoch may be an earlier one."""
    save(tmp_path, after(fresh, old, course=0.5))
    shutil.rmtree(tmp_path / LATEST)
    state = after(fresh, 2)
    save(tmp_path, state)
    assert epoch_on_disk(tmp_path, BEST) == 2
    assert [path.name for path in (tmp_path / BEST).iterdir()] == ["2"]
    assert_same(best(tmp_path, fresh), state.best_variables)


def test_weights_that_the_state_does_not_name_are_not_tested(tmp_path, fresh):
    """As a former version left them, or a copy of half a folder."""
    save(tmp_path / "one", after(fresh, 2, course=0.5))
    save(tmp_path / "two", after(fresh, 1), after(fresh, 3, best=1))
    shutil.rmtree(tmp_path / "two" / BEST)
    shutil.copytree(tmp_path / "one" / BEST, tmp_path / "two" / BEST)
    with pytest.raises(UserError, match="not those that the latest state names"):
        best(tmp_path / "two", fresh)


def test_one_killed_between_its_writes_has_newer_weights_than_its_state(tmp_path, fresh):
    save(tmp_path, after(fresh, 1), after(fresh, 2))
    shutil.rmtree(tmp_path / LATEST / "2")
    assert_same(best(tmp_path, fresh), after(fresh, 2).best_variables)
    # Going on, it has the weights of its state again.
    with Checkpoints(tmp_path, ORIGIN) as checkpoints:
        checkpoints.save_best(checkpoints.restore_latest(fresh), 1)
    assert_same(best(tmp_path, fresh), after(fresh, 1).best_variables)


def test_a_checkpoint_without_digests_is_read(tmp_path, fresh):
    """The layout of former versions: an array for each leaf, and no list of them."""
    state = after(fresh, 2)
    origin = ORIGIN | {"channel_order": channel_order.CURRENT}
    for name, tree in ((LATEST, state), (BEST, state.best_variables)):
        with ocp.CheckpointManager(tmp_path / name) as manager:
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(tree), origin=ocp.args.JsonSave(origin)
            )
            manager.save(2, args=args)
    assert_same(latest(tmp_path, fresh), state)
    assert_same(best(tmp_path, fresh), state.best_variables)
    with Checkpoints(tmp_path, ORIGIN) as checkpoints:  # they stay as they are
        checkpoints.save_best(state, 2)
    assert not (tmp_path / BEST / "2" / "leaves").exists()


def test_stray_folders_are_no_checkpoints(tmp_path, fresh):
    state = after(fresh, 2)
    save(tmp_path, state)
    for name in (LATEST, BEST):
        for stray in ("copy of 2", "2.orbax-checkpoint-tmp-7", "abc", "0"):
            (tmp_path / name / stray).mkdir()
        (tmp_path / name / "note.txt").write_text("x")
    assert_same(latest(tmp_path, fresh), state)
    assert_same(best(tmp_path, fresh), state.best_variables)
    # What a killed process left half-written is gone once the next one writes.
    save(tmp_path, after(fresh, 3))
    assert not list(tmp_path.rglob("*orbax-checkpoint-tmp*"))
    assert_same(latest(tmp_path, fresh), after(fresh, 3))


def test_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, fresh):
    save(tmp_path, after(fresh, 1))

    def save_nothing(self, *args, **kwargs):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("a long text of tensorstore") from error

    monkeypatch.setattr(ocp.CheckpointManager, "save", save_nothing)
    with pytest.raises(UserError, match=r"best: No space left on device\. .* after epoch 1\."):
        save(tmp_path, after(fresh, 2))
    monkeypatch.setattr(ocp.CheckpointManager, "save", lambda *args, **kwargs: False)
    with pytest.raises(UserError, match="declined"):
        save(tmp_path, after(fresh, 2))


def test_reading_writes_nothing(tmp_path, fresh):
    save(tmp_path, after(fresh, 1))
    (tmp_path / LATEST / "2.orbax-checkpoint-tmp-7").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    latest(tmp_path, fresh)
    best(tmp_path, fresh)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UserError, match="no finished checkpoint"):
        best(tmp_path / "nowhere", fresh)
    assert not (tmp_path / "nowhere").exists()


def test_packing_keeps_every_leaf_of_every_dtype():
    tree = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.int32(7),
        "c": np.array([1.5, -0.0, np.inf], jax.numpy.bfloat16),
        "d": {},
        "e": np.zeros((0, 4), np.float32),
    }
    arrays, leaves = packing.pack(tree)
    assert {name: array.shape for name, array in arrays.items()} == {
        "float32": (6,),
        "int32": (1,),
        "bfloat16": (3,),
    }
    assert_same(packing.unpack(arrays, leaves, tree), tree)
    with pytest.raises(packing.OtherTree, match=r"\['a'\] has shape \(2, 3\) .* \(3, 2\)"):
        packing.unpack(arrays, leaves, tree | {"a": np.zeros((3, 2), np.float32)})
    with pytest.raises(packing.OtherTree, match=r"\['f'\] has none"):
        packing.unpack(arrays, leaves, tree | {"f": np.zeros(2, np.float32)})
    with pytest.raises(packing.Damaged, match=r"\['b'\]"):
        packing.unpack(arrays | {"int32": np.array([6], np.int32)}, leaves, tree)


def resident_megabytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="Linux tells it there")
def test_checkpoints_leave_nothing_in_memory(tmp_path, fresh):
    """A tree of many arrays: with one file for each, 80 checkpoints left some 40 MB behind."""
    many = {f"layer_{i}": np.full((3, 3), i, np.float32) for i in range(500)}
    state = fresh.replace(params=many, best_params=many)
    with Checkpoints(tmp_path, ORIGIN) as checkpoints:
        for epoch in range(1, 121):
            checkpoints.save(state.replace(epoch=np.int32(epoch)), 1)
            if epoch == 40:
                before = resident_megabytes()
    assert resident_megabytes() - before < 12
    # Orbax's default leaves a kilobyte behind each time, too little to be seen here.
    assert not list(tmp_path.rglob("*ocdbt*"))
