"""``python -m mtbus_jax.predict``, see `command`."""

import sys

from mtbus_jax.errors import exit_on_user_error
from mtbus_jax.predict.command import main

if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.predict"):
        sys.exit(main())
