"""``python -m mtbus_jax.curate``, see `command`."""

from absl import app, flags

from mtbus_jax.curate.command import main
from mtbus_jax.errors import UserError, exit_on_user_error

if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.curate"):
        try:
            app.run(main, flags_parser=lambda args: flags.FLAGS(args))
        except flags.Error as error:
            raise UserError(f"{error}. --help lists the flags.") from error
