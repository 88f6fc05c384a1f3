"""`mtbus check`: what it says about a folder with known faults, and what it writes."""

import csv

import numpy as np
import pytest
from PIL import Image

from mtbus_jax.check import command, look
from mtbus_jax.errors import UserError
from tfds_busi import own

SHAPE = (60, 90)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes; an empty mask, one at the border, a cut file, a copy, a tiny lesion."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(9):
        rng = np.random.default_rng(i)
        small = Image.fromarray(rng.integers(0, 255, (12, 18)).astype(np.uint8))
        picture = np.asarray(small.resize((SHAPE[1] * 4, SHAPE[0] * 4), Image.Resampling.BICUBIC))
        mask = np.zeros(picture.shape, np.uint8)
        kind = ("benign", "malignant", "normal")[i % 3]
        if kind != "normal" and i != 3:
            mask[80:140, (0 if i == 1 else 40) : 120] = 255
        if i == 4:
            mask[:], mask[100, 100] = 0, 255
        save(root / kind / f"p{i}.png", picture)
        save(root / kind / f"p{i}_mask.png", mask)
        if i == 0:
            save(root / "malignant" / "copy.png", picture)
            save(root / "malignant" / "copy_mask.png", mask)
    (root / "normal" / "cut.png").write_bytes((root / "normal" / "p2.png").read_bytes()[:500])
    (root / "normal" / "odd <b>.png").write_bytes(b"no picture")
    return root


def test_what_stands_out_is_said(folder):
    checked = look.check(folder)
    assert (len(checked.seen), len(checked.usable)) == (12, 10)
    by_uid = {each.uid: each for each in checked.seen}
    assert by_uid["malignant/p1"].border
    assert by_uid["benign/p3"].lesion == 0
    assert by_uid["benign/p0"].lesion == 60 * 80
    assert by_uid["malignant/p4"].notes == ("the lesion has 1 pixels only",)
    assert by_uid["normal/cut"].problem
    assert ["benign/p0", "malignant/copy"] in checked.duplicates
    said = " ".join(look.warnings(checked))
    for words in (
        "2 of 12 pictures cannot be used",
        "fewer than 20 pictures of benign, malignant, normal",
        "1 masks are empty although the class means a lesion",
        "are near-duplicates of others",
        "1 of them with more than one class",
    ):
        assert words in said


def test_the_command_writes_a_sheet_and_a_table(folder, tmp_path, capsys):
    out = tmp_path / "checked"
    code = command.main([f"--input={folder}", f"--out={out}", "--no_duplicates"])
    assert code == 2  # two pictures cannot be used
    shown = capsys.readouterr().out
    assert "benign: 3 pictures, 2 with a lesion drawn, 1 with an empty mask" in shown
    assert "height 240 to 240 pixels, width 360 to 360" in shown
    assert "masks that touch the border: 1" in shown
    assert "Near-duplicates were not looked for (--no_duplicates)." in shown
    with (out / "images.csv").open(newline="") as file:
        rows = {row["uid"]: row for row in csv.DictReader(file)}
    assert len(rows) == 12
    assert (rows["benign/p0"]["height"], rows["benign/p0"]["lesion_pixels"]) == ("240", "4800")
    page = (out / "check.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 10
    assert "odd &lt;b&gt;" in page
    assert "<b>.png" not in page
    assert "Research software, not a medical device" in page


def test_it_says_what_the_search_for_copies_needs(folder, monkeypatch, recwarn):
    monkeypatch.setattr(own, "_NEEDED", ("no_such_package",))
    checked = look.check(folder)
    (said,) = [line for line in look.warnings(checked) if "Near-duplicates" in line]
    assert "pip install -e '.[curate]'" in said
    assert not recwarn.list  # it is said once


def test_an_output_among_the_pictures_is_refused(folder):
    with pytest.raises(UserError, match="lies in --input"):
        command.main([f"--input={folder}", f"--out={folder / 'checked'}"])


def test_a_thumbnail_has_the_outline_and_no_more_pixels_than_asked_for():
    mask = np.zeros((400, 200), bool)
    mask[100:300, 50:150] = True
    small = look.thumbnail(np.full((400, 200), 100, np.uint8), mask)
    assert small.shape == (160, 80, 3)
    assert tuple(small[40, 40]) == (240, 228, 66)
    assert tuple(small[80, 40]) == (100, 100, 100)
