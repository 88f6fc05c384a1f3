"""Locks between real processes: refused while held, free once the holder is gone."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from mtbus_jax import locks

HOLD = (
    "import sys, pathlib\n"
    "from mtbus_jax import locks\n"
    "with locks.hold(pathlib.Path(sys.argv[1])) as holder:\n"
    "    print(holder, flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "fold_0.lock"


def start(path):
    """A process that holds the lock until its input ends; what it said on taking it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def holder_of(path):
    with locks.hold(path) as holder:
        return holder


def test_the_second_process_is_told_who_holds_it(path):
    process, said = start(path)
    try:
        assert said == "None"
        holder = holder_of(path)
        since = json.loads(path.read_text())["since"]
        assert holder == f"process {process.pid} on {socket.gethostname()}, started {since}"
    finally:
        process.communicate("")
    assert holder_of(path) is None
    assert path.read_text() == ""


def test_the_lock_of_a_killed_process_is_free(path):
    process, _ = start(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert json.loads(path.read_text())["process"] == process.pid  # its text is still there
    assert holder_of(path) is None


def test_one_process_holds_it_once(path):
    with locks.hold(path) as first:
        assert first is None
        assert f"process {os.getpid()} " in holder_of(path)
    assert holder_of(path) is None


@pytest.mark.parametrize("missing", ["module", "file system"])
def test_without_locks_of_the_system_the_text_decides(path, monkeypatch, missing):
    if missing == "module":
        monkeypatch.setattr(locks, "fcntl", None)
    else:

        def flock(file, operation):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(locks.fcntl, "flock", flock)
    assert holder_of(path) is None
    with locks.hold(path):
        assert f"process {os.getpid()} " in holder_of(path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    text = {"host": socket.gethostname(), "process": gone.pid, "since": "yesterday"}
    path.write_text(json.dumps(text))
    assert holder_of(path) is None
    # Whether a process of another machine still runs cannot be told from here.
    path.write_text(json.dumps(text | {"host": "elsewhere"}))
    assert holder_of(path) == f"process {gone.pid} on elsewhere, started yesterday"


@pytest.mark.parametrize("text", ["", "half a li", "[]", '{"host": 3, "process": "x"}'])
def test_a_text_that_says_nothing_is_no_holder(path, monkeypatch, text):
    monkeypatch.setattr(locks, "fcntl", None)
    path.parent.mkdir()
    path.write_text(text)
    assert holder_of(path) is None


def test_a_holder_without_a_text_is_still_a_holder(path, monkeypatch):
    monkeypatch.setattr(locks, "_TEXT_SECONDS", 0.1)
    with locks.hold(path):
        path.write_text("")
        assert holder_of(path) == "another process"
