"""OpenCV's grey value of a colour, by its definition; see fixtures/make_opencv.py."""

import numpy as np


def luma(rgb):
    """What OpenCV makes of a colour PNG file that is read as grey; ``(..., 3)`` to ``(...)``."""
    red, green, blue = np.moveaxis(rgb.astype(int), -1, 0)
    return (9797 * red + 19234 * green + 3737 * blue) // 32768
