"""Proposes the pairs that are worth a close look, without a close look at every pair.

Two compact descriptions feed faiss, a library of nearest-neighbour search: local features vote for
the images in which they recur, and thumbnails find images that look alike as a whole. The cost per
image hardly depends on the size of the archive. The exact measures see only the proposed pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

# On import, faiss logs at length which of its builds it has found.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from scipy import sparse  # noqa: E402

from mtbus_jax.curate.features import FEATURES, LocalFeatures  # noqa: E402
from mtbus_jax.images.preprocess import resize_nearest  # noqa: E402

# Neighbours that each local feature may vote for.
_NEIGHBOURS = 12
# Above this many vectors, faiss searches cells around learnt centres instead of everything.
_EXACT_VECTORS = 20_000
_PROBED_CELLS = 8
# Large archives vote with their strongest features only, about this many in all. A copy still gets
# a large part of its original's votes.
_MOST_VECTORS = 1_000_000
_IMAGES_AT_A_TIME = 256
_CHUNK = 65_536
_THUMBNAIL = 16


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float32) / 255


def _feature_index(vectors: np.ndarray) -> faiss.Index:
    """An index of ``(m, 128)`` uint8 vectors by Euclidean distance."""
    count, dimension = vectors.shape
    if count <= _EXACT_VECTORS:
        index = faiss.IndexFlatL2(dimension)
    else:
        cells = int(min(1.5 * np.sqrt(count), count / 40))
        # One byte per number.
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatL2(dimension), dimension, cells, faiss.ScalarQuantizer.QT_8bit
        )
        sample = np.random.default_rng(0).permutation(count)[: 40 * cells]
        index.train(_unit(vectors[np.sort(sample)]))
        index.nprobe = _PROBED_CELLS
    for start in range(0, count, _CHUNK):
        index.add(_unit(vectors[start : start + _CHUNK]))
    return index


class FeatureVotes:
    """An index of all local features of an archive.

    Args:
      features: of every image.
    """

    def __init__(self, features: Sequence[LocalFeatures]):
        """Builds the index; about two seconds per thousand images."""
        self._features = features
        self._n = len(features)
        self._most = max(1, _MOST_VECTORS // max(1, self._n))
        used = [f.descriptor[: self._most] for f in features]
        self._owner = np.repeat(np.arange(self._n), [len(u) for u in used])
        vectors = np.concatenate(used)
        self._index = _feature_index(vectors) if len(vectors) else None

    def votes(self, *, mirrored: bool = False) -> sparse.csr_matrix:
        """How strongly each image's features recur in each other image.

        A feature's vote falls from 1 for an identical one to 0 at the distance that its twelfth
        neighbour has in the middle of the archive.

        Args:
          mirrored: let the left-right mirrored images vote instead.

        Returns:
          ``(n, n)`` sparse, symmetric, zero diagonal; scaled up where few features vote.
        """
        if self._index is None:
            return sparse.csr_matrix((self._n, self._n), dtype=np.float32)
        scale = None
        parts = []
        for start in range(0, self._n, _IMAGES_AT_A_TIME):
            part = self._features[start : start + _IMAGES_AT_A_TIME]
            asked = [(f.mirrored() if mirrored else f).descriptor[: self._most] for f in part]
            voters = np.repeat(np.arange(start, start + len(part)), [len(a) for a in asked])
            wanted = min(_NEIGHBOURS, self._index.ntotal)
            distance, found = self._index.search(_unit(np.concatenate(asked)), wanted)
            if scale is None and len(distance):
                scale = max(float(np.median(distance[:, -1])), 1e-6)
            weight = np.clip(1 - distance / (scale or 1), 0, 1) ** 2
            voters = np.broadcast_to(voters[:, None], found.shape)
            keep = (found >= 0) & (weight > 0)
            elected = self._owner[found[keep]]
            other = elected != voters[keep]
            entries = (weight[keep][other], (voters[keep][other] - start, elected[other]))
            parts.append(sparse.coo_matrix(entries, shape=(len(part), self._n)).tocsr())
        # Chance votes grow with the square root of the number of features.
        total = sparse.vstack(parts, format="csr") * (FEATURES / min(FEATURES, self._most)) ** 0.5
        return total.maximum(total.T).tocsr()


def strongest(votes: sparse.csr_matrix, *, per_image: int, least: float) -> np.ndarray:
    """Pairs with enough votes, at most ``per_image`` from each image's own list.

    Returns:
      ``(m, 2)`` integers, first < second, sorted, without repetition.
    """
    pairs = []
    for row in range(votes.shape[0]):
        span = slice(votes.indptr[row], votes.indptr[row + 1])
        cols, values = votes.indices[span], votes.data[span]
        order = np.lexsort((cols, -values))[:per_image]
        pairs += [(row, int(cols[k])) for k in order if values[k] >= least]
    return unique_pairs(np.array(pairs, np.int64).reshape(-1, 2))


def unique_pairs(pairs: np.ndarray) -> np.ndarray:
    """``(m, 2)`` indices as sorted pairs with first < second, each once."""
    pairs = np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def look_alikes(images: np.ndarray, *, per_image: int) -> np.ndarray:
    """The images that resemble each image most as a whole, by 16×16 thumbnails.

    Args:
      images: ``(n, height, width)`` uint8.
      per_image: how many for each image.

    Returns:
      ``(m, 2)`` integers, first < second, sorted, without repetition.
    """
    n = len(images)
    # Averages of 16 × 16 tiles of 8 × 8 pixels, not samples. Centred and scaled to unit length
    # below, so that shape matters and brightness does not.
    tiles = np.stack([resize_nearest(image, 128, 128) for image in images])
    tiles = tiles.reshape(n, _THUMBNAIL, 128 // _THUMBNAIL, _THUMBNAIL, -1)
    vectors = tiles.mean((2, 4), dtype=np.float32).reshape(n, -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    pairs = []
    for start in range(0, n, _CHUNK):
        _, found = index.search(vectors[start : start + _CHUNK], min(per_image + 1, n))
        rows = np.repeat(np.arange(start, start + len(found)), found.shape[1])
        pairs.append(np.stack([rows, found.ravel()], 1))
    return unique_pairs(np.concatenate(pairs)) if pairs else np.zeros((0, 2), np.int64)
