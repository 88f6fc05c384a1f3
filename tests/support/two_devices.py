"""Programs on a CPU that is made to look like two devices."""

import json
import os
import subprocess
import sys


def flags(devices: int) -> str:
    """XLA's flags for a CPU that looks like so many devices, after those of the tests."""
    ours = os.environ.get("XLA_FLAGS", "")
    return f"{ours} --xla_force_host_platform_device_count={devices}".strip()


def result_of(program: str, *, beside: str):
    """What a program prints in its last line, as JSON.

    Args:
      program: finds what the tests find, and the modules beside this file.
      beside: path of a test file.
    """
    env = os.environ | {
        "XLA_FLAGS": flags(2),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(beside), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
