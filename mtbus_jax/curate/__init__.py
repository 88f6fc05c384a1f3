"""Duplicate recognition, its review and its audit, for any archive of ultrasound images.

`pipeline.curate` does the whole of it; `python -m mtbus_jax.curate` is its command line. Only
`audit` is meant for training code: it needs NumPy alone.
"""
