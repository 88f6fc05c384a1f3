"""SSIM in JAX against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from mtbus_jax.curate import ssim


def pictures(n, height, width, seed=0):
    """Noise of several kinds, flat and saturated images, and slightly changed copies."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, height, width))
    images[1] = 255
    images[2] = 0
    images[3] = rng.integers(250, 256, (height, width))
    images[4] = images[0] // 2 + 40
    images[5] = np.roll(images[0], 1, 1)
    images[6] = np.clip(images[0] + rng.normal(0, 9, (height, width)), 0, 255)
    return images.astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(40, 57), (7, 9), (64, 32)])
def test_every_pair_equals_scikit_image(height, width):
    images = pictures(9, height, width)
    matrix = ssim.ssim_matrix(images, block=4)
    for a in range(9):
        for b in range(a + 1, 9):
            expected = structural_similarity(images[a], images[b], win_size=7, data_range=255)
            assert matrix[a, b] == pytest.approx(expected, abs=1e-5), (a, b)
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()


@pytest.mark.parametrize("block", [1, 3, 9, 32])
def test_the_block_size_changes_nothing(block):
    images = pictures(9, 24, 31)
    np.testing.assert_allclose(
        ssim.ssim_matrix(images, block=block), ssim.ssim_matrix(images, block=5), atol=1e-6
    )


def test_chosen_pairs_equal_scikit_image_in_any_order_and_number():
    images = pictures(8, 33, 45)
    pairs = np.array([[0, 6], [6, 0], [1, 2], [5, 5], [3, 7]])
    values = ssim.ssim_pairs(images, pairs, batch=2)
    expected = [structural_similarity(images[a], images[b], data_range=255) for a, b in pairs]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert ssim.ssim_pairs(images, np.zeros((0, 2), int)).shape == (0,)


def test_bright_flat_images_stay_exact():
    # The window sums of 255 reach 3.2e6 and their squares 1e13, far beyond float32.
    images = np.full((7, 20, 30), 255, np.uint8)
    images[1, ::2] = 254
    images[2, :, ::3] = 253
    matrix = ssim.ssim_matrix(images)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        expected = structural_similarity(images[a], images[b], data_range=255)
        assert matrix[a, b] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 6, 9), np.uint8), np.zeros((2, 9, 9)), np.zeros((9, 9), np.uint8)]
)
def test_other_input_is_refused(images):
    with pytest.raises(ValueError):
        ssim.ssim_matrix(images)
