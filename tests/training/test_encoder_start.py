"""What was not loaded from the encoder's weights is named on the screen and in the run."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tiny

from mtbus_jax import crossval, data, models
from mtbus_jax.evaluation import summary
from mtbus_jax.training import run_files


class Encoded(tiny.TinyNet):
    """The tiny network, whose convolution can start from a file."""

    encoder_weights: str = ""
    encoder = "lite0"
    encoder_scope = "conv"

    @staticmethod
    def place_encoder_weights(name, array):
        return ("params", (name,), array) if name in ("kernel", "bias") else None


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "encoded", Encoded)
    monkeypatch.setattr(data, "load_configured", lambda config: tiny.make_cases())


def config_of(*, source="", **train):
    config = tiny.make_config(epochs=1, **train)
    config.model = {"name": "encoded", "width": 4, "encoder_weights": str(source)}
    config.log.progress, config.log.tensorboard = True, False
    return config


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "some_weights.safetensors"
    arrays = {
        "kernel": np.zeros((5, 5, 1, 4), np.float32),
        "bias": np.zeros(4, np.float32),
        "_fc.weight": np.zeros(3, np.float32),
        "bn.num_batches_tracked": np.zeros((), np.int64),
    } | {f"extra_{i:02}": np.zeros(1, np.float32) for i in range(14)}
    safetensors.numpy.save_file(arrays, path)
    return path


def test_what_was_not_loaded_is_named(source, tmp_path, capsys):
    workdir = tmp_path / "run"
    crossval.train_and_evaluate(config_of(source=source), workdir)
    said = capsys.readouterr().out
    extra = [f"extra_{i:02}" for i in range(14)]
    words = (
        f"Not used of some_weights.safetensors: {', '.join(['_fc.weight', *extra[:11]])} "
        "and 3 more. Started from drawn weights: cls, coarse, fine."
    )
    assert said.count(f"encoder from {source}. {words}\n") == 1
    stored = json.loads((workdir / run_files.ENCODER).read_text())
    assert stored["unused"] == ["_fc.weight", *extra]
    assert stored["drawn"] == ["cls", "coarse", "fine"]
    assert words in (workdir / "summary.md").read_text()
    assert run_files.read_summary(workdir)["encoder_start"] == stored
    # A continued run reads no weights: the file may be gone. Its summary still says it.
    source.unlink()
    crossval.train_and_evaluate(config_of(source=source), workdir)
    assert "encoder from" not in capsys.readouterr().out
    assert words in (workdir / "summary.md").read_text()
    # Runs that started before there was this file have none.
    (workdir / run_files.ENCODER).unlink()
    assert "encoder_start" not in summary.write_summary(workdir)


def test_without_weights_nothing_is_said(tmp_path, capsys):
    crossval.train_and_evaluate(config_of(), tmp_path)
    assert "encoder" not in capsys.readouterr().out
    assert not (tmp_path / run_files.ENCODER).exists()


def test_nothing_is_said_of_weights_that_another_runs_replace(source, tmp_path, capsys):
    crossval.train_and_evaluate(config_of(source=source), tmp_path / "first")
    capsys.readouterr()
    config = config_of(source=source, start_from=str(tmp_path / "first"))
    crossval.train_and_evaluate(config, tmp_path / "second")
    assert "encoder from" not in capsys.readouterr().out
    assert not (tmp_path / "second" / run_files.ENCODER).exists()
