"""``python -m mtbus_jax.images.phantom --contact_sheet=PATH`` draws the phantoms."""

from mtbus_jax.errors import exit_on_user_error
from mtbus_jax.images.phantom import main

if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.images.phantom"):
        main()
