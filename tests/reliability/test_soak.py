"""Training and predicting for a long time: memory stays as it is.

MTBUS_SOAK_MINUTES says how long each of the two runs, 5 without it. What was measured is printed
(``pytest -s``).
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import predict_dummies
import pytest
from PIL import Image
from processes import ROOT, SUPPORT, training_flags

MINUTES = float(os.environ.get("MTBUS_SOAK_MINUTES", "5"))
# By how much the memory of the last third may exceed that of the second one. A process of 300 MB
# that leaks a kilobyte with each of 10,000 checkpoints or pictures grows by that.
MOST_GROWTH = 10.0  # MB
LEAST_WORK = 20  # epochs, or pictures, a minute: less would show nothing

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc"),
]


def own_memory(process):
    """What a process holds in MB, without pages of files, which the system may take back.

    None once it has ended.
    """
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(found[0]) / 1024 if found else None


def soak(arguments, done):
    """Runs a script for `MINUTES`, and ends it.

    Args:
      arguments: of Python.
      done: function without arguments, how much it has done.

    Returns:
      Times in seconds since the work began, memory in MB at each, and how much was done.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    try:
        deadline = time.monotonic() + 300
        while not done():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        start, seconds, memory = time.monotonic(), [], []
        while (now := time.monotonic() - start) < 60 * MINUTES:
            assert process.poll() is None, process.stderr.read()
            seconds.append(now)
            memory.append(own_memory(process))
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    finally:
        process.kill()
    return np.array(seconds), np.array(memory), done()


def assert_flat(what, seconds, memory, count):
    thirds = np.array_split(memory, 3)
    growth = np.median(thirds[2]) - np.median(thirds[1])
    slope = np.polyfit(seconds[len(thirds[0]) :] / 60, np.concatenate(thirds[1:]), 1)[0]
    print(
        f"\n{what}: {count} in {seconds[-1] / 60:.1f} minutes; memory "
        f"{', '.join(f'{np.median(third):.1f}' for third in thirds)} MB in its thirds, largest "
        f"{memory.max():.1f}; {slope:+.2f} MB a minute, {growth:+.2f} MB from second to last third"
    )
    for part in np.array_split(np.arange(len(memory)), 12):
        print(
            f"until minute {seconds[part[-1]] / 60:5.1f}: median {np.median(memory[part]):.1f} MB"
        )
    assert count > LEAST_WORK * MINUTES
    assert growth < MOST_GROWTH


def test_training(world, tmp_path):
    """An epoch, a checkpoint, and a line of metrics.jsonl after the other."""
    workdir = tmp_path / "run"
    metrics = workdir / "fold_0" / "metrics.jsonl"

    def epochs():
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    arguments = [
        SUPPORT / "main_with_tiny.py",
        *training_flags(world, workdir),
        "--config.train.epochs=1000000",
        "--config.train.stop_patience=1000000",
    ]
    assert_flat("epochs with a checkpoint each", *soak(arguments, epochs))


def test_predicting(tmp_path):
    """A picture, its files and its row of the table after the other."""
    run, folder, out = tmp_path / "run", tmp_path / "in", tmp_path / "out"
    predict_dummies.write_run(run)
    folder.mkdir()
    files = []
    for number, picture in enumerate(predict_dummies.pictures()):
        for suffix in ("png", "jpg", "tif"):
            files.append(folder / f"{number}_{suffix}.{suffix}")
            Image.fromarray(picture).save(files[-1])
    table = out / "predictions.csv"

    def pictures():
        return max(0, table.read_bytes().count(b"\n") - 1) if table.exists() else 0

    arguments = [SUPPORT / "predict_endlessly.py", run, out, *files]
    assert_flat("pictures", *soak(arguments, pictures))
