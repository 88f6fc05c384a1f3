"""Records what a run's encoder took from a file of weights, and what starts from drawn weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax import files
from mtbus_jax.models import weights
from mtbus_jax.training.run_files import ENCODER


def record(workdir: Path, config: config_dict.ConfigDict, started: weights.Start | None) -> None:
    """Writes ``encoder.json`` and shows its content, unless progress is not shown.

    Args:
      workdir: the run folder.
      config: of the run.
      started: None if no weights were loaded; then nothing is written.

    Raises:
      UserError: if the file cannot be written.
    """
    if started is None:
        return
    files.write_json(workdir / ENCODER, dataclasses.asdict(started))
    if config.log.progress:
        print(f"encoder from {config.model.encoder_weights}. {started.in_words()}", flush=True)
