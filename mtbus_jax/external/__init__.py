"""Tests networks on other data: ``mtbus external``, or from Python

    mtbus_jax.external.test_elsewhere("bus_uclm", "runs/best_on_bus_uclm", run="runs/best")
"""  # fmt: skip

from __future__ import annotations

from mtbus_jax.external.elsewhere import test_elsewhere

__all__ = ["test_elsewhere"]
