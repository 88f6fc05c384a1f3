"""Commands in processes of their own, which tests kill or stop."""

import os
import pathlib
import signal
import subprocess
import sys

import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
PATIENCE = 600  # seconds until a process counts as hanging; machines may be busy


def started(script, *arguments, cache) -> subprocess.Popen:
    """Python with a script of ``tests/support``; what it says is kept for `finish`.

    Args:
      script: its name.
      *arguments: of the script.
      cache: folder in which several processes find each other's compiled programs.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / script), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=inherited
        | {
            "JAX_PLATFORMS": "cpu",
            "XDG_CACHE_HOME": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        # Whoever runs the tests in the background has Ctrl-C ignored, by all children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, output, and what was said on standard error in one line."""
    try:
        out, error = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out, " ".join(error.split())


def training_flags(world, workdir) -> list[str]:
    """Flags of main.py that train the network `tiny` on the dataset of a `small_runs.World`."""
    return [
        "--config=configs/base.py",
        f"--workdir={workdir}",
        "--config.data.name=phantom",
        f"--config.data.arrays_file={world.arrays}",
        f"--config.data.image_size={(tiny.HEIGHT, tiny.WIDTH)}",
        "--config.data.folds=0",
        "--config.model.name=tiny",
        "--config.model.width=4",
        "--config.train.batch_size=5",
        "--config.train.checkpoint_seconds=0.0",
    ]
