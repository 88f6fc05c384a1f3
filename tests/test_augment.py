"""Augmentation against SciPy's affine_transform, exact turns and flips, and its distribution."""

from fractions import Fraction
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from mtbus_jax import augment

# Compiled, because one program per shape is quicker than its operations one by one.
apply_transform = jax.jit(augment.apply_transform, static_argnames="fill")
flip_and_rotate = jax.jit(augment.flip_and_rotate, static_argnames="fill")

SHAPES = [(24, 24), (25, 25), (24, 33), (31, 20)]


def numbered(height, width):
    """Every pixel has a number of its own, from 1; 0 is left for the fill."""
    return np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width, 1)


def matrix_of(degrees, flip_rows=False, flip_cols=False):
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.diag([-1.0 if flip_rows else 1.0, -1.0 if flip_cols else 1.0]) @ rotation


def scipy_reference(matrix, image, mode="grid-constant"):
    """SciPy's result for ``(height, width)``, and where no coordinate is near a rounding tie."""
    centre = (np.array(image.shape) - 1) / 2
    expected = scipy.ndimage.affine_transform(
        image, matrix, offset=centre - matrix @ centre, order=0, mode=mode, cval=0
    )
    offsets = np.stack(np.indices(image.shape)) - centre[:, None, None]
    source = np.einsum("ij,jhw->ihw", matrix, offsets) + centre[:, None, None]
    clear = (np.abs(source - np.floor(source) - 0.5) > 1e-3).all(axis=0)
    return expected, clear


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [3.7, 58.2, 121.9, 200.4, 347.3])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_equals_scipy_away_from_ties(shape, degrees, flips):
    image = numbered(*shape)
    matrix = matrix_of(degrees, *flips)
    found = np.asarray(apply_transform(jnp.asarray(matrix, jnp.float32), image))[..., 0]
    expected, clear = scipy_reference(matrix, image[..., 0])
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("shape", [*SHAPES, (9, 40)])  # the last: mirrored several times over
@pytest.mark.parametrize("degrees", [44.1, 87.4, 121.9, 200.4])
def test_reflected_equals_scipy_and_leaves_nothing_empty(shape, degrees):
    image = numbered(*shape)
    matrix = matrix_of(degrees, flip_rows=True)
    found = apply_transform(jnp.asarray(matrix, jnp.float32), image, fill="reflect")
    expected, clear = scipy_reference(matrix, image[..., 0], mode="reflect")
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(np.asarray(found)[..., 0][clear], expected[clear])
    assert (np.asarray(found) > 0).all()


