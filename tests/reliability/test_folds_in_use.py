"""Two processes on one run folder: the same fold is refused, another one is not."""

import os

import pytest
import tiny

from mtbus_jax import crossval, data, locks, models
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_folder
from mtbus_jax.training.logbook import read_metrics


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())


def test_a_fold_in_use_is_refused_and_another_is_not(tmp_path):
    config = tiny.make_config(epochs=1)
    words = rf"fold 0 of .* in use by process {os.getpid()} on .*, started "
    with locks.hold(run_folder.lock_path(tmp_path, 0)) as holder:
        assert holder is None
        for folds in ((0,), (1, 0)):
            with pytest.raises(UserError, match=words):
                crossval.train_and_evaluate(config, tmp_path, folds=folds)
        assert not (tmp_path / "config.json").exists()
        assert crossval.train_and_evaluate(config, tmp_path, folds=(2,))["folds"] == [2]
    crossval.train_and_evaluate(config, tmp_path, folds=(0,))
    assert [row["epoch"] for row in read_metrics(tmp_path / "fold_0")] == [1]
    with (
        locks.hold(run_folder.lock_path(tmp_path, 2)),
        pytest.raises(UserError, match=r"fold 2 of .* in use"),
    ):
        crossval.evaluate(tmp_path)
