"""The command line: what it refuses, with one clear paragraph and exit code 2, and the main job."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import in_process
import pytest
import tiny

from mtbus_jax import cli, data

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = [
    "--config.data.image_size=(32, 48)",
    "--config.model.name=unet",
    "--config.model.width=4",
    "--config.model.encoder=None",
    "--config.model.encoder_weights=None",
    "--config.model.frozen_statistics=None",
    "--config.train.encoder_rate=1",
    "--config.log.tensorboard=False",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "main.py", *arguments]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    text = " ".join(done.stderr.split())
    assert "main.py: " in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=configs/mt_unetp.py", "--workdir={tmp}"], ["mt_unetp.py", "configs/"]),
        (
            ["--config=configs/quickstart.py", "--workdir={tmp}", "--config.train.epoch=3"],
            ["epoch", 'Did you mean "train.epochs"'],
        ),
        (
            ["--config=configs/quickstart.py", "--workdir={tmp}", "--config.train.epochs=three"],
            ["epochs", "three"],
        ),
        (["--config=configs/quickstart.py"], ["--workdir"]),
        (["--workdir={tmp}"], ["--config", "missing"]),
        (["--config=configs/quickstart.py", "--workdir={tmp}", "extra"], ["extra"]),
        (["--config=configs/quickstart.py", "--wrkdir={tmp}"], ["wrkdir"]),
        (["--config=configs/quickstart.py", "--workdir={tmp}", "--mode=tran"], ["tran"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_use_is_refused(tmp_path, monkeypatch, arguments, words):
    """Before the process is prepared for training, so in the tests' own."""
    monkeypatch.chdir(ROOT)
    workdir = tmp_path / "run"
    arguments = [a.replace("{tmp}", str(workdir)) for a in arguments]
    assert_refused(in_process.run("main.py", cli.train, arguments), *words)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=evaluate", "--workdir={tmp}"], ["config.json", "not a run folder"]),
        (
            ["--config=configs/quickstart.py", "--workdir={tmp}", "--config.data.name=bussi"],
            ["bussi", "Did you mean 'busi'"],
        ),
        (
            ["--config=configs/quickstart.py", "--workdir={tmp}", "--config.model.name=unetp"],
            ["model.name", "Did you mean 'unetpp'"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_does_not_exist_is_refused(tmp_path, arguments, words):
    workdir = tmp_path / "run"
    done = run(*(a.replace("{tmp}", str(workdir)) for a in arguments))
    assert_refused(done, *words)
    assert not workdir.exists()


def test_a_dataset_that_is_nowhere_tells_what_to_fetch(tmp_path):
    (tmp_path / "empty").mkdir()
    done = run(
        "--config=configs/mt_unetpp.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={tmp_path / 'built'}",
        f"--config.data.manual_dir={tmp_path / 'empty'}",
    )
    assert_refused(done, "Dataset_BUSI", "manual_dir")
    assert not (tmp_path / "run").exists()


def test_a_fold_that_does_not_exist(tmp_path):
    data.save_arrays(tiny.make_cases(), tmp_path / "cases.npz", resize="area")
    done = run(
        "--config=configs/quickstart.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.arrays_file={tmp_path / 'cases.npz'}",
        "--config.data.folds=(4,)",
        *SMALL,
        f"--config.data.image_size={tiny.HEIGHT, tiny.WIDTH}",
    )
    assert_refused(done, "data.folds", "0 to 3")
    assert not (tmp_path / "run").exists()


def test_help_is_quick_to_import_and_names_the_flags():
    done = run("--help")
    assert "--config" in done.stdout
    assert "--workdir" in done.stdout
    program = "import sys, main; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.long
def test_main_job_killed_and_started_again(tmp_path, phantom_data_dir):
    """A real network on phantoms through the command line; SIGKILL in the middle; the same end."""
    workdir = tmp_path / "run"
    arguments = [
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={phantom_data_dir}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        "--config.train.checkpoint_seconds=0.0",
        "--config.train.epochs=3",
        *SMALL,
    ]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "xdg")}
    metrics = workdir / "fold_0" / "metrics.jsonl"
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )
    try:
        while process.poll() is None and not (metrics.exists() and metrics.read_text()):
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    done = run(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert "| DSC average |" in done.stdout
    assert str(workdir) in done.stdout
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["test_images"] == 60
    # Started a third time there is nothing to train; the tables are the same.
    again = run(*arguments, **environment)
    assert again.returncode == 0, again.stderr
    assert json.loads((workdir / "summary.json").read_text()) == summary
    # Another configuration must not continue it.
    refused = run(*arguments, "--config.loss.weight=0.5", **environment)
    assert_refused(refused, "loss.weight", "there, 0.5 now")


def test_hardware_that_is_not_there(tmp_path):
    done = run(
        "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", JAX_PLATFORMS="abacus"
    )
    assert_refused(done, "JAX_PLATFORMS='abacus'", "Unset that variable")
    assert not (tmp_path / "run").exists()
