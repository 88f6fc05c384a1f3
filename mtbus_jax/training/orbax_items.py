"""How Orbax writes a checkpoint of this library: its items, in zarr, by one process."""

from __future__ import annotations

import logging

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging

# The items of a checkpoint: packed arrays, what they depend on, the list of their leaves.
STATE, ORIGIN, LEAVES = "state", "origin", "leaves"


def handlers() -> dict[str, ocp.CheckpointHandler]:
    """How each item is written.

    Each array has its own zarr folder. With Orbax's default, OCDBT, specifications are converted to
    JSON three times per checkpoint, and tensorstore 0.1.86 never frees some 300 bytes of each.
    """
    return {
        STATE: ocp.StandardCheckpointHandler(use_ocdbt=False, multiprocessing_options=alone()),
        ORIGIN: ocp.JsonCheckpointHandler(multiprocessing_options=alone()),
        LEAVES: ocp.JsonCheckpointHandler(multiprocessing_options=alone()),
    }


def alone() -> ocp.options.MultiprocessingOptions:
    """Orbax expects all processes to take part unless told otherwise."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Orbax's log is news: that OCDBT is not used here is not."""
    return "Skipping merge of OCDBT" not in str(record.msg)


# Orbax warns of it at every checkpoint.
absl_logging.get_absl_logger().addFilter(_is_news)
