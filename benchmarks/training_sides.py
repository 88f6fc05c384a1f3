"""Starts the sides of time_to_published.py, each training a fold in its own process."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peer_batches

HERE = Path(__file__).parent
OURS = "mtbus_jax"
_TOLERANCE = 2e-3  # relative, of the first losses; as in train_step.py


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A configuration, its arguments on the command line, and how far it is trained.

    Attributes:
      config: of the run.
      arguments: for the configuration, as main.py takes them.
      epochs: number of epochs to train, at most.
    """

    config: Any
    arguments: list[str]
    epochs: int


def watch(
    command: list, environment: dict[str, str], *, check: Callable[[dict], None] | None = None
) -> dict:
    """Runs a side; returns its facts, rows and whether it finished.

    Args:
      command: prints JSON lines, see `reaching`.
      environment: variables in addition to this process's.
      check: called with the facts, before the first epoch ends; an exception from it ends the side.

    Raises:
      SystemExit: if the process fails.
    """
    found: dict[str, Any] = {"rows": []}
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        try:
            for line in process.stdout:
                content = json.loads(line) if line.startswith("{") else {}
                if "epoch" in content:
                    found["rows"].append(content)
                    print(line, end="", file=sys.stderr, flush=True)
                elif "finished" in content:
                    found |= content
                elif content:
                    if check is not None:
                        check(content)
                    found["facts"] = content
        except BaseException:
            process.kill()
            raise
    if process.returncode or "finished" not in found:
        raise SystemExit(f"{command} ended with exit code {process.returncode}")
    return found


def train_here(recipe: Recipe, fold: int) -> dict:
    """One fold with this library."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "our_time_to_published.py", fold, recipe.epochs]
        places = {"PYTHONPATH": str(HERE.parent), "JAX_COMPILATION_CACHE_DIR": folder}
        return watch([*command, *recipe.arguments], places)


def check_same(facts: dict, *, ours: dict) -> None:
    """Refuses a peer that does not compute what this library does.

    Args:
      facts: of the peer, with its ``parameters`` and first ``losses``.
      ours: the same of this library.

    Raises:
      SystemExit: if they differ.
    """
    same = facts["parameters"] == ours["parameters"]
    if not (same and np.allclose(facts["losses"], ours["losses"], rtol=_TOLERANCE, atol=0)):
        raise SystemExit(
            f"the sides differ: PyTorch has {facts['parameters']} parameters and the first losses "
            f"{facts['losses']}, {OURS} {ours['parameters']} and {ours['losses']}"
        )


def train_there(recipe: Recipe, fold: int, settings: str, python: str) -> dict:
    """One fold with PyTorch."""
    with tempfile.TemporaryDirectory() as name:
        written = peer_batches.write(Path(name), recipe.config, number=fold)
        check = functools.partial(check_same, ours=written)
        command = [python, HERE / "peer_time_to_published.py", name, settings]
        waiting = {"OMP_WAIT_POLICY": "passive"}
        huge = {"THP_MEM_ALLOC_ENABLE": "1"} if settings == "best" else {}
        found = watch(command, waiting | huge, check=check)
    found["facts"] |= {f"our_{k}": v for k, v in written.items()}
    return found
