"""Pictures to be written in many ways and read again."""

import numpy as np
import pytest

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def grey(rng):
    """A picture with black and white in it."""
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    pixels[0, :2] = 0, 255
    return pixels


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
