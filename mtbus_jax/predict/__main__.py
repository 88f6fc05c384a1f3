"""``python -m mtbus_jax.predict``, see `command`."""

from mtbus_jax.commandline import run
from mtbus_jax.predict.command import main

if __name__ == "__main__":
    run("mtbus_jax.predict", main)