def test_both_fills_show_the_same_image_where_there_is_one():
    image, mask = numbered(22, 31), (numbered(22, 31) % 5 == 0).astype(np.float32)
    key = jax.random.key(3)
    (black, black_mask), (filled, filled_mask) = (
        flip_and_rotate(key, image, mask, fill=fill) for fill in augment.FILLS
    )
    inside = np.asarray(black) > 0
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(np.asarray(filled)[inside], np.asarray(black)[inside])
    np.testing.assert_array_equal(np.asarray(filled_mask)[inside], np.asarray(black_mask)[inside])
    # The mask is mirrored with its image.
    np.testing.assert_array_equal(filled_mask, np.asarray(filled) % 5 == 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_are_exact(shape):
    image = numbered(*shape)
    for rows, cols, expected in [
        (False, False, image),
        (True, False, image[::-1]),
        (False, True, image[:, ::-1]),
        (True, True, image[::-1, ::-1]),
    ]:
        matrix = jnp.asarray(matrix_of(0, rows, cols), jnp.float32)
        np.testing.assert_array_equal(apply_transform(matrix, image), expected)


@pytest.mark.parametrize("side", [24, 25, 128])
def test_quarter_turns_of_a_square_are_exact(side):
    image = numbered(side, side)
    for turns in range(4):
        # Float32 sine and cosine as in `random_transform`: 90° is not exact there.
        matrix = jnp.asarray(matrix_of(90 * turns), jnp.float32)
        found = apply_transform(matrix, image)
        np.testing.assert_array_equal(found, np.rot90(image, -turns))


@pytest.mark.parametrize(("height", "width"), [(6, 10), (9, 5), (96, 128)])
def test_quarter_turn_of_a_rectangle_turns_about_the_centre_and_fills_with_0(height, width):
    image = numbered(height, width)
    found = np.asarray(apply_transform(jnp.array([[0.0, -1.0], [1.0, 0.0]]), image))
    row_centre, col_centre = Fraction(height - 1, 2), Fraction(width - 1, 2)
    expected = np.zeros_like(image)
    for row in range(height):
        for col in range(width):
            from_row = row_centre - (col - col_centre)
            from_col = col_centre + (row - row_centre)
            assert from_row.denominator == from_col.denominator == 1  # no ties at these sizes
            if 0 <= from_row < height and 0 <= from_col < width:
                expected[row, col] = image[int(from_row), int(from_col)]
    np.testing.assert_array_equal(found, expected)
    # A strip of the longer side leaves the picture.
    assert (found == 0).sum() == height * width - min(height, width) ** 2


def test_fill_is_0_and_values_are_never_mixed():
    image = np.full((20, 30, 2), 200, np.uint8)
    image[..., 1] = 7
    found = np.asarray(apply_transform(jnp.asarray(matrix_of(45), jnp.float32), image))
    assert found.dtype == np.uint8
    assert set(np.unique(found[..., 0])) == {0, 200}
    np.testing.assert_array_equal(found[..., 0] == 200, found[..., 1] == 7)
    assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (found[10, 15] == [200, 7]).all()


@pytest.mark.parametrize(
    "dtype",
    [
        np.uint8,
        np.float32,
        np.bool_,
    ],
)
def test_type_is_kept(dtype):
    image = np.ones((4, 6, 1), dtype)
    found = apply_transform(jnp.asarray(matrix_of(30), jnp.float32), image)
    assert found.dtype == dtype


def test_image_and_mask_get_the_same_transform():
    rng = np.random.default_rng(0)
    image = numbered(22, 31).astype(np.float32)
    mask = (rng.random((22, 31, 1)) < 0.4).astype(np.float32)
    new_image, new_mask = map(np.asarray, flip_and_rotate(jax.random.key(3), image, mask))
    assert not np.array_equal(new_image, image)
    source = new_image.astype(int)
    expected = np.where(source > 0, mask.ravel()[np.maximum(source, 1) - 1], 0)
    np.testing.assert_array_equal(new_mask, expected)
    assert new_image.dtype == new_mask.dtype == np.float32


def test_an_empty_mask_stays_empty():
    empty = np.zeros((22, 31, 1), np.float32)
    _, mask = flip_and_rotate(jax.random.key(4), numbered(22, 31), empty)
    assert not np.asarray(mask).any()


def test_same_key_same_transform_other_key_another():
    first, again, other = (augment.random_transform(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_vmap_over_keys_gives_each_image_its_own_transform():
    keys = jax.random.split(jax.random.key(0), 3)
    image = jnp.asarray(np.stack([numbered(12, 17)] * 3))
    together, _ = jax.jit(jax.vmap(augment.flip_and_rotate))(keys, image, image)
    for i in range(3):
        alone, _ = flip_and_rotate(keys[i], image[i], image[i])
        np.testing.assert_array_equal(together[i], alone)
    assert not np.array_equal(together[0], together[1])


def test_flips_are_fair_and_angles_uniform():
    count = 40_000
    keys = jax.random.split(jax.random.key(7), count)
    matrices = np.asarray(jax.jit(jax.vmap(augment.random_transform))(keys), np.float64)
    identity = np.broadcast_to(np.eye(2), matrices.shape)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), identity, atol=1e-6)
    # Two flips are a half turn, so of the flips only their parity shows: determinant −1.
    mirrored = np.linalg.det(matrices) < 0
    assert scipy.stats.binomtest(int(mirrored.sum()), count).pvalue > 1e-3
    angle = np.arctan2(-matrices[:, 0, 1], matrices[:, 0, 0]) % (2 * np.pi)
    for part in (angle[mirrored], angle[~mirrored]):
        assert scipy.stats.kstest(part / (2 * np.pi), "uniform").pvalue > 1e-3
    # Draws of successive keys are unrelated.
    correlation = np.corrcoef(np.cos(angle[:-1]), np.cos(angle[1:]))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(count)


def test_symmetries_are_the_eight_of_the_square():
    image = np.arange(12).reshape(1, 3, 4, 1)
    seen = set()
    for index in range(8):
        turned = augment.symmetry(image, index)
        assert turned.shape == ((1, 3, 4, 1) if index < 4 else (1, 4, 3, 1))
        np.testing.assert_array_equal(augment.undo_symmetry(turned, index), image)
        seen.add(turned.tobytes() + bytes(turned.shape))
    assert len(seen) == 8
    quarters = {np.rot90(image, k, (1, 2)).tobytes() for k in range(4)}
    assert quarters <= {augment.symmetry(image, i).tobytes() for i in range(8)}
    np.testing.assert_array_equal(augment.symmetry(image, 0), image)


def trained_with(augmentation, *, augment=True):
    return SimpleNamespace(augmentation=augmentation, augment=augment)


def test_predicted_versions_look_like_training_images():
    assert augment.symmetries(trained_with("released"), 4, 4) == tuple(range(8))
    # Turned, it has another shape.
    assert augment.symmetries(trained_with("released"), 3, 4) == (0, 1, 2, 3)
    assert augment.symmetries(trained_with("released", augment=False), 4, 4) == (0,)
    image = np.arange(12).reshape(3, 4, 1)
    versions = augment.symmetries(trained_with("upright"), 3, 4)
    first, second = (augment.symmetry(image, i) for i in versions)
    np.testing.assert_array_equal(first, image)
    np.testing.assert_array_equal(second, image[:, ::-1])  # the skin stays above


def upright_draws(count):
    """What `upright` did for some keys, found out from its results alone.

    Returns: ``(count, 2, 2)`` matrices from offsets in the output to offsets in the input, and
    ``(count,)`` gamma and gain.
    """
    height, width = 61, 47
    low, high = 40.0, 120.0  # never cut off
    image = np.broadcast_to(np.float32([low, high]), (height, width, 2))
    number = numbered(height, width).astype(np.float32)
    change = jax.jit(jax.vmap(augment.upright, in_axes=(0, None, None)))
    new_image, new_number = map(
        np.asarray, change(jax.random.split(jax.random.key(11), count), image, number)
    )
    matrices, tones = [], []
    offsets = np.stack(np.indices((height, width)), -1) - (np.array([height, width]) - 1) / 2
    for pixels, numbers in zip(new_image, new_number[..., 0], strict=True):
        inside = numbers > 0
        source = numbers[inside].astype(int) - 1
        read = offsets[source // width, source % width]
        matrices.append(np.linalg.lstsq(offsets[inside], read, rcond=None)[0].T)
        tones.append(pixels[inside][0])
    tones = np.array(tones, float)
    gamma = np.log(tones[:, 1] / tones[:, 0]) / np.log(high / low)
    gain = tones[:, 0] / 255 / (low / 255) ** gamma
    return np.array(matrices), gamma, gain


def test_upright_draws_are_in_their_ranges_and_uniform():
    count = 600
    matrices, gamma, gain = upright_draws(count)
    mirrored = np.linalg.det(matrices) < 0
    assert scipy.stats.binomtest(int(mirrored.sum()), count).pvalue > 1e-3
    unmirrored = np.where(mirrored[:, None, None], matrices @ np.diag([1.0, -1.0]), matrices)
    zoom = np.sqrt(np.linalg.det(unmirrored))
    degrees = np.rad2deg(np.arctan2(-unmirrored[:, 0, 1], unmirrored[:, 0, 0]))
    draws = [degrees / 15, np.log(zoom) / 0.15, np.log(gamma) / 0.35, np.log(gain) / 0.2]
    for draw in draws:
        # Read off whole pixels, so not exact at the ends.
        assert np.abs(draw).max() < 1.03
        assert scipy.stats.kstest((draw + 1) / 2, "uniform").pvalue > 1e-3
    correlation = np.corrcoef([*draws, mirrored])
    assert np.abs(correlation - np.eye(5)).max() < 4 / np.sqrt(count)
    # A zoomed rotation, nothing else: its columns are at right angles and of one length.
    square = np.einsum("nji,njk->nik", matrices, matrices) / zoom[:, None, None] ** 2
    np.testing.assert_allclose(square, np.broadcast_to(np.eye(2), square.shape), atol=0.02)


@pytest.mark.parametrize("fill", augment.FILLS)
def test_upright_turns_the_mask_with_its_image_and_leaves_its_values(fill):
    rng = np.random.default_rng(0)
    mask = (rng.random((22, 31, 1)) < 0.4).astype(np.float32)
    image = np.where(mask > 0, 200, 10).astype(np.float32)
    upright = jax.jit(augment.upright, static_argnames="fill")
    for seed in range(5):
        new_image, new_mask = map(np.asarray, upright(jax.random.key(seed), image, mask, fill=fill))
        assert new_image.dtype == new_mask.dtype == np.float32
        assert set(np.unique(new_mask)) <= {0, 1}
        assert new_mask.any()
        values = np.unique(new_image[new_mask > 0])
        assert len(values) == 1  # every lesion pixel was one, and got the same tone
        assert (new_image[new_mask == 0] < values).all()
        outside = (new_image == 0).mean()
        assert outside == 0 if fill == "reflect" else outside < 0.5
    _, empty = upright(jax.random.key(0), image, np.zeros_like(mask), fill=fill)
    assert not np.asarray(empty).any()


def test_upright_keeps_black_black_and_white_within_range():
    image = np.zeros((8, 12, 1), np.float32)
    image[4:] = 255
    keys = jax.random.split(jax.random.key(1), 50)
    found, _ = jax.jit(jax.vmap(augment.upright, in_axes=(0, None, None)))(keys, image, image)
    assert float(found.min()) == 0
    assert float(found.max()) == 255


def varied_draws(count, image, mask, fill="zero"):
    keys = jax.random.split(jax.random.key(3), count)
    return jax.jit(jax.vmap(lambda key: augment.varied(key, image, mask, fill=fill)))(keys)


def test_varied_moves_the_mask_with_its_image():
    """A bright disc on black: the centre of what is bright is the centre of the mask."""
    row, col = np.mgrid[:48, :64]
    disc = ((row - 20) ** 2 + (col - 36) ** 2 < 64)[..., None]
    image, mask = jnp.asarray(disc * 200.0), jnp.asarray(disc * 1.0)
    images, masks = varied_draws(64, image, mask)
    assert images.shape == (64, 48, 64, 1) and masks.shape == images.shape
    assert set(np.unique(masks)) <= {0.0, 1.0}
    for bright, found in zip(np.asarray(images), np.asarray(masks), strict=True):
        bright = bright[..., 0] > 0.5 * bright.max()
        overlap = (bright & (found[..., 0] > 0)).sum() / (bright | (found[..., 0] > 0)).sum()
        assert overlap > 0.75
    centres = [np.argwhere(found[..., 0]).mean(axis=0) for found in np.asarray(masks)]
    spread = np.ptp(centres, axis=0)
    assert spread[0] > 5 and spread[1] > 10  # shifted, and mirrored
    sizes = np.asarray(masks).sum(axis=(1, 2, 3)) / disc.sum()
    assert sizes.min() < 0.85 and sizes.max() > 1.15  # zoomed


@pytest.mark.parametrize("fill", augment.FILLS)
def test_varied_keeps_the_range_and_an_empty_mask(fill):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (32, 48, 1)), jnp.float32)
    images, masks = varied_draws(16, image, jnp.zeros((32, 48, 1)), fill)
    assert images.min() >= 0 and images.max() <= 255
    assert not np.any(masks)
    assert len({float(each.mean()) for each in images}) == 16


