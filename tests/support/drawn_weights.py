"""Weights as a function of their name and shape, the same in PyTorch's environment and here.

So a fixture made with a PyTorch original need not store them, and can use the original's own sizes.
"""

import zlib

import numpy as np

KEPT = 48


def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array of the variable ``path``, such as ``down_0/conv/kernel``, in Flax's layout.

    Kernels keep the variance of what they act on; everything else lies around its usual start, far
    enough from it that a scale, slope or bias left out, or put elsewhere, changes the outputs.
    """
    # Unlike default_rng's, RandomState's stream never changes between versions of numpy.
    noise = np.random.RandomState(zlib.crc32(path.encode())).uniform(-1, 1, shape)
    match path.rsplit("/", 1)[-1]:
        case "kernel":
            array = noise * np.sqrt(3 / np.prod(shape[:-1]))
        case "scale" | "var":
            array = 1 + 0.5 * noise
        case "negative_slope":
            array = 0.25 + 0.2 * noise
        case _:
            array = 0.5 * noise
    return np.asarray(array, np.float32)


def thin(gradient: np.ndarray) -> np.ndarray:
    """What a fixture keeps of a gradient: its norm and about `KEPT` entries, evenly spread."""
    flat = np.ravel(np.asarray(gradient, np.float64))
    # An odd stride visits all residues of the axes' lengths, most of which are even.
    stride = max(1, flat.size // KEPT) | 1
    return np.concatenate([[np.linalg.norm(flat)], flat[::stride]]).astype(np.float32)


def thin_map(image: np.ndarray) -> np.ndarray:
    """What a fixture keeps of a map: the mean of each channel, then every 31st value.

    Args:
      image: ``(batch, height, width, channels)``, no length a multiple of 31, so that the values
        are of all channels and places.
    """
    double = np.asarray(image, np.float64)
    return np.concatenate([double.mean((0, 1, 2)), double.ravel()[::31]]).astype(np.float32)
