"""The figure of example cases, read back pixel by pixel: colours, places, sizes and texts."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import color
from skimage.feature import match_template

from mtbus_jax.reproduce import figure
from mtbus_jax.reproduce.figure import FigureCase, draw

HEIGHT, WIDTH = 96, 128
FACTOR = 3  # 128 pixels become 384
FONT_SIZE = 29  # of panels 384 pixels wide
GREY = 101

# Okabe and Ito's table, and half of each laid over the grey 101.
GREEN, BLUE, VERMILLION, YELLOW = (0, 158, 115), (0, 114, 178), (213, 94, 0), (240, 228, 66)


def blank():
    return np.zeros((HEIGHT, WIDTH), bool)


def box(top, left, bottom, right):
    mask = blank()
    mask[top:bottom, left:right] = True
    return mask


TRUTH = box(20, 30, 60, 70)
PREDICTION = box(35, 50, 80, 110)


def make_case(*predictions, truth=TRUTH, **changes):
    fields = {
        "uid": "malignant_7",
        "label": "malignant",
        "image": np.full(truth.shape, GREY, np.uint8),
        "truth": truth,
        "predictions": list(predictions),
        "captions": ["malignant, Dice 0.87"] * len(predictions),
    }
    return FigureCase(**(fields | changes))


def find_panels(picture):
    """Row and column slices of the panels, row by row: the large areas that are not white."""
    page = np.asarray(picture)
    areas, _ = ndimage.label((page != 255).any(axis=2))
    found = [s for s in ndimage.find_objects(areas) if (s[0].stop - s[0].start) > 50]
    found = [s for s in found if (s[1].stop - s[1].start) > 50]
    return sorted(found, key=lambda s: (s[0].stop, s[1].start))


def panels_of(picture):
    page = np.asarray(picture).astype(int)
    return [page[place] for place in find_panels(picture)]


def enlarged(mask, factor=FACTOR):
    return np.kron(mask, np.ones((factor, factor))).astype(mask.dtype)


def tint(colour, grey=GREY):
    return (np.array(colour) + grey) / 2


def has_text(picture, text, *, size=FONT_SIZE):
    """Whether a line that reads ``text``, dark on white, stands in the picture."""
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = font.getbbox(text)
    sample = Image.new("L", (round(right - left) + 4, round(bottom - top) + 4), "white")
    ImageDraw.Draw(sample).text((2 - left, 2 - top), text, fill=20, font=font)
    page = np.asarray(picture.convert("L")).astype(float)
    if page.shape[0] < sample.height or page.shape[1] < sample.width:
        return False
    return bool(match_template(page, np.asarray(sample).astype(float)).max() > 0.93)


def test_one_row_per_case_and_one_column_per_configuration():
    picture = draw([make_case(PREDICTION, TRUTH)] * 3, ["one", "other"])
    assert picture.mode == "RGB"
    places = find_panels(picture)
    assert len(places) == 3 * 4
    for rows, cols in places:
        assert (rows.stop - rows.start, cols.stop - cols.start) == (288, 384)
    tops = [[rows.start for rows, _ in places[i : i + 4]] for i in (0, 4, 8)]
    assert all(len(set(row)) == 1 for row in tops)
    for column in range(4):
        assert len({cols.start for _, cols in places[column::4]}) == 1
    starts = [cols.start for _, cols in places[:4]]
    assert all(b - a > 384 for a, b in itertools.pairwise(starts))


def test_a_prediction_shows_its_errors():
    picture = draw([make_case(PREDICTION)], ["UNet"])
    panel = panels_of(picture)[2]
    regions = {
        BLUE: (TRUTH & PREDICTION, (47, 60)),
        VERMILLION: (PREDICTION & ~TRUTH, (70, 90)),
        YELLOW: (TRUTH & ~PREDICTION, (27, 40)),
    }
    for colour, (region, (row, col)) in regions.items():
        assert region[row, col]
        inside = panel[row * FACTOR + 1, col * FACTOR + 1]
        np.testing.assert_allclose(inside, tint(colour), atol=0.5)
        # Each pixel of the region has the colour, full or by half, and no other pixel has it.
        full = (panel == colour).all(axis=2)
        half = (np.abs(panel - tint(colour)) <= 0.5).all(axis=2)
        np.testing.assert_array_equal(full | half, enlarged(region))
        np.testing.assert_array_equal(
            full, full & ~ndimage.binary_erosion(enlarged(region), iterations=2)
        )
        edge = enlarged(region) & ~ndimage.binary_erosion(enlarged(region))
        assert full[edge].all()
    outside = ~enlarged(TRUTH | PREDICTION)
    assert (panel[outside] == GREY).all()


def test_the_truth_has_a_colour_of_its_own():
    image, truth, _ = panels_of(draw([make_case(PREDICTION)], ["UNet"]))
    assert (image == GREY).all()
    np.testing.assert_allclose(truth[40 * FACTOR, 50 * FACTOR], tint(GREEN), atol=0.5)
    np.testing.assert_array_equal(truth[20 * FACTOR, 30 * FACTOR], GREEN)
    np.testing.assert_array_equal((truth != GREY).any(axis=2), enlarged(TRUTH))


def test_an_outline_closes_at_the_frame():
    corner = box(0, 100, 30, WIDTH)
    _, truth = panels_of(draw([make_case(truth=corner)], []))
    for row, col in ((0, 350), (40, 383), (0, 383)):
        np.testing.assert_array_equal(truth[row, col], GREEN)


def test_images_are_enlarged_by_whole_factors_without_interpolation():
    rng = np.random.default_rng(0)
    cases, shapes = [], [(96, 128), (40, 61), (150, 70), (190, 190)]
    for shape in shapes:
        # Not white, for the frame to be found.
        image = rng.integers(0, 250, shape).astype(np.uint8)
        cases.append(make_case(truth=np.zeros(shape, bool), image=image))
    picture = draw(cases, [])
    places = find_panels(picture)
    # The largest shape, 190×190, is doubled; each other as often as it fits in 380×380.
    for case, factor, place, panel in zip(
        cases, (2, 6, 2, 2), places[::2], panels_of(picture)[::2], strict=True
    ):
        expected = enlarged(case.image, factor)
        np.testing.assert_array_equal(panel, np.repeat(expected[..., None], 3, axis=2))
        middle = (places[6][1].start + places[6][1].stop) / 2
        assert abs((place[1].start + place[1].stop) / 2 - middle) <= 1


def test_large_images_keep_their_size():
    shape = (500, 620)
    case = make_case(truth=np.zeros(shape, bool))
    assert [p.shape[:2] for p in panels_of(draw([case], []))] == [shape, shape]


def test_narrow_images_leave_room_for_texts():
    shape = (300, 30)
    picture = draw([make_case(truth=np.zeros(shape, bool))], [])
    meanings = ("ground truth", "true positive", "false positive", "false negative")
    for text in ("Image", "Ground truth", *meanings, "Research software, not a medical device"):
        assert has_text(picture, text, size=18)


def colours_in(panel):
    return {c for c in (BLUE, VERMILLION, YELLOW, GREEN) if (panel == c).all(axis=2).any()}


def test_empty_masks():
    normal = make_case(blank(), PREDICTION, truth=blank(), uid="normal_3", label="normal")
    missed = make_case(blank(), TRUTH)
    picture = draw([normal, missed], ["nothing", "something"])
    found = [colours_in(panel) for panel in panels_of(picture)]
    assert found == [set(), set(), set(), {VERMILLION}, set(), {GREEN}, {YELLOW}, {BLUE}]
    places = find_panels(picture)
    for row, stated in ((0, True), (1, False)):
        rows, cols = places[4 * row + 1]
        below = picture.crop((cols.start, rows.stop, cols.stop, rows.stop + 50))
        assert has_text(below, "no lesion") == stated


def test_texts_stand_where_they_belong():
    first = make_case(TRUTH, TRUTH, captions=["benign, Dice 0.31", "malignant, Dice 0.92"])
    second = make_case(TRUTH, TRUTH, uid="benign_12", label="benign")
    picture = draw([first, second], ["UNet++", "Attention UNet"])
    places = find_panels(picture)
    above = picture.crop((0, 0, picture.width, places[0][0].start))
    for number, title in enumerate(["Image", "Ground truth", "UNet++", "Attention UNet"]):
        cols = places[number][1]
        assert has_text(above.crop((cols.start, 0, cols.stop, above.height)), title)
    for number, caption in ((2, "benign, Dice 0.31"), (3, "malignant, Dice 0.92")):
        rows, cols = places[number]
        below = picture.crop((cols.start, rows.stop, cols.stop, rows.stop + 50))
        assert has_text(below, caption)
    for number, texts in ((0, ("malignant_7", "malignant")), (4, ("benign_12", "benign"))):
        rows, cols = places[number]
        beside = picture.crop((0, rows.start, cols.start, rows.stop)).rotate(-90, expand=True)
        for text in texts:
            assert has_text(beside, text)
        assert not has_text(beside, "normal")


def test_the_legend_explains_every_colour():
    picture = draw([make_case(TRUTH)], ["UNet"])
    below = picture.crop((0, find_panels(picture)[-1][0].stop + 50, picture.width, picture.height))
    meanings = ("ground truth", "true positive", "false positive", "false negative")
    pixels = np.asarray(below).astype(int)
    for colour, meaning in zip((GREEN, BLUE, VERMILLION, YELLOW), meanings, strict=True):
        rows, cols = np.nonzero((pixels == colour).all(axis=2))
        # The meaning stands right of its sample.
        place = (cols.max() + 1, rows.min() - 10, cols.max() + 260, rows.max() + 14)
        assert has_text(below.crop(tuple(map(int, place))), meaning)
    assert has_text(below, "Research software, not a medical device")
    # With room for it, on the line of the samples.
    wide = draw([make_case(*[TRUTH] * 3)], ["a", "b", "c"])
    assert wide.height == picture.height - round(1.05 * (29 + 7))
    below = wide.crop((wide.width // 2, wide.height - 70, wide.width, wide.height))
    assert has_text(below, "Research software, not a medical device")


def test_a_label_longer_than_the_panels_leaves_captions_by_them():
    wide = np.zeros((20, WIDTH), bool)
    picture = draw([make_case(truth=wide, uid="1"), make_case()], [])
    small = find_panels(picture)[1]  # 60 pixels high, the label about 130
    below = (small[1].start, small[0].stop, small[1].stop, small[0].stop + 50)
    assert has_text(picture.crop(below), "no lesion")
    label = (0, small[0].stop - 140, small[1].start, small[0].stop + 10)
    assert has_text(picture.crop(label).rotate(-90, expand=True), "malignant")


LONG = "a caption of many words that no panel is wide enough to hold on a single line"
UNBROKEN = "one_word_without_a_space_that_is_wider_than_a_whole_panel"


def test_long_texts_are_wrapped_and_touch_nothing():
    case = make_case(
        TRUTH, PREDICTION, uid=f"{UNBROKEN}_{UNBROKEN}", captions=[LONG, f"Dice 0.5\n{UNBROKEN}"]
    )
    picture = draw([case, case], [f"title: {LONG}", UNBROKEN])
    page = np.asarray(picture)
    places = find_panels(picture)
    assert len(places) == 8
    for (rows, cols), panel in zip(
        places, panels_of(draw([make_case(TRUTH, PREDICTION)] * 2, ["", ""])), strict=True
    ):
        np.testing.assert_array_equal(page[rows, cols], panel)
    # Margins of the page and the gaps between the columns are free, but for the legend's line.
    ring = np.ones(page.shape[:2], bool)
    ring[8:-8, 8:-8] = False
    assert (page[ring] == 255).all()
    captions_end = places[-1][0].stop + 4 * 38
    for (_, left), (_, right) in itertools.pairwise(places[:4]):
        assert right.start - left.stop > 10
        assert (page[:captions_end, left.stop : right.start] == 255).all()
    # Every word is there.
    cols = places[2][1]
    column = picture.crop((cols.start, places[2][0].stop, cols.stop, places[6][0].start))
    for word in LONG.split():
        assert has_text(column, word)
    rows, cols = places[3]
    column = picture.crop((cols.start, rows.stop, cols.stop, places[7][0].start))
    assert has_text(column, "Dice 0.5")
    assert has_text(column, UNBROKEN[:20])
    assert has_text(column, UNBROKEN[-6:])


def test_the_colours_are_the_safest_three_of_the_palette():
    """Of all threes of Okabe and Ito's, half over greys, for full and dichromatic vision."""
    palette = {
        (230, 159, 0): "orange",
        (86, 180, 233): "sky blue",
        GREEN: "bluish green",
        YELLOW: "yellow",
        BLUE: "blue",
        VERMILLION: "vermillion",
        (204, 121, 167): "reddish purple",
    }
    # Machado, Oliveira and Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia.
    visions = [
        np.eye(3),
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    ]
    nearest = np.full((8, 8), np.inf)
    for grey, vision in itertools.product((20, 60, 110, 160), visions):
        seen = np.array([*(tint(c, grey) for c in palette), [grey] * 3]) / 255
        linear = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.transpose(vision), 0, 1)
        seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        lab = color.rgb2lab(seen)
        nearest = np.minimum(nearest, color.deltaE_ciede2000(lab[:, None], lab[None]))
    worst = {
        frozenset(three): min(nearest[i, j] for i, j in itertools.combinations([*three, 7], 2))
        for three in itertools.combinations(range(7), 3)
    }
    names = list(palette)
    used = (figure.TRUE_POSITIVE, figure.FALSE_POSITIVE, figure.FALSE_NEGATIVE)
    assert max(worst, key=worst.get) == {names.index(colour) for colour in used}
    assert max(worst.values()) > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": np.zeros((WIDTH, HEIGHT), bool)}, r"malignant_7: truth has .* \(128, 96\)"),
        ({"predictions": [TRUTH, TRUTH[1:]]}, r"predictions\[1\] has the shape \(95, 128\)"),
        ({"image": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, r"got the shape \(96, 128, 3\)"),
        ({"image": np.zeros((0, WIDTH), np.uint8)}, "at least one pixel"),
        ({"captions": ["one"]}, "1 captions for 2 predictions"),
        ({"captions": ["Dice", "Dice ≥ 0.5"]}, "ASCII"),
        ({"uid": "lésion"}, "ASCII"),
        ({"uid": " "}, "uid"),
    ],
)
def test_a_case_checks_its_parts(changes, message):
    case = make_case(TRUTH, PREDICTION)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(case, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((HEIGHT, WIDTH))}, "image must be uint8, got float64"),
        ({"truth": TRUTH.astype(np.uint8)}, "truth must be boolean, got uint8"),
        ({"predictions": [TRUTH * 1.0]}, r"predictions\[0\] must be boolean, got float64"),
    ],
)
def test_a_case_checks_its_types(changes, message):
    with pytest.raises(TypeError, match=message):
        make_case(TRUTH, **changes)


def test_draw_checks_its_arguments():
    with pytest.raises(ValueError, match="at least one case"):
        draw([], ["UNet"])
    with pytest.raises(ValueError, match="malignant_7 has 1 predictions for 2 columns"):
        draw([make_case(TRUTH)], ["UNet", "UNet++"])
    with pytest.raises(ValueError, match="ASCII"):
        draw([make_case(TRUTH)], ["UNet³"])
