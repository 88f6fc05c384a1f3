"""Cost of duplicate recognition.

    python benchmarks/ssim.py --images=780            # SSIM of every pair, against other ways
    python benchmarks/ssim.py --scaling=1000,5000     # the short cut in larger archives
    python benchmarks/ssim.py --busi=DIR              # what the short cut misses on BUSI

Everything runs in one process, so that ratios are meaningful on a busy machine. The slow ways are
timed on some of the pairs and scaled up, as the output says.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import jax
import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from mtbus_jax.curate import candidates, pipeline, ssim
from mtbus_jax.curate.archive import read_archive
from mtbus_jax.curate.features import local_features
from mtbus_jax.images.phantom import make_phantoms
from mtbus_jax.images.preprocess import resize_nearest

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def archive(count: int, seed: int = 0):
    """``count`` different images: phantoms, turned, cropped and speckled anew.

    Yields uint8 images of about 200×280 pixels.
    """
    rng = np.random.default_rng(seed)
    bases = [phantom.image for phantom in make_phantoms(min(count, 120), seed=seed)]
    for k in range(count):
        image = bases[k % len(bases)].astype(np.float32)
        if k >= len(bases):
            turned = ndimage.rotate(image, rng.uniform(-25, 25), reshape=False, order=1)
            row, col = rng.integers(10, 40, 2)
            image = turned[row:-row, col:-col][:, :: rng.choice([-1, 1])]
            image = ndimage.gaussian_filter(image, 1.5)
            speckle = ndimage.gaussian_filter(rng.standard_normal(image.shape), 0.8)
            image = image * (1 + 0.9 * speckle)
        yield np.clip(image, 0, 255).astype(np.uint8)


@jax.jit
def _cumulative_row(first, second, total_first, total_second, squares_first, squares_second):
    """The plain way: window sums by cumulative sums, everything per pair."""
    import jax.numpy as jnp

    def box(values):
        sums = jnp.pad(jnp.cumsum(jnp.cumsum(values, 1), 2), ((0, 0), (1, 0), (1, 0)))
        return sums[:, 7:, 7:] - sums[:, :-7, 7:] - sums[:, 7:, :-7] + sums[:, :-7, :-7]

    mean_a, mean_b = total_first / 49, total_second / 49
    var_a = (squares_first / 49 - mean_a**2) * 49 / 48
    var_b = (squares_second / 49 - mean_b**2) * 49 / 48
    cov = (box(first * second) / 49 - mean_a * mean_b) * 49 / 48
    value = ((2 * mean_a * mean_b + _C1) * (2 * cov + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    )
    return value.mean((1, 2))


def cumulative(images: np.ndarray, rows: int) -> tuple[float, np.ndarray]:
    """Seconds for ``rows`` rows of the matrix by cumulative sums, and the values."""
    pixels = images.astype(np.float32)

    def box(values):
        sums = np.pad(values.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
        return (sums[:, 7:, 7:] - sums[:, :-7, 7:] - sums[:, 7:, :-7] + sums[:, :-7, :-7]).astype(
            np.float32
        )

    total, squares = box(pixels), box(pixels**2)

    def row(k):
        one = slice(k, k + 1)
        return np.asarray(
            _cumulative_row(pixels[one], pixels, total[one], total, squares[one], squares)
        )

    row(0)
    start = time.perf_counter()
    values = np.stack([row(k) for k in range(rows)])
    return time.perf_counter() - start, values


def all_pairs(count: int, size: int = 128) -> None:
    """Times SSIM of every pair in three ways."""
    images = np.stack([resize_nearest(image, size, size) for image in archive(count)])
    pairs = count * (count - 1) // 2
    print(f"{count} images of {size}×{size}, {pairs:,} pairs")
    ssim.ssim_matrix(images[: 2 * ssim.BLOCK])  # compiles
    times = []
    for _ in range(3):
        start = time.perf_counter()
        matrix = ssim.ssim_matrix(images)
        times.append(time.perf_counter() - start)
    print(f"mtbus_jax, every pair: {min(times):.1f} s (best of 3; {max(times):.1f} s worst)")
    rows = max(1, min(count, 6))
    seconds, values = cumulative(images, rows)
    # A row holds every image; every pair needs half of all rows.
    scaled = seconds / rows * (count - 1) / 2
    print(
        f"cumulative sums in JAX: {scaled:.0f} s, scaled from {rows} rows; "
        f"{scaled / min(times):.0f} × as long; differs by "
        f"{np.abs(values - matrix[:rows]).max():.1e} at most"
    )
    rng = np.random.default_rng(0)
    sample = rng.integers(0, count, (200, 2))
    start = time.perf_counter()
    expected = [structural_similarity(images[a], images[b], data_range=255) for a, b in sample]
    scaled = (time.perf_counter() - start) / len(sample) * pairs
    error = np.abs(matrix[sample[:, 0], sample[:, 1]] - expected).max()
    print(
        f"scikit-image, one core: {scaled:.0f} s, scaled from {len(sample)} pairs; "
        f"{scaled / min(times):.0f} × as long; mtbus_jax differs by {error:.1e} at most"
    )


def scaling(count: int) -> None:
    """Times the stages of the short cut, except for files and geometric checks."""
    start = time.perf_counter()
    small, features = [], []
    made = 0.0
    images = archive(count)
    while True:
        begin = time.perf_counter()
        image = next(images, None)
        made += time.perf_counter() - begin
        if image is None:
            break
        small.append(resize_nearest(image, 128, 128))
        features.append(local_features(image))
    reading = time.perf_counter() - start - made
    small = np.stack(small)
    start = time.perf_counter()
    near = candidates.look_alikes(small, per_image=32)
    alike = time.perf_counter() - start
    start = time.perf_counter()
    ssim.ssim_pairs(small, near)
    exact = time.perf_counter() - start
    start = time.perf_counter()
    index = candidates.FeatureVotes(features)
    votes = index.votes()
    mirrored = index.votes(mirrored=True)
    voting = time.perf_counter() - start
    proposed = len(candidates.strongest(votes, per_image=20, least=2.0))
    proposed += len(candidates.strongest(mirrored, per_image=20, least=3.0))
    print(
        f"| {count:,} | {reading:.0f} | {alike:.1f} | {len(near):,} | {exact:.0f} | {voting:.0f} "
        f"| {proposed:,} | {reading + alike + exact + voting:.0f} |",
        flush=True,
    )


def busi(folder: Path) -> None:
    """Recall of the short cut's proposals, for copies and for the ranking by SSIM."""
    archive_read = read_archive(folder)
    small = archive_read.small
    matrix = ssim.ssim_matrix(small)
    near = {tuple(p) for p in candidates.look_alikes(small, per_image=32).tolist()}
    votes = candidates.FeatureVotes(archive_read.features).votes()
    voted = candidates.strongest(votes, per_image=20, least=2.0)
    geometry = pipeline.check_pairs(archive_read, voted)
    copies = {tuple(p) for p, g in zip(voted.tolist(), geometry, strict=True) if g.detail >= 0.3}
    upper = np.triu(np.ones_like(matrix, bool), 1)
    print(f"copies among the pairs proposed by votes: {len(copies)}")
    print(f"of these also proposed by thumbnails: {len(copies & near)}")
    for threshold in (0.4, 0.3, 0.234):
        high = {tuple(p) for p in np.argwhere(upper & (matrix >= threshold)).tolist()}
        print(
            f"pairs with SSIM ≥ {threshold}: {len(high)}; proposed by thumbnails or votes: "
            f"{len(high & (near | {tuple(p) for p in voted.tolist()})) / len(high):.4f}"
        )
    best = (matrix - 2 * np.eye(len(matrix))).argmax(1)
    kept = [tuple(sorted((k, int(b)))) in near for k, b in enumerate(best)]
    print(f"images whose most similar image is proposed by thumbnails: {np.mean(kept):.4f}")


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--scaling", default="")
    parser.add_argument("--busi", type=Path)
    arguments = parser.parse_args()
    if not (arguments.images or arguments.scaling or arguments.busi):
        arguments.images = 780
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}")
    if arguments.images:
        all_pairs(arguments.images)
    if arguments.scaling:
        print(
            "| images | features (s) | look-alikes (s) | pairs | their SSIM (s) | votes (s) "
            "| proposed for the geometric check | sum (s) |\n" + "| --- " * 8 + "|"
        )
        for count in arguments.scaling.split(","):
            scaling(int(count))
    if arguments.busi:
        busi(arguments.busi)


if __name__ == "__main__":
    main()
