"""``python -m mtbus_jax.reproduce``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.reproduce.command import main

if __name__ == "__main__":
    run("mtbus_jax.reproduce", main)
