"""Overlays, checked pixel by pixel against scikit-image's outlines and the mixing formula."""

import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from mtbus_jax.images import overlay

HEIGHT, WIDTH = 330, 420  # drawn as large as they are
COLOUR = (230, 120, 0)


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)


@pytest.fixture
def mask():
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows - 120) / 50) ** 2 + ((cols - 200) / 90) ** 2 < 1


def test_picture_tint_and_outline(grey, mask):
    drawn = overlay.draw(grey, mask, ["malignant"], colour=COLOUR)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (WIDTH, 3)
    picture = drawn[:HEIGHT]
    outline = find_boundaries(mask, connectivity=1, mode="inner")
    inside = mask & ~outline
    np.testing.assert_array_equal(picture[~mask], np.repeat(grey[~mask][:, None], 3, 1))
    np.testing.assert_array_equal(picture[outline], np.broadcast_to(COLOUR, (outline.sum(), 3)))
    mixed = 0.78 * grey[inside][:, None] + 0.22 * np.array(COLOUR)
    np.testing.assert_allclose(picture[inside], mixed, atol=0.51)


def test_no_text_covers_the_picture(grey, mask):
    few = overlay.draw(grey, mask, ["benign"])
    many = overlay.draw(grey, mask, ["benign", "lesion 12 px", "a third line"])
    np.testing.assert_array_equal(few[:HEIGHT], many[:HEIGHT])
    assert len(many) > len(few) > HEIGHT
    # There is text: something else than the ground in the strip.
    assert len(np.unique(few[HEIGHT:].reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("empty", [None, np.zeros((HEIGHT, WIDTH), bool)])
def test_nothing_is_drawn_without_a_lesion(grey, empty):
    drawn = overlay.draw(grey, empty, ["normal"], colour=COLOUR)
    np.testing.assert_array_equal(drawn[:HEIGHT], np.repeat(grey[..., None], 3, -1))


def test_a_mask_that_fills_the_picture_is_outlined_at_its_edge(grey):
    drawn = overlay.draw(grey, np.ones_like(grey, bool), [], colour=COLOUR)
    for edge in (drawn[0], drawn[HEIGHT - 1], drawn[:HEIGHT, 0], drawn[:HEIGHT, -1]):
        assert (edge == COLOUR).all()


def test_a_mask_that_was_taken_back_is_dashed(grey, mask):
    plain = np.repeat(grey[..., None], 3, -1)
    drawn = overlay.draw(grey, np.zeros_like(mask), [], removed=mask)[:HEIGHT]
    changed = (drawn != plain).any(-1)
    outline = find_boundaries(mask, connectivity=1, mode="inner")
    assert not (changed & ~outline).any()
    assert 0.3 < (changed & outline).sum() / outline.sum() < 0.7
    # With a mask that stays there is no other.
    kept = overlay.draw(grey, mask, [], removed=np.ones_like(mask), colour=COLOUR)
    np.testing.assert_array_equal(kept, overlay.draw(grey, mask, [], colour=COLOUR))


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [((16, 40), (128, 320)), ((4000, 2000), (1600, 800)), ((2000, 100), (1600, 80))],
)
def test_very_small_and_very_large_pictures(size, drawn_size):
    grey = np.zeros(size, np.uint8)
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    drawn = overlay.draw(grey, mask, ["malignant (benign 0.20, malignant 0.70)"], colour=COLOUR)
    assert drawn.shape[1] == drawn_size[1]
    picture = drawn[: drawn_size[0]]
    coloured = (picture > 0).any(-1)
    assert coloured.mean() == pytest.approx(mask.mean(), rel=0.05)
    rows = np.flatnonzero(coloured.any(1))
    assert rows[0] == pytest.approx(drawn_size[0] / 4, abs=2)
    assert (drawn[drawn_size[0] :] != 24).any()


def test_long_lines_are_broken_and_kept_inside(grey):
    words = [f"word{i}" for i in range(60)]
    drawn = overlay.draw(grey, None, [" ".join(words)])
    strip = drawn[HEIGHT:]
    assert (strip[:, -3:] == strip[0, -1]).all()
    assert len(strip) > len(overlay.draw(grey, None, ["word0"])) - HEIGHT + 40


def test_colours_of_the_classes_differ():
    assert len({*overlay.COLOURS.values(), overlay.NO_CLASS}) == 4


class TestAtOwnSize:
    """Drawn for an archive: nothing is enlarged, and nothing but the outline covers the picture."""

    @pytest.mark.parametrize("shape", [(40, 90), (2000, 450)])
    def test_pixel_lies_on_pixel(self, shape):
        grey = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        mask = np.zeros(shape, bool)
        mask[10:30, 20:60] = True
        drawn = overlay.outlined(grey, mask, ["malignant"], colour=COLOUR)
        assert drawn.shape[1] == max(320, shape[1])  # wide enough to be read
        picture = drawn[: shape[0], : shape[1]]
        changed = (picture != grey[..., None]).any(axis=-1)
        thickness = max(1, round(max(shape) / 300))
        inner = mask.copy()
        inner[10 : 10 + thickness] = inner[30 - thickness : 30] = False
        inner[:, 20 : 20 + thickness] = inner[:, 60 - thickness : 60] = False
        np.testing.assert_array_equal(changed, mask & ~inner)
        assert (picture[changed] == COLOUR).all()
        beside = drawn[: shape[0], shape[1] :]
        assert beside.size == 0 or np.ptp(beside) == 0

    def test_a_mask_that_was_taken_back_is_dashed(self, grey, mask):
        empty = np.zeros_like(mask)
        drawn = overlay.outlined(grey, empty, ["normal"], removed=mask)[:HEIGHT]
        outline = find_boundaries(mask, connectivity=1, mode="inner")
        white = (drawn == 255).all(axis=-1) & (grey != 255)
        assert 0 < white.sum() < outline.sum()
        assert not (white & ~outline).any()

    def test_without_a_mask(self, grey):
        for mask in (None, np.zeros(grey.shape, bool)):
            drawn = overlay.outlined(grey, mask, [])
            np.testing.assert_array_equal(drawn[:HEIGHT], np.repeat(grey[..., None], 3, -1))
