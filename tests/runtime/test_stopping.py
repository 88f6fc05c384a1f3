"""SIGTERM: what it interrupts, what it waits for, and how a training that gets it goes on."""

import os
import signal
import threading
import time

import pytest
import tiny

from mtbus_jax import crossval, data, models
from mtbus_jax.errors import Stopped
from mtbus_jax.runtime import parallel, stopping
from mtbus_jax.training import fold as fold_training
from mtbus_jax.training.checkpoint import LATEST, epoch_on_disk
from mtbus_jax.training.logbook import read_metrics


@pytest.fixture
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


def test_outside_of_an_epoch_it_stops_at_once():
    with pytest.raises(Stopped) as caught, stopping.on_sigterm():
        terminate()
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_within_an_epoch_it_is_noted(monkeypatch):
    with stopping.on_sigterm():
        with stopping.deferred():
            stopping.check(1e9)
            terminate()
            terminate()  # schedulers may send it twice
            assert stopping.asked()
            stopping.check(stopping.GRACE_SECONDS / 2)
            with pytest.raises(Stopped):
                stopping.check(2 * stopping.GRACE_SECONDS)
            monkeypatch.setattr(parallel, "process_count", lambda: 2)
            stopping.check(2 * stopping.GRACE_SECONDS)  # processes leave an epoch together
        with pytest.raises(Stopped):
            terminate()
    assert stopping._request.at is None


def test_it_is_left_to_whoever_handles_it():
    noted = []
    signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        with stopping.on_sigterm():
            terminate()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert noted == [signal.SIGTERM]


def test_another_thread_cannot_and_does_not():
    said = []

    def work():
        with stopping.on_sigterm():
            said.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [signal.SIG_DFL]


def test_a_training_ends_its_epoch_and_saves_it(tmp_path, monkeypatch, tiny_world):
    """However seldom checkpoints are wanted; and the second epoch is as if nothing had been."""
    config = tiny.make_config(epochs=2, checkpoint_seconds=1e9)
    crossval.train_and_evaluate(config, tmp_path / "whole")
    advance = fold_training.FoldRun.advance

    def advance_and_terminate(self, *args):
        if not stopping.asked():
            terminate()
        advance(self, *args)

    monkeypatch.setattr(fold_training.FoldRun, "advance", advance_and_terminate)
    with pytest.raises(Stopped, match=r"SIGTERM\. Saved in .*: fold 0 up to epoch 1\. The same"):
        crossval.train_and_evaluate(config, tmp_path / "stopped")
    checkpoints = tmp_path / "stopped" / "fold_0" / "checkpoints"
    assert epoch_on_disk(checkpoints, LATEST) == 1
    monkeypatch.setattr(stopping, "GRACE_SECONDS", -1.0)  # too little for any epoch
    with pytest.raises(Stopped, match="fold 0 up to epoch 1"):
        crossval.train_and_evaluate(config, tmp_path / "stopped")
    monkeypatch.setattr(fold_training.FoldRun, "advance", advance)
    crossval.train_and_evaluate(config, tmp_path / "stopped")
    rows = [
        tiny.without_times(read_metrics(tmp_path / name / "fold_0"))
        for name in ("whole", "stopped")
    ]
    assert rows[0] == rows[1]


def test_a_long_epoch_is_saved_at_once(tmp_path, monkeypatch, tiny_world):
    """One that could not be ended in time leaves the one before it."""
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.0)
    with tiny.killed_after(2):
        tiny.train_one(tiny.make_config(epochs=3, checkpoint_seconds=1e9), tmp_path)
    assert epoch_on_disk(tmp_path / "checkpoints", LATEST) == 1


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, tiny_world):
    def interrupt(self, *args):
        if self.epochs_done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fold_training.FoldRun, "advance", interrupt)
    with pytest.raises(Stopped, match=r"stopped\. Saved in .*: fold 0 up to epoch 1") as caught:
        crossval.train_and_evaluate(tiny.make_config(epochs=3), tmp_path)
    assert caught.value.number == signal.SIGINT
