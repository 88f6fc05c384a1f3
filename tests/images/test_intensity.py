"""Grey values brought to the distribution of other pictures."""

import numpy as np
import pytest
import skimage.exposure

from mtbus_jax.images import intensity


def pictures(seed, scale, *, height=24, width=40):
    rng = np.random.default_rng(seed)
    return np.clip(rng.gamma(2.0, scale, (3, height, width)), 0, 255).astype(np.uint8)


def test_equals_scikit_image_on_all_pictures_together():
    images, reference = pictures(0, 20), pictures(1, 45, height=16)
    found = intensity.match(images, intensity.histogram(reference))
    expected = skimage.exposure.match_histograms(images.ravel(), reference.ravel())
    np.testing.assert_array_equal(found.ravel(), np.rint(expected))
    assert found.shape == images.shape and found.dtype == np.uint8


def test_own_distribution_changes_nothing():
    images = pictures(2, 30)
    np.testing.assert_array_equal(intensity.match(images, intensity.histogram(images)), images)


def test_order_is_kept():
    every = np.arange(256, dtype=np.uint8)
    found = intensity.match(every, intensity.histogram(pictures(3, 10))).astype(int)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_pictures_become_the_brightest_of_the_reference(value):
    # All of their pixels lie at or below the constant, as all of the reference below its maximum.
    reference = pictures(4, 15)
    found = intensity.match(np.full((5, 3), value, np.uint8), intensity.histogram(reference))
    assert (found == reference.max()).all()
