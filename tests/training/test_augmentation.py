"""What a run adds to its augmentation: elastic warp and speckle, each alone and on top."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tiny

from mtbus_jax import augment, data, models
from mtbus_jax.training import augmentation
from mtbus_jax.training.logbook import read_metrics

HEIGHT, WIDTH = 48, 64


def of(**fields):
    plain = {"augment": True, "augmentation": "upright", "rotation_fill": "reflect"}
    return augmentation.of_run(SimpleNamespace(**plain | {"elastic": 0.0, "speckle": 0.0} | fields))


def draws(change, count, image, mask, seed=3):
    keys = jax.random.split(jax.random.key(seed), count)
    return map(np.asarray, jax.jit(jax.vmap(lambda key: change(key, image, mask)))(keys))


def make_image():
    """Smooth tissue with a bright lesion, and its mask."""
    rng = np.random.default_rng(0)
    image = 60 + 300 * scipy.ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 3)
    row, col = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((row - 20) ** 2 / 64 + (col - 36) ** 2 / 144 < 1)[..., None]
    image = np.clip(np.where(mask, 220, np.clip(image[..., None], 0, 110)), 0, 255)
    return jnp.asarray(image, jnp.float32), jnp.asarray(mask, jnp.float32)


@pytest.mark.parametrize("name", augment.METHODS)
def test_off_is_the_method_itself(name):
    method = of(augmentation=name)
    assert (method.func, method.keywords) == (augment.METHODS[name], {"fill": "reflect"})
    assert of(augment=False, elastic=1.0, speckle=1.0) is None


@pytest.mark.parametrize("name", augment.METHODS)
def test_elastic_moves_the_mask_with_the_image_and_speckle_leaves_it(name):
    image, mask = make_image()
    plain, plain_mask = draws(of(augmentation=name), 24, image, mask)
    bent, bent_mask = draws(of(augmentation=name, elastic=1.0), 24, image, mask)
    assert bent.shape == plain.shape and bent.dtype == bent_mask.dtype == np.float32
    assert set(np.unique(bent_mask)) == {0, 1}
    moved = (bent_mask != plain_mask).sum(axis=(1, 2, 3))
    assert (moved > 0).all() and moved.mean() < 0.5 * plain_mask.sum() / 24
    # The mask follows what is bright: better than the unmoved mask does.
    if name != "varied":  # whose tones do not tell the lesion apart
        bright = bent > (bent.max(axis=(1, 2, 3)) * 0.75)[:, None, None, None]
        assert (bright != bent_mask).mean() < 0.85 * (bright != plain_mask).mean()
    spotted, spotted_mask = draws(of(augmentation=name, speckle=1.0), 24, image, mask)
    np.testing.assert_array_equal(spotted_mask, plain_mask)
    assert (np.abs(spotted - plain).mean(axis=(1, 2, 3)) > 0.05).mean() > 0.9
    assert spotted.min() >= 0 and spotted.max() <= 255


def test_each_is_done_to_its_share_of_the_images_and_independently():
    image, mask = make_image()
    plain, plain_mask = draws(of(), 400, image, mask)
    both, both_mask = draws(of(elastic=0.3, speckle=0.6), 400, image, mask)
    bent, spotted = draws(of(elastic=0.3), 400, image, mask)
    is_bent = (spotted != plain_mask).any(axis=(1, 2, 3))
    is_changed = np.abs(both - bent).max(axis=(1, 2, 3)) > 1e-3
    np.testing.assert_array_equal(both_mask, spotted)
    # Where neither is drawn, the image is that of the method.
    left = ~is_bent & ~is_changed
    np.testing.assert_allclose(both[left], plain[left], atol=1e-3)
    assert scipy.stats.binomtest(int(is_bent.sum()), 400, 0.3).pvalue > 1e-3
    assert scipy.stats.binomtest(int(is_changed.sum()), 400, 0.6).pvalue > 1e-3
    assert abs(np.corrcoef(is_bent, is_changed)[0, 1]) < 4 / np.sqrt(400)


@pytest.mark.parametrize("fill", augment.FILLS)
def test_an_empty_mask_stays_empty(fill):
    image, mask = make_image()
    _, found = draws(of(elastic=1.0, speckle=1.0, rotation_fill=fill), 8, image, 0 * mask)
    assert not found.any()


def test_the_warp_equals_scipy():
    image, mask = make_image()
    key = jax.random.key(4)
    nodes = np.asarray(jax.random.normal(key, (2, 6, 6)), float) * 0.015 * HEIGHT
    # Linear interpolation between nodes at the centres of a 6×6 grid over the image, edges held.
    row, col = (np.clip((np.arange(n) + 0.5) * 6 / n - 0.5, 0, 5) for n in (HEIGHT, WIDTH))
    at = np.meshgrid(row, col, indexing="ij")
    moves = np.stack([scipy.ndimage.map_coordinates(each, at, order=1) for each in nodes])
    source = np.indices((HEIGHT, WIDTH)) + moves
    found, found_mask = jax.jit(augment.warped, static_argnames="fill")(
        key, image, mask, fill="reflect"
    )
    read = scipy.ndimage.map_coordinates(image[..., 0], source, order=1, mode="reflect")
    np.testing.assert_allclose(found[..., 0], read, atol=0.02)
    near = scipy.ndimage.map_coordinates(mask[..., 0], source, order=0, mode="reflect")
    assert (np.asarray(found_mask)[..., 0] != near).mean() < 1e-3  # ties aside
    assert moves.std() == pytest.approx(0.72 * 2 / 3, rel=0.25)


def test_the_speckle_is_in_its_range_and_uniform():
    count, grey = 300, 120.0
    keys = jax.random.split(jax.random.key(1), count)
    flat = jnp.full((32, 48, 1), grey)
    found = np.asarray(jax.jit(jax.vmap(lambda key: augment.speckled(key, flat)))(keys), float)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), grey, atol=2)
    sigma = found.std(axis=(1, 2, 3)) / np.hypot(grey, 6)
    assert sigma.max() < 0.155
    assert scipy.stats.kstest(sigma / 0.15, "uniform").pvalue > 1e-3
    white = np.asarray(augment.speckled(keys[0], jnp.full((32, 48, 1), 255.0)))
    assert white.max() == 255
    assert white.min() < 255


def test_the_fields_of_the_configuration_are_those_trained_with(tmp_path, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
    found = []
    for number, fields in enumerate(
        [{}, {"elastic": 0.5}, {"speckle": 0.5}, {"elastic": 0.5, "speckle": 0.5}]
    ):
        tiny.train_one(tiny.make_config(epochs=1, **fields), tmp_path / str(number))
        found.append(read_metrics(tmp_path / str(number))[0]["train_loss"])
    assert len(set(found)) == 4
