"""``python -m mtbus_jax.curate``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.curate.command import main

if __name__ == "__main__":
    run("mtbus_jax.curate", main)
