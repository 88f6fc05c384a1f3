"""What exists because XLA's CPU backend is slow. Skip this room on first reading.

Each module has a faster equal of what XLA makes of an operation, and says when it is used; the
networks read the same without it.
"""
