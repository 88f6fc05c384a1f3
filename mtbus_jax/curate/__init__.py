"""Finds duplicates in any archive of ultrasound images, and audits splits for them.

`pipeline.curate` does all of it; `python -m mtbus_jax.curate` is its command line. Training code
may import `audit` only, which needs nothing but NumPy.
"""