def test_varied_geometry_is_in_its_ranges_and_uniform():
    """Found out from a mask of numbers; the warp is what a matrix and a shift leave unexplained."""
    height, width, count = 64, 48, 400
    number = numbered(height, width).astype(np.float32)
    _, found = varied_draws(count, jnp.zeros((height, width, 1)), jnp.asarray(number))
    offsets = np.stack(np.indices((height, width)), -1) - (np.array([height, width]) - 1) / 2
    fits, left = [], []
    for numbers in np.asarray(found)[..., 0]:
        inside = numbers > 0
        source = numbers[inside].astype(int) - 1
        read = offsets[source // width, source % width]
        known = np.column_stack([offsets[inside], np.ones(inside.sum())])
        fit = np.linalg.lstsq(known, read, rcond=None)[0]
        fits.append(fit.T)
        left.append((read - known @ fit).std())
    fits = np.array(fits)
    matrices, shift = fits[..., :2], fits[..., 2] / [height, width]
    mirrored = np.linalg.det(matrices) < 0
    assert scipy.stats.binomtest(int(mirrored.sum()), count).pvalue > 1e-3
    unmirrored = np.where(mirrored[:, None, None], matrices @ np.diag([1.0, -1.0]), matrices)
    degrees = np.rad2deg(np.arctan2(-unmirrored[:, 0, 1], unmirrored[:, 0, 0]))
    zoom = np.sqrt(np.linalg.det(unmirrored))
    draws = [degrees / 15, np.log(zoom) / 0.22, shift[:, 0] / 0.08, shift[:, 1] / 0.08]
    for draw in draws:  # the warp turns, zooms and shifts a little as well
        assert np.quantile(np.abs(draw), 0.9) == pytest.approx(0.9, abs=0.07)
        assert scipy.stats.kstest((draw + 1) / 2, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 4 / np.sqrt(count)
    # Nodes deviate by 0.72 pixels; between them linear interpolation leaves 4/9 of the variance,
    # a matrix explains 6 of 72 numbers, and reading whole pixels adds 1/12.
    expected = np.sqrt(0.72**2 * 4 / 9 * 66 / 72 + 1 / 12)
    assert np.mean(left) == pytest.approx(expected, rel=0.12)


def test_varied_tones_noise_and_speckle_are_in_their_ranges():
    """On grey of one value contrast and blur do nothing, and the noise is told from the speckle."""
    count, grey = 300, 120.0
    flat, _ = varied_draws(count, jnp.full((32, 48, 1), grey), jnp.zeros((32, 48, 1)), "reflect")
    flat = np.asarray(flat, np.float64)
    tone, spread = flat.mean(axis=(1, 2, 3)), flat.std(axis=(1, 2, 3))
    # Gain · (grey / 255)^gamma, each uniform in its logarithm.
    rng = np.random.default_rng(0)
    gain, gamma = np.exp(rng.uniform(-1, 1, (2, 20000)) * [[0.2], [0.35]])
    assert scipy.stats.ks_2samp(tone, 255 * gain * (grey / 255) ** gamma).pvalue > 1e-3
    # Var = σ² (tone² + 6²); σ uniform in 0 to 0.15.
    clear = flat.max(axis=(1, 2, 3)) < 255  # where nothing is cut off
    sigma = (spread / np.hypot(tone, 6))[clear]
    assert sigma.max() < 0.155
    assert scipy.stats.kstest(sigma / 0.15, "uniform").pvalue > 1e-3
    black, _ = varied_draws(count, jnp.zeros((32, 48, 1)), jnp.zeros((32, 48, 1)))
    sigma = np.asarray(black).mean(axis=(1, 2, 3)) * np.sqrt(2 * np.pi) / 6  # half of it is cut off
    assert scipy.stats.kstest(sigma / 0.15, "uniform").pvalue > 1e-3


def test_varied_contrast_and_blur():
    """On two greys: the ratio of their distance to the mean, and how wide the edge between is."""
    count, low, high = 400, 90.0, 130.0
    image = np.full((48, 64, 1), low, np.float32)
    image[24:] = high
    found, mask = varied_draws(
        count, jnp.asarray(image), jnp.asarray((image == high).astype(np.float32)), "reflect"
    )
    found, upper = np.asarray(found, np.float64)[..., 0], np.asarray(mask)[..., 0] > 0
    spread, blurred = [], 0
    for pixels, above in zip(found, upper, strict=True):
        inner = scipy.ndimage.binary_erosion(above, iterations=3)
        outer = scipy.ndimage.binary_erosion(~above, iterations=3)
        spread.append(pixels[inner].mean() / pixels[outer].mean())
        # Pixels beside the mask have 1/8 of the other side, read between pixels; the blur makes
        # that (2 · 1/8 + 7/8 + 0) / 4.
        beside = scipy.ndimage.binary_dilation(above) & ~above
        share = (pixels[beside].mean() - pixels[outer].mean()) / (
            pixels[inner].mean() - pixels[outer].mean()
        )
        blurred += share > 0.2
    rng = np.random.default_rng(0)
    gamma, contrast = np.exp(rng.uniform(-1, 1, (2, 20000)) * [[0.35], [0.285]])
    tones = (np.array([[low], [high]]) / 255) ** gamma
    middle = tones.mean(axis=0)
    stretched = middle + (tones - middle) * contrast
    exponent, expected = (
        np.log(np.log(ratio) / np.log(high / low))
        for ratio in (spread, stretched[1] / stretched[0])
    )
    assert scipy.stats.ks_2samp(exponent, expected).pvalue > 1e-3
    assert exponent.std() == pytest.approx(expected.std(), rel=0.1)
    assert 0.2 < blurred / count < 0.4


def test_bilinear_reading_equals_scipy():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(9, 14, 1)).astype(np.float32)
    source = np.stack([rng.uniform(0, 8, (9, 14)), rng.uniform(0, 13, (9, 14))]).astype(np.float32)
    found = augment._read_bilinear(jnp.asarray(image), jnp.asarray(source), "reflect")
    expected = scipy.ndimage.map_coordinates(image[..., 0], source, order=1, mode="reflect")
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-5)


