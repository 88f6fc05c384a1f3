"""Whether JAX finds the hardware that it was told to use."""

from __future__ import annotations

import os

import jax

from mtbus_jax.errors import UserError


def check() -> None:
    """Starts JAX's backend, and says in words if there is none.

    Several processes must have found each other before.

    Raises:
      UserError: if ``JAX_PLATFORMS`` names what this machine, or this JAX, does not have.
    """
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # which of them depends on JAX's version
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()) or "no device found"
        raise UserError(
            f"JAX cannot use JAX_PLATFORMS={asked!r} here ({reason}). Unset that variable to take "
            "what there is, or install the JAX of that accelerator, such as "
            "pip install 'jax[cuda13]'."
        ) from None
