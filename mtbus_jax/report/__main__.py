"""``python -m mtbus_jax.report``, see `command`."""

from mtbus_jax.errors import exit_on_user_error
from mtbus_jax.report.command import main

if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.report"):
        main()
