"""``python -m mtbus_jax.export``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.export.command import main

if __name__ == "__main__":
    run("mtbus_jax.export", main)
