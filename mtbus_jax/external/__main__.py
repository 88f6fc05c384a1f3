"""``python -m mtbus_jax.external``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.external.command import main

if __name__ == "__main__":
    run("mtbus_jax.external", main)
