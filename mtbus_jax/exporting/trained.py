"""A run folder's trained folds, without its dataset: what exported files must equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import config_dict

from mtbus_jax import runfolder, summary
from mtbus_jax.errors import UserError
from mtbus_jax.evaluate import CASES
from mtbus_jax.exporting import interface
from mtbus_jax.predict.restore import restore


@dataclasses.dataclass(frozen=True)
class Trained:
    """Best weights of some folds of one run.

    Attributes:
      config: of the run.
      module: the network.
      variables: of the network, by fold; numpy arrays.
    """

    config: config_dict.ConfigDict
    module: nn.Module
    variables: dict[int, dict[str, Any]]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input in pixels."""
        return tuple(self.config.data.image_size)

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds, in ascending order."""
        return tuple(self.variables)

    def network_options(self) -> dict[str, Any]:
        """What `models.create` gets besides name and tasks."""
        return {k: v for k, v in self.config.model.items() if k != "name" and v is not None}

    def function(self) -> Callable[[jax.Array], dict[str, jax.Array]]:
        """The function to export: an image's probabilities, averaged over the folds.

        Returns:
          A function of ``(batch, height, width, 1)`` float32 grey values 0..255 that gives what
          `interface.probabilities` says.
        """
        members = tuple(self.variables.values())

        def average(image):
            parts = [
                interface.probabilities(self.module.apply(variables, image, train=False))
                for variables in members
            ]
            return jax.tree.map(lambda *each: sum(each) / len(members), *parts)

        return average

    def reference(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The same from the network itself: one image and one fold at a time.

        Args:
          images: ``(n, height, width, 1)`` float32, grey values 0..255.

        Returns:
          Outputs by name, n rows each.
        """
        apply = jax.jit(
            lambda variables, image: interface.probabilities(
                self.module.apply(variables, image, train=False)
            )
        )
        rows = []
        with on_cpu():
            for image in images:
                parts = [
                    jax.device_get(apply(each, image[None])) for each in self.variables.values()
                ]
                rows.append({name: np.mean([p[name] for p in parts], axis=0) for name in parts[0]})
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def on_cpu():
    """A context in which JAX computes on the CPU, with the full precision of float32."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def load(run: Path, folds: tuple[int, ...] | None = None) -> Trained:
    """The best weights of a run's folds; changes nothing there.

    Args:
      run: the run folder.
      folds: which; None for all that the run has trained.

    Raises:
      UserError: if the folder is no run, a fold is not trained and tested to the end, or weights
        are missing or broken; see also `predict.restore.restore`.
    """
    wanted = _started(run) if folds is None else folds
    restored = restore(run, wanted or None)
    untested = [f for f in wanted if not (runfolder.fold_dir(run, f) / CASES).is_file()]
    if untested:
        raise UserError(
            f"fold {untested[0]} of {run} is not tested yet (no {CASES}), so nothing is known of "
            "its network. Give main.py the command again that started the run, or choose other "
            "--folds."
        )
    for name in (runfolder.SPLITS, runfolder.ENVIRONMENT, summary.SUMMARY_JSON):
        runfolder.read_json(run / name)
    variables = zip(restored.folds, jax.device_get(restored.variables), strict=True)
    return Trained(restored.config, restored.module, dict(sorted(variables)))


def _started(run: Path) -> tuple[int, ...]:
    """Folds of which there is anything, so that none of them is left out unsaid."""
    names = (path.name.removeprefix("fold_") for path in run.glob("fold_*"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))
