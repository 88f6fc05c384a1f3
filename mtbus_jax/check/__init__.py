"""Checks a folder of your own pictures before you train on it."""
