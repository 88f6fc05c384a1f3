"""``python -m mtbus_jax.check``, see `command`."""

from mtbus_jax.check.command import main
from mtbus_jax.commandline import run

if __name__ == "__main__":
    run("mtbus_jax.check", main)