def test_the_blur_is_binomial():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(7, 11, 1)).astype(np.float32)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = scipy.ndimage.convolve(image[..., 0], kernel, mode="nearest")
    np.testing.assert_allclose(augment._blurred(jnp.asarray(image))[..., 0], expected, atol=1e-5)


def test_tilted_draws_are_in_their_ranges_and_uniform():
    """Read off the image: bilinear reading gives back rows and columns themselves."""
    count, height, width = 600, 61, 47
    offsets = np.stack(np.indices((height, width)), -1) - (np.array([height, width]) - 1) / 2
    image = np.concatenate([offsets, np.ones((height, width, 1))], -1).astype(np.float32)
    keys = jax.random.split(jax.random.key(5), count)
    found, _ = jax.jit(jax.vmap(augment.tilted, in_axes=(0, None, None)))(keys, image, image)
    inner = np.hypot(*np.moveaxis(offsets, -1, 0)) < 20  # never leaves the image
    pixels = np.asarray(found)[:, inner]
    assert np.all(pixels[..., 2] > 0.999)
    matrices = np.stack(
        [np.linalg.lstsq(offsets[inner], p[:, :2], rcond=None)[0].T for p in pixels]
    )
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", matrices, matrices), np.broadcast_to(np.eye(2), (count, 2, 2)),
        atol=1e-4,
    )  # fmt: skip
    rows, cols = matrices[:, 0, 0] < 0, matrices[:, 1, 1] < 0
    for flips in (rows, cols):
        assert scipy.stats.binomtest(int(flips.sum()), count, 0.6).pvalue > 1e-3
    degrees = np.rad2deg(np.arcsin(np.where(cols, -1, 1) * matrices[:, 1, 0]))
    assert scipy.stats.kstest((degrees + 30) / 60, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef([rows, cols, degrees]) - np.eye(3)).max() < 4 / np.sqrt(count)


