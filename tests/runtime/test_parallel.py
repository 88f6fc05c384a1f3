"""Several processes train one run on this machine's CPU, through main.py; and their parts alone."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
import two_devices

from mtbus_jax import data, files, models
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.splits import Split, published_folds
from mtbus_jax.training import run_folder, warm_start
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
PATIENCE = 1800  # seconds until a process counts as hanging; machines may be busy


def free_port(first=1024, last=65535):
    while True:
        port = random.randint(first, last)
        try:
            socket.create_server(("", port)).close()
            return port
        except OSError:
            continue


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Starts main.py on a small dataset: ``world(workdir, …)``; see `World`."""
    return World(tmp_path_factory.mktemp("world"))


class World:
    """One dataset, one compilation cache, and main.py with the network `tiny`."""

    def __init__(self, folder, *, enlarge=(1, 1)):
        """``enlarge``: how many pixels each pixel becomes, (rows, columns)."""
        self.folder = folder
        small = tiny.make_cases()
        larger = {
            name: getattr(small, name).repeat(enlarge[0], axis=1).repeat(enlarge[1], axis=2)
            for name in ("image", "mask")
        }
        self.cases = dataclasses.replace(small, **larger)
        data.save_arrays(self.cases, folder / "cases.npz")

    def start(self, workdir, *flags, devices=1, **environment):
        """One process of main.py with so many CPU devices."""
        command = [
            "--config=configs/base.py",
            f"--workdir={workdir}",
            "--config.data.name=phantom",
            f"--config.data.arrays_file={self.folder / 'cases.npz'}",
            f"--config.data.image_size={self.cases.image.shape[1:3]}",
            "--config.data.folds=(0,)",
            "--config.model.name=tiny",
            "--config.model.width=4",
            "--config.train.batch_size=8",
            "--config.train.epochs=2",
            "--config.train.learning_rate=1e-2",
            "--config.train.checkpoint_seconds=0.0",
            f"--peer_timeout={PATIENCE}",
            *flags,
        ]
        if "--mode=evaluate" in flags:  # everything else is the run's own
            command = [f"--workdir={workdir}", f"--peer_timeout={PATIENCE}", *flags]
        environment |= {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": two_devices.flags(devices),
            "XDG_CACHE_HOME": str(self.folder / "xdg"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return subprocess.Popen(
            [sys.executable, "tests/support/main_with_tiny.py", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def start_two(self, workdir, *flags, only_first=(), only_second=(), devices=1):
        """Two processes that the flags tell of each other."""
        address = f"--coordinator=localhost:{free_port()}"
        return [
            self.start(
                workdir, address, "--processes=2", f"--process={i}", *flags, *own, devices=devices
            )
            for i, own in enumerate((only_first, only_second))
        ]

    def start_two_as_slurm(self, workdir, *flags, devices=1):
        """Two processes that are the tasks of an srun step on this machine."""
        slurm = {
            "SLURM_JOB_ID": str(free_port(61440) - 61440),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "2",
        }
        return [
            self.start(
                workdir,
                "--distributed",
                *flags,
                devices=devices,
                **slurm,
                SLURM_PROCID=str(i),
                SLURM_LOCALID=str(i),
            )
            for i in range(2)
        ]

    def best_params(self, workdir, monkeypatch):
        """The weights in the checkpoint ``best``, read by this one process."""
        monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        config = run_folder.load_config(workdir)
        split = published_folds(self.cases.label, self.cases.test_fold)[0]
        origin = {
            "dataset": data.fingerprint(self.cases),
            "split": split.fingerprint(self.cases.uid),
        }
        like = Experiment.from_config(config).abstract_state()
        with Checkpoints(workdir / "fold_0" / "checkpoints", origin) as checkpoints:
            return checkpoints.restore_best(like)["params"]


def finish(*processes, code=0):
    """Waits for all; what each wrote to standard output and error. Each must end with ``code``."""
    try:
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, error) in zip(processes, said, strict=True):
        assert process.returncode == code, error
    return said


def assert_same_run(world, one, other, monkeypatch):
    """Weights, losses and rows of two run folders agree."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE),
        *(world.best_params(workdir, monkeypatch) for workdir in (one, other)),
    )
    tables = [pd.DataFrame(read_metrics(workdir / "fold_0")) for workdir in (one, other)]
    assert len(tables[0]) > 0
    pd.testing.assert_frame_equal(
        *(table.drop(columns="seconds") for table in tables), rtol=TOLERANCE, atol=TOLERANCE
    )
    tables = [pd.read_csv(workdir / "fold_0" / "cases.csv") for workdir in (one, other)]
    assert len(tables[0]) == 12
    pd.testing.assert_frame_equal(*tables, rtol=TOLERANCE, atol=TOLERANCE)


def contents(workdir):
    """What lies in a run folder, without the numbers that Orbax and TensorBoard invent."""
    found = []
    for path in workdir.rglob("*"):
        parts = path.relative_to(workdir).parts
        if "checkpoints" in parts:
            parts = parts[: parts.index("checkpoints") + 3]  # fold, checkpoints, name, epoch
            found += [parts] if path.is_dir() and parts not in found else []
        elif path.is_file():
            found.append(tuple("events" if part.startswith("events.") else part for part in parts))
    return sorted(found)


@pytest.mark.long
def test_two_processes_train_what_one_does(world, tmp_path, monkeypatch):
    """Two devices in each of two SLURM tasks; the same numbers, each file once."""
    one, two = tmp_path / "one", tmp_path / "two"
    finish(world.start(one))
    said = finish(*world.start_two_as_slurm(two, devices=2))
    assert_same_run(world, one, two, monkeypatch)
    assert contents(one) == contents(two)
    # Process 0 alone has the screen.
    assert "4 device(s) in 2 processes" in said[0][0]
    assert "| DSC average |" in said[0][0]
    assert [out.count("epoch") for out, _ in said] == [2, 0]
    environment = files.read_json(two / "environment.json")
    assert environment["processes"] == 2 and len(environment["devices"]) == 4


@pytest.mark.long
def test_two_processes_start_from_the_weights_that_one_starts_from(world, tmp_path, monkeypatch):
    source, one, two = (tmp_path / name for name in ("source", "one", "two"))
    finish(world.start(source, "--config.seed=5"))
    flag = f"--config.train.start_from={source}"
    finish(world.start(one, flag))
    said = finish(*world.start_two(two, flag))
    assert_same_run(world, one, two, monkeypatch)
    assert [out.count("starting from the weights") for out, _ in said] == [1, 0]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            ["--config.train.epochs=3"],
            ["process 1 has another train.epochs (3) than process 0 (2)"],
        ),
        (["--config.data.arrays_file=none.npz"], ["none.npz: there is no such file"]),
    ],
    ids=["configuration", "data"],
)
def test_what_is_wrong_in_one_process_ends_both(world, tmp_path, second, words):
    said = finish(*world.start_two(tmp_path / "run", only_second=second), code=2)
    for _, error in said:
        text = " ".join(error.split())
        assert "Traceback" not in text
        for word in words:
            assert word in text
    assert "stopped, because process 1 did" in " ".join(said[0][1].split())
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_one_process_killed_ends_the_other_and_both_go_on_together(world, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ["--config.train.epochs=12"]
    finish(world.start(one, *flags))
    pair = world.start_two(two, *flags)
    metrics = two / "fold_0" / "metrics.jsonl"
    try:
        while pair[1].poll() is None and not (metrics.exists() and metrics.read_text()):
            time.sleep(0.02)
        pair[1].send_signal(signal.SIGKILL)
        pair[0].communicate(timeout=PATIENCE)
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    assert pair[1].returncode == -signal.SIGKILL
    assert pair[0].returncode not in (0, None)
    done = len(read_metrics(two / "fold_0"))
    assert 1 <= done < 12
    said = finish(*world.start_two(two, *flags))
    assert "continuing after epoch" in said[0][0]
    assert_same_run(world, one, two, monkeypatch)
    # Testing again is spread over both, too.
    path = two / "fold_0" / "cases.csv"
    path.unlink()
    finish(*world.start_two(two, "--mode=evaluate"))
    assert_same_run(world, one, two, monkeypatch)


@pytest.mark.long
def test_sigterm_to_one_process_ends_both_after_the_same_epoch(world, tmp_path):
    workdir = tmp_path / "run"
    pair = world.start_two(
        workdir, "--config.train.epochs=4000", "--config.train.checkpoint_seconds=1e9"
    )
    metrics = workdir / "fold_0" / "metrics.jsonl"
    try:
        while pair[0].poll() is None and not (metrics.exists() and metrics.read_text()):
            time.sleep(0.02)
        pair[1].send_signal(signal.SIGTERM)
        said = finish(*pair, code=128 + signal.SIGTERM)
    finally:
        for process in pair:
            process.kill()
    epochs = len(read_metrics(workdir / "fold_0"))
    first, second = (" ".join(error.split()) for _, error in said)
    assert f"stopped by SIGTERM. Saved in {workdir}: fold 0 up to epoch {epochs}." in first
    assert "see process 0" in second
    assert "Traceback" not in first + second


@pytest.mark.long
def test_a_real_network_does_not_mind_either(tmp_path, monkeypatch):
    """MT UNet++ with augmentation and oversampling: two processes and two devices in one.

    Each device computes the same in both, so that rounding has no part in it. At the other tests'
    16×32 pixels the lowest maps have two, whose normalisation blows rounding up; here they are 3×4.
    """
    world = World(tmp_path, enlarge=(3, 2))
    flags = [
        "--config.model.name=unetpp",
        "--config.model.width=2",
        "--config.train.batch_size=4",
        "--config.train.learning_rate=1e-3",
        "--config.train.epochs=1",
        "--config.eval.tta=False",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    finish(world.start(one, *flags, devices=2))
    finish(*world.start_two(two, *flags))
    assert_same_run(world, one, two, monkeypatch)


# ------------------------------------------------------------------------------------ parts, alone


def pretend(monkeypatch, processes, index, devices=4):
    """Makes JAX report so many processes with so many devices each."""
    everyones = [
        types.SimpleNamespace(process_index=p, platform="cpu", number=n)
        for p in range(processes)
        for n in range(devices)
    ]
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(jax, "devices", lambda: everyones)


def test_each_process_feeds_its_own_share(monkeypatch):
    batches = np.arange(2 * 12).reshape(2, 12)
    whole = parallel.spread(batches, 6)
    shares = []
    for index in range(3):
        pretend(monkeypatch, 3, index)
        shares.append(parallel.spread(batches, 6))
        assert shares[-1].shape == (2, 2, 2)
    np.testing.assert_array_equal(np.concatenate(shares), whole)


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"), [(0, 8, 4), (0, 6, 3), (0, 2, 1), (2, 8, 2)]
)
def test_devices_are_taken_evenly_from_all_processes(monkeypatch, count, batch_size, expected):
    pretend(monkeypatch, 2, 1)
    chosen = [(d.process_index, d.number) for d in parallel.choose_devices(count, batch_size)]
    assert chosen == [(p, n) for p in range(2) for n in range(expected)]


@pytest.mark.parametrize(
    ("count", "batch_size", "word"),
    [
        (0, 5, "over 2 processes; make it a multiple of 2"),
        (5, 10, "each process has 4"),
        (3, 8, "train.devices=3 of 2 processes"),
    ],
)
def test_a_batch_that_cannot_be_spread_over_processes(monkeypatch, count, batch_size, word):
    pretend(monkeypatch, 2, 0)
    with pytest.raises(UserError, match=word):
        parallel.choose_devices(count, batch_size)


def test_a_process_on_its_own_does_everything_itself():
    assert parallel.is_primary()
    assert parallel.on_primary(lambda: "done") == "done"
    with pytest.raises(KeyError), parallel.together():
        raise KeyError


def test_what_goes_to_other_processes_is_data(monkeypatch):
    """Process 1 gets what process 0 sent: JSON, of which each kind is made again."""
    sent = []

    def broadcast(value):
        if parallel.is_primary():
            sent.append(np.asarray(value))
            return value
        return sent.pop(0)

    monkeypatch.setattr(parallel.multihost_utils, "broadcast_one_to_all", broadcast)
    monkeypatch.setattr(
        parallel.multihost_utils, "process_allgather", lambda message: np.stack([message] * 2)
    )
    split = published_folds(tiny.make_cases().label, tiny.make_cases().test_fold)[1]
    source = warm_start.StartingWeights(pathlib.Path("runs/a"), 2, tiny.make_config())
    values = [
        (None, {}),
        ({"a": [1, 2.5, None, "ü"]}, {}),
        (split, {"to_json": Split.to_json, "from_json": Split.from_json}),
        (
            source,
            {
                "to_json": warm_start.StartingWeights.to_json,
                "from_json": warm_start.StartingWeights.from_json,
            },
        ),
    ]
    for value, options in values:
        pretend(monkeypatch, 2, 0)
        assert parallel.on_primary(lambda value=value: value, **options) is value
        pretend(monkeypatch, 2, 1)
        got = parallel.on_primary(pytest.fail, **options)
        if value is split:
            jax.tree.map(np.testing.assert_array_equal, vars(got), vars(split))
        elif value is source:
            assert (got.run, got.fold) == (source.run, source.fold)
            assert got.config.to_dict() == source.config.to_dict()
        else:
            assert got == value
    pretend(monkeypatch, 2, 0)
    with pytest.raises(TypeError, match="JSON"):
        parallel.on_primary(lambda: object())


def test_arrays_go_to_other_processes_as_arrays(monkeypatch):
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int32(4)}
    monkeypatch.setattr(
        parallel.multihost_utils, "process_allgather", lambda message: np.stack([message] * 2)
    )
    # Process 1 asks whether there are any, then for the arrays.
    received = []
    monkeypatch.setattr(
        parallel.multihost_utils,
        "broadcast_one_to_all",
        lambda mine: received.pop(0) if received else mine,
    )
    for there in (True, False):
        message = json.dumps(there).encode()
        padded = np.zeros(8, np.uint8)
        padded[: len(message)] = np.frombuffer(message, np.uint8)
        received[:] = [np.uint32(len(message)), padded, tree]
        pretend(monkeypatch, 2, 1)
        got = parallel.tree_from_primary(pytest.fail, jax.tree.map(np.zeros_like, tree))
        if there:
            jax.tree.map(np.testing.assert_array_equal, got, tree)
        else:
            assert got is None
