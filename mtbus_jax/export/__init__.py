"""A trained run as files that others can use; `mtbus_jax.export` is the command."""
