"""``python -m mtbus_jax.serve``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.serve.command import main

if __name__ == "__main__":
    run("mtbus_jax.serve", main)
