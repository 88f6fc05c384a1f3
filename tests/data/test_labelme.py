"""Folders as LabelMe leaves them, and the simulated folder of docs/own_data.md."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from mtbus_jax import types
from mtbus_jax.errors import UserError
from tfds_busi import labelme, layouts, own

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 40, 60


def picture(path):
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(path)


def outlines(path, *shapes, size=(HEIGHT, WIDTH)):
    """As version 5 writes it; points are (column, row)."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}
            for label, kind, points in shapes
        ],
        "imagePath": path.with_suffix(".png").name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps(content))


BOX = [[10, 5], [30, 5], [30, 25], [10, 25]]  # columns 10 to 29, rows 5 to 24


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    outlines(tmp_path / "a.json", ("benign", "polygon", BOX))
    two = (
        ("malignant", "rectangle", [[2, 2], [6, 4]]),
        ("malignant", "circle", [[40, 20], [40, 25]]),
    )
    outlines(tmp_path / "b.json", *two)
    outlines(tmp_path / "c.json")
    return tmp_path


def test_classes_and_masks_are_those_of_the_outlines(folder):
    found = layouts.read(folder)
    assert "3 files of LabelMe" in found.layout
    by_name = {entry.uid: entry for entry in found.entries}
    assert [by_name[n].label for n in "abcd"] == ["benign", "malignant", "", ""]
    masks = {name: own.decode(entry).mask for name, entry in by_name.items()}
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:25, 10:30] = True
    np.testing.assert_array_equal(masks["a"], expected)
    assert masks["b"][2:4, 2:6].all() and masks["b"][:10, :20].sum() == 8
    disc = masks["b"][10:].sum()
    assert disc == pytest.approx(np.pi * 5**2, rel=0.05)
    # Saved without an outline: no lesion. Never opened: not known.
    assert by_name["c"].masks == () and by_name["d"].masks is None


def test_two_classes_in_a_picture_are_refused(folder):
    shapes = ("benign", "polygon", BOX), ("malignant", "polygon", BOX)
    outlines(folder / "a.json", *shapes)
    with pytest.raises(UserError, match=r"a\.json has shapes labelled benign and malignant"):
        layouts.read(folder)


def test_outlines_without_their_picture_are_named(folder):
    outlines(folder / "gone.json", ("benign", "polygon", BOX))
    with pytest.raises(UserError, match=r"gone\.json"):
        layouts.read(folder)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("benign", "line", BOX[:2]), "line"),
        (("benign", "polygon", BOX[:2]), "has no inside"),
        (("benign", "polygon", [[0, 0], [float("nan"), 1], [2, 2]]), "no number"),
        (("benign", "polygon", [["x", 0], [1, 1], [2, 2]]), "ValueError"),
    ],
)
def test_a_shape_without_an_inside_is_refused_by_file(folder, shape, words):
    outlines(folder / "a.json", shape)
    with pytest.raises(UserError, match=r"a\.json is no file of LabelMe") as caught:
        layouts.read(folder)
    assert words in str(caught.value)


def test_outlines_of_a_picture_of_another_size_are_refused(folder):
    outlines(folder / "a.json", ("benign", "polygon", BOX), size=(WIDTH, HEIGHT))
    entries = {entry.uid: entry for entry in layouts.read(folder).entries}
    with pytest.raises(UserError, match=r"a\.json has 60 × 40 pixels"):
        own.decode(entries["a"])


def test_other_json_files_are_none_of_labelmes(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    (tmp_path / "cut.json").write_text('{"shapes": [')
    assert not any(map(labelme.is_labelme, tmp_path.iterdir()))


def test_the_simulated_folder_of_the_documentation(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = layouts.read(tmp_path / "pictures")
    assert len(found.entries) == 60
    assert found.classes == types.CLASSES
    masks = [own.decode(entry).mask.any() for entry in found.entries]
    labels = [entry.label for entry in found.entries]
    assert [label != "normal" for label in labels] == masks
