"""Run folders that cannot be written: each command that would write says so in a paragraph."""

import errno
import os
import pathlib

import numpy as np
import pytest
from small_runs import make_config

from mtbus_jax import commandline, crossval
from mtbus_jax.predict import Predictor
from mtbus_jax.report import command as report_command


@pytest.fixture
def read_only(world, tmp_path, monkeypatch):
    """A run on a file system that refuses every write, whoever asks."""
    copy = world.copy(tmp_path)

    def refusing(call, mode_at=None):
        def checked(path, *args, **kwargs):
            inside = copy in pathlib.Path(path).parents
            mode = kwargs.get("mode", args[mode_at] if args and mode_at is not None else "w")
            if inside and set(str(mode)) & set("wax+"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return call(path, *args, **kwargs)

        return checked

    for name in ("write_bytes", "write_text"):
        monkeypatch.setattr(pathlib.Path, name, refusing(getattr(pathlib.Path, name)))
    monkeypatch.setattr(pathlib.Path, "open", refusing(pathlib.Path.open, mode_at=0))
    return copy


@pytest.mark.parametrize(
    ("work", "file"),
    [
        (lambda run: report_command.main([f"--run={run}"]), "report.html"),
        (lambda run: crossval.evaluate(run), "fold_0.lock"),
        (lambda run: crossval.train_and_evaluate(make_config(epochs=4), run), "fold_0.lock"),
    ],
    ids=["report", "evaluate", "train"],
)
def test_commands_that_write_name_the_file(read_only, capsys, work, file):
    with pytest.raises(SystemExit) as caught:
        commandline.run("mtbus", lambda argv, program: work(read_only), [])
    said = " ".join(capsys.readouterr().err.split())
    assert caught.value.code == 2
    assert f"{file} cannot be written: Read-only file system. Make it writable" in said


def test_predicting_needs_no_right_to_write(read_only):
    assert len(Predictor(read_only)([np.full((40, 60), 90, np.uint8)])) == 1
