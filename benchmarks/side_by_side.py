"""Times two or more sides of a comparison in turn, each in a process of its own.

The sides live in different environments (JAX here, PyTorch there) and wait, idle, for their turn;
rounds alternate, so that other work on the machine slows all sides equally. Only ratios within one
call are meaningful. Needs only the standard library, because both environments import it.

A side is a script that ends in `serve(step, facts)`; `compare` starts the sides and asks them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def serve(step: Callable[[], None], facts: dict) -> None:
    """Answers requests on standard input: a number n → the seconds of n calls of ``step``.

    Args:
      step: one unit of work, finished when it returns.
      facts: about this side, sent first (versions, a loss to compare, options).
    """
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def median_seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Median seconds of a few calls, for the parts of a step."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class Side:
    """One process that answers `serve`'s protocol."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None):
        """Starts the process and waits until it is ready (compiled, warmed up)."""
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self.facts = self._read()

    def run(self, count: int) -> list[float]:
        """Seconds of ``count`` steps."""
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self):
        # Libraries may print notes of their own; a line of the protocol is JSON.
        for line in self._process.stdout:
            if line.startswith(("{", "[")):
                return json.loads(line)
        raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}")


def compare(sides: list[Side], *, rounds: int, steps: int) -> dict[str, list[float]]:
    """Median seconds of a step per round and side; the order is reversed every round."""
    medians = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            medians[side.name].append(statistics.median(side.run(steps)))
    return medians


def table(medians: dict[str, list[float]], *, ours: str, images: int) -> dict[str, dict]:
    """Prints and returns, per side, images/s and how many times as fast ``ours`` is.

    The ratio is taken round by round; its median and quartiles are given.

    Args:
      medians: from `compare`.
      ours: the side that the others are compared with.
      images: per step.
    """
    rows = {}
    print(f"{'':<22}{'images/s':>10}{'quartiles':>18}   {ours} is … times as fast")
    for name, seconds in medians.items():
        speed = _quartiles([images / s for s in seconds])
        ratio = _quartiles([s / o for s, o in zip(seconds, medians[ours], strict=True)])
        rows[name] = {"images_per_second": speed, "times_as_fast": ratio}
        text = f"{name:<22}{speed[1]:>10.3g}{speed[0]:>9.3g}–{speed[2]:<8.3g}"
        if name != ours:
            text += f"   {ratio[1]:.2f}  ({ratio[0]:.2f}–{ratio[2]:.2f})"
        print(text, flush=True)
    return rows


def write(path: str, content: dict) -> None:
    """Writes results together with the hardware and command that gave them."""
    content = {"hardware": hardware(), "command": " ".join(sys.argv), **content}
    Path(path).write_text(json.dumps(content, indent=2) + "\n")


def hardware() -> dict:
    """Processor and number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1] for line in info.read_text().splitlines() if "model name" in line
        ]
        name = names[0].strip() if names else name
    return {"processor": name, "cores": len(os.sched_getaffinity(0))}


def peer_arguments(parser: argparse.ArgumentParser, *, settings: str) -> None:
    """Adds the options that every comparison with PyTorch has; ``settings`` are its default."""
    parser.add_argument("--peer_python", default="", help="interpreter with requirements.txt")
    parser.add_argument("--settings", default=settings, help="of the peer; none with --settings=")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="steps of a side per round")
    parser.add_argument("--json", default="", help="write the results here")


def settings_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The peer's settings; ends the process, with 2, if there are some and no peer."""
    settings = [each for each in options.settings.split(",") if each]
    if settings and not options.peer_python:
        parser.error(
            "--peer_python is missing: the Python of an environment with benchmarks/"
            "requirements.txt. With --settings= this library is timed alone."
        )
    return settings


def _quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")
