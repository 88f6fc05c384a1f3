"""Faster forms of operations that XLA's CPU backend runs slowly. Skip this package at first.

Each module has a faster equivalent of an operation and says when it is used. The networks can be
understood without it.
"""
