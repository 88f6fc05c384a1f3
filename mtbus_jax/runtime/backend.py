"""Start of a training process: its memory, its threads, its cache, its hardware."""

from __future__ import annotations

import os

import jax

from mtbus_jax.errors import UserError
from mtbus_jax.runtime import host_memory, parallel, program_cache


def prepare_for_training() -> None:
    """Sets up memory, threads and compiled programs for training on a CPU.

    Must be called before JAX's first computation.
    """
    host_memory.keep_freed_memory(of_all_threads=False)
    parallel.run_in_caller()
    program_cache.open_cache()


def check() -> None:
    """Starts JAX's backend, and says so clearly if there is none.

    Several processes must have found each other beforehand.

    Raises:
      UserError: if ``JAX_PLATFORMS`` names what this machine, or this JAX, does not have.
    """
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # which of them depends on JAX's version
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()) or "no device found"
        raise UserError(
            f"JAX cannot use JAX_PLATFORMS={asked!r} here ({reason}). Unset that variable to use "
            "what is available, or install JAX for that accelerator, such as "
            "pip install 'jax[cuda13]'."
        ) from None