def test_tilted_reads_the_image_between_pixels_and_the_mask_at_them():
    """Equal to SciPy with the drawn matrix; a mask stays 0 or 1, an empty one empty."""
    rng = np.random.default_rng(4)
    image = rng.uniform(0, 255, (20, 29, 1)).astype(np.float32)
    mask = (image > 128).astype(np.float32)
    tilted = jax.jit(augment.tilted)
    for seed in range(4):
        found, found_mask = map(np.asarray, tilted(jax.random.key(seed), image, mask))
        flip_key, angle_key = jax.random.split(jax.random.key(seed))
        flips = np.where(jax.random.bernoulli(flip_key, 0.6, (2,)), -1, 1)
        angle = float(jax.random.uniform(angle_key, (), minval=-np.pi / 6, maxval=np.pi / 6))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix, centre = flips[:, None] * turn, np.array([9.5, 14.0])
        expected = scipy.ndimage.affine_transform(
            np.pad(image[..., 0], 1), matrix, centre + 1 - matrix @ centre, (20, 29), order=1
        )
        np.testing.assert_allclose(found[..., 0], expected, atol=5e-3)
        assert set(np.unique(found_mask)) == {0, 1}
        assert 0.2 < found_mask.mean() < 0.6
        assert not np.any(tilted(jax.random.key(seed), image, 0 * mask)[1])


def test_tilted_images_are_predicted_in_all_flips_and_no_quarter_turns():
    assert augment.symmetries(trained_with("tilted"), 4, 4) == (0, 1, 2, 3)
