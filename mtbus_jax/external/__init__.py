"""Tests networks on other data: ``mtbus external``, or from Python:

    mtbus_jax.external.evaluate("bus_uclm", "runs/best_on_bus_uclm", run="runs/best")
"""  # fmt: skip

from __future__ import annotations

from mtbus_jax.external.elsewhere import evaluate

__all__ = ["evaluate"]
