"""``python -m mtbus_jax.images.phantom --contact_sheet=PATH`` draws the phantoms."""

from mtbus_jax.images.phantom import main

if __name__ == "__main__":
    main()
