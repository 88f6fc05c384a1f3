"""Seconds from launching a process to an answer: --help, and the first training step.

    python benchmarks/startup.py
    python benchmarks/startup.py --configs=configs/mt_unetpp.py --warm=5

For each configuration, on phantoms: one start with empty caches (compiled programs and resized
images, in a temporary XDG_CACHE_HOME), then some that find what the first one left there. All of
them find the built dataset; building it is timed separately, unless --data_dir names a folder that
has it. Parts of a start: the interpreter, imports, checks and devices, reading the data, initial
state and run folder, first step minus a later one (tracing and compiling, or reading what is
compiled), one step. The median of the warm starts is printed part by part, so parts need not add up
exactly. The processor time of all threads up to that step is printed too: other work on the machine
affects it less than wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import side_by_side

HERE = Path(__file__).parent
ROOT = HERE.parent
PARTS = ("python", "import", "setup", "data", "state", "compile", "step")


def run(command: list, environment: dict[str, str]) -> tuple[float, float, str]:
    """Launches a process and waits; returns launch and end (monotonic seconds) and its output."""
    launched = time.monotonic()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    ended = time.monotonic()
    # absl ends --help with exit code 1.
    if done.returncode and "--help" not in command:
        raise SystemExit(f"{command} ended with exit code {done.returncode}")
    return launched, ended, done.stdout


def first_step(config: str, environment: dict[str, str]) -> dict[str, float]:
    """Seconds of the parts of one start, their sum, and what JAX says it spent."""
    with tempfile.TemporaryDirectory() as folder:
        launched, _, output = run(
            [HERE / "first_step.py", *config.split(":")[:1], folder, *config.split(":")[1:]],
            environment,
        )
    found = json.loads(output.splitlines()[-1])
    marks = found["marks"]
    parts, last = {}, launched
    for name in PARTS[:5]:
        parts[name], last = marks[name] - last, marks[name]
    parts["step"] = min(marks["step_2"] - marks["step_1"], marks["step_3"] - marks["step_2"])
    parts["compile"] = marks["step_1"] - marks["state"] - parts["step"]
    return {
        "total": marks["step_1"] - launched,
        **parts,
        "jax": found["spent"],
        "processor": found["processor"]["first_step"],
    }


def report(name: str, starts: list[dict]) -> None:
    """Prints one line: medians and shares."""
    total = statistics.median(start["total"] for start in starts)
    cells = []
    for part in PARTS:
        seconds = statistics.median(start[part] for start in starts)
        cells.append(f"{seconds:.2f} ({seconds / total:.0%})")
    print(f"{name:<30}{total:>8.2f}" + "".join(f"{cell:>14}" for cell in cells))
    spent = {
        key: statistics.median(s["jax"].get(key, 0) for s in starts)
        for key in ("trace", "lower", "compile", "read_cache")
    }
    print(
        " " * 30
        + "JAX, all programs: "
        + ", ".join(f"{key} {value:.2f} s" for key, value in spent.items())
        + f"; processor time {statistics.median(s['processor'] for s in starts):.2f} s",
        flush=True,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--configs",
        default="configs/quickstart.py,configs/mt_unetpp.py",
        help="files, each optionally with :WIDTH to change the network's width",
    )
    parser.add_argument("--warm", type=int, default=3, help="warm starts, and starts of --help")
    parser.add_argument("--data_dir", default="", help="with the built phantoms")
    parser.add_argument("--json", default="", help="write the results here")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"TFDS_DATA_DIR": options.data_dir or f"{folder}/datasets"}
        helps = []
        for _ in range(options.warm):
            launched, ended, _ = run(["main.py", "--help"], {})
            helps.append(ended - launched)
        results["help"] = helps
        print(
            f"main.py --help: {statistics.median(helps):.2f} s ({min(helps):.2f}–{max(helps):.2f})"
        )
        if not options.data_dir:
            load = "from mtbus_jax import data; data.load_cases('phantom')"
            cache = {"XDG_CACHE_HOME": f"{folder}/building"}
            launched, ended, _ = run(["-c", load], environment | cache)
            results["build"] = ended - launched
            print(f"building the phantoms, imports included: {ended - launched:.1f} s")
        print(f"\n{'seconds (share)':<30}{'total':>8}" + "".join(f"{part:>14}" for part in PARTS))
        for number, config in enumerate(options.configs.split(",")):
            cache = environment | {"XDG_CACHE_HOME": f"{folder}/cache_{number}"}
            # JAX's own setting would win over the temporary folder.
            cache["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache_{number}/xla"
            cold = [first_step(config, cache)]
            report(f"{Path(config).stem}, empty caches", cold)
            warm = [first_step(config, cache) for _ in range(options.warm)]
            report(f"{Path(config).stem}, warm caches", warm)
            results[config] = {"cold": cold, "warm": warm}
    if options.json:
        side_by_side.write(options.json, results)


if __name__ == "__main__":
    main()
