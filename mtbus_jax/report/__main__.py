"""``python -m mtbus_jax.report``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.report.command import main

if __name__ == "__main__":
    run("mtbus_jax.report", main)
