"""Folders as LabelMe leaves them, and the simulated folder of docs/own_data.md."""

import base64
import io
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
            {
                "label": label,
                "points": points,
                "group_id": None,
                "description": "",
                "shape_type": kind,
                "flags": {},
                "mask": mask[0] if mask else None,
            }
            for label, kind, points, *mask in shapes
        ],
        "imagePath": path.with_suffix(".png").name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps(content))


def painted(mask, *, mode="1"):
    """The field of a shape of the type mask: a PNG file in base64, of one bit a pixel."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


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


def test_tables_beside_give_groups_and_folds(folder):
    rows = ["image,patient,fold,label", "a.png,p1,0,x", "b,p1,0,x", "c,p2,1,x", "d,p2,1,x"]
    (folder / "labels.csv").write_text("\n".join(rows))
    found = layouts.read(folder)
    assert [(e.uid, e.label, e.group, e.test_fold) for e in found.entries] == [
        ("c", "", "p2", 1),
        ("d", "", "p2", 1),
        ("a", "benign", "p1", 0),
        ("b", "malignant", "p1", 0),
    ]
    assert found.notes == ["of labels.csv, these columns are kept and not used: label."]


def test_outlines_in_class_folders_are_masks(folder):
    for name, of_class in (("a", "x"), ("c", "x"), ("b", "y"), ("d", "y")):
        (folder / "in" / of_class).mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{name}.*"):
            path.rename(folder / "in" / of_class / path.name)
    found = layouts.read(folder / "in")
    by_name = {entry.uid: entry for entry in found.entries}
    assert own.decode(by_name["x/a"]).mask[5:25, 10:30].all()
    assert by_name["x/c"].masks == () and by_name["y/d"].masks is None
    assert "masks beside the images" in found.layout and found.notes == []


def test_outlines_among_images_are_masks(folder):
    (folder / "images").mkdir()
    for path in [*folder.glob("*.png"), *folder.glob("*.json")]:
        path.rename(folder / "images" / path.name)
    rows = ["image,label", "a,x", "b,y", "c,x", "d,y"]
    (folder / "labels.csv").write_text("\n".join(rows))
    found = layouts.read(folder)
    assert found.layout == "pictures in images with files of LabelMe with labels.csv"
    masks = {entry.uid: entry.masks for entry in found.entries}
    assert masks["a"][0].name == "a.json" and masks["c"] == () and masks["d"] is None
    assert found.notes == []


def test_files_of_labelme_with_flags_alone_say_nothing_of_masks(folder):
    for name, of_class in (("a", "x"), ("b", "y")):
        (folder / "in" / of_class).mkdir(parents=True)
        (folder / f"{name}.png").rename(folder / "in" / of_class / f"{name}.png")
        outlines(folder / "in" / of_class / f"{name}.json")
    found = layouts.read(folder / "in")
    assert all(entry.masks is None for entry in found.entries)
    assert "no masks, so for classification alone" in found.layout


@pytest.mark.parametrize("mode", ["1", "L"])
def test_painted_masks_lie_where_they_were_painted(folder, mode):
    """Version 5.2 and later paint, and propose by a network, masks; their corners are included."""
    part = np.random.default_rng(0).random((7, 11)) > 0.4
    shape = ("benign", "mask", [[20, 12], [30, 18]], painted(part, mode=mode))
    outlines(folder / "a.json", shape, ("benign", "polygon", [[1, 1], [4, 1], [4, 3], [1, 3]]))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[12:19, 20:31] = part
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(labelme.read(folder / "a.json").mask, expected)


def test_turned_rectangles_are_their_four_corners(folder):
    """A square that stands on a corner: all pixels whose centre is less than 10 from its middle."""
    corners = [[30, 10], [40, 20], [30, 30], [20, 20]]
    outlines(folder / "a.json", ("benign", "oriented_rectangle", corners))
    row, col = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = abs(row - 20) + abs(col - 30)
    found = labelme.read(folder / "a.json").mask
    assert found[distance < 10].all() and not found[distance > 10].any()


def test_pictures_within_the_file_change_nothing(folder):
    before = labelme.read(folder / "a.json")
    content = json.loads((folder / "a.json").read_text())
    content["imageData"] = base64.b64encode((folder / "a.png").read_bytes()).decode("ascii")
    (folder / "a.json").write_text(json.dumps(content, ensure_ascii=False, indent=2))
    after = labelme.read(folder / "a.json")
    assert after.labels == before.labels
    np.testing.assert_array_equal(after.mask, before.mask)


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
        (("benign", "polygon", BOX[:2]), "has no inside"),
        (("benign", "polygon", [[0, 0], [float("nan"), 1], [2, 2]]), "not a number"),
        (("benign", "polygon", [["x", 0], [1, 1], [2, 2]]), "ValueError"),
        (("benign", "mask", [[0, 0], [2, 2]]), "TypeError"),
        (("benign", "mask", [[0, 0], [2, 2]], "no base64"), "Error"),
        (("benign", "mask", [[0, 0], [2, 2]], "iVBORw0KGgo="), "UnidentifiedImageError"),
        (("benign", "mask", [[55, 0], [62, 4]], painted(np.ones((5, 8)))), "in the picture"),
        (("benign", "mask", [[-1, 0], [2, 2]], painted(np.ones((3, 4)))), "in the picture"),
        (("benign", "mask", [[0, 0], [60, 1]], painted(np.ones((2, 61)))), "larger than"),
    ],
)
def test_a_shape_without_an_inside_is_refused_by_file(folder, shape, words):
    outlines(folder / "a.json", shape)
    with pytest.raises(UserError, match=r"a\.json is not a file of LabelMe") as caught:
        layouts.read(folder)
    assert words in str(caught.value)


def test_lines_and_points_are_no_outlines(folder):
    caliper, landmark = ("caliper", "line", BOX[:2]), ("nipple", "point", BOX[:1])
    outlines(folder / "a.json", ("benign", "polygon", BOX), caliper, landmark)
    outlines(folder / "c.json", caliper)
    by_name = {entry.uid: entry for entry in layouts.read(folder).entries}
    assert by_name["a"].label == "benign"
    found = own.decode(by_name["a"])
    assert found.mask.sum() == 400
    assert found.doubts == ["a.json has lines or points (2), not used"]
    assert by_name["c"].masks is None  # not known: somebody measured and outlined nothing
    assert labelme.labels(folder / "a.json") == ["benign"]
    assert labelme.labels(folder / "c.json") is None


@pytest.mark.parametrize("size", [(float("inf"), WIDTH), (10**9, 10**9), (-1, WIDTH)])
def test_impossible_sizes_are_refused_by_file(folder, size):
    outlines(folder / "a.json", size=size)
    with pytest.raises(UserError, match=r"a\.json is not a file of LabelMe"):
        layouts.read(folder)


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
    exec(code.replace("make_phantoms(60)", "make_phantoms(15)"), {})
    found = layouts.read(tmp_path / "pictures")
    assert len(found.entries) == 15  # fewer, to be made sooner
    assert found.classes == types.CLASSES
    masks = [own.decode(entry).mask.any() for entry in found.entries]
    labels = [entry.label for entry in found.entries]
    assert [label != "normal" for label in labels] == masks
