"""Marks that are drawn on are found, and phantoms without any raise few alarms."""

import numpy as np
import pytest
from curation_phantoms import phantoms
from PIL import Image, ImageDraw

from mtbus_jax.curate.marks import Marks, association, count_by_class, find_marks


def drawn(draw):
    """The first phantom, darkened so that marks are visible, with something drawn on it."""
    picture = Image.fromarray(phantoms()[0].image // 2)
    draw(ImageDraw.Draw(picture))
    return np.array(picture)


def cross(canvas, row, col, arm=6):
    canvas.line([(col - arm, row), (col + arm, row)], fill=230)
    canvas.line([(col, row - arm), (col, row + arm)], fill=230)


def test_calipers():
    def draw(canvas):
        for row, col in ((40, 60), (90, 160), (120, 55)):
            cross(canvas, row, col)

    found = find_marks(drawn(draw), None)
    assert found.calipers == 3 and found.flags == (True, False, False)


def test_bars_and_dots_are_no_crosses():
    def draw(canvas):
        canvas.line([(20, 50), (90, 50)], fill=230)
        canvas.line([(120, 20), (120, 90)], fill=230)
        canvas.rectangle([(40, 90), (46, 96)], fill=230)

    assert find_marks(drawn(draw), None).calipers == 0


def test_text():
    found = find_marks(drawn(lambda canvas: canvas.text((30, 90), "RT AXILLA 12", fill=240)), None)
    assert found.text >= 5 and found.calipers == 0


def test_colour_is_not_a_tint():
    grey = phantoms()[0].image
    tinted = np.stack([grey, grey, np.minimum(255, grey.astype(int) + 20)], -1).astype(np.uint8)
    assert not find_marks(grey, tinted).flags[2]
    doppler = np.repeat(grey[..., None], 3, 2)
    doppler[40:60, 50:80] = 220, 30, 10
    found = find_marks(grey, doppler)
    assert found.colour == pytest.approx(600 / grey.size) and found.flags[2]


def test_phantoms_raise_few_false_alarms():
    alarms = [phantom.uid for phantom in phantoms() if find_marks(phantom.image, None).any]
    assert len(alarms) <= 3, alarms


def test_counts_and_association_by_hand():
    marks = [Marks(1), Marks(0, 4), Marks(), Marks(), Marks(2, 3), Marks()]
    label = ["benign"] * 3 + ["normal"] * 3
    assert count_by_class(marks, label) == [
        ("benign", 3, "1 (33.3 %)", "1 (33.3 %)", "0 (0.0 %)", "2 (66.7 %)"),
        ("normal", 3, "1 (33.3 %)", "1 (33.3 %)", "0 (0.0 %)", "1 (33.3 %)"),
    ]
    assert "no clear difference" in association(marks, label)
    many = [Marks(1)] * 40 + [Marks()] * 40
    assert "p < 0.0001" in association(many, ["benign"] * 40 + ["normal"] * 40)
    assert "nothing to test" in association(marks, ["benign"] * 6)
