"""``python -m mtbus_jax.export``, see `command`."""

from absl import logging

from mtbus_jax.errors import exit_on_user_error
from mtbus_jax.export.command import main

if __name__ == "__main__":
    # Orbax logs every file it opens; warnings still come through.
    logging.set_verbosity(logging.WARNING)
    with exit_on_user_error("mtbus_jax.export"):
        main()
