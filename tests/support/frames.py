"""Reading a file that holds one picture."""

import numpy as np

from mtbus_jax import images


def only(path):
    """The only picture of a file."""
    (found,) = images.read(path)
    assert found.number is None
    assert found.count == 1
    assert found.grey.dtype == np.uint8
    return found
