"""What of a folder of pictures is not used, or may be meant otherwise, is said and not silent."""

import unicodedata

import numpy as np
import openpyxl
import pytest
from PIL import Image

from mtbus_jax import data
from mtbus_jax.check import look
from mtbus_jax.errors import UserError
from mtbus_jax.images import find
from tfds_busi import layouts

SHAPE = (40, 60)


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(1, 255, SHAPE).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[10:20, 10:30] = 255
    Image.fromarray(pixels).save(path)


def table(path, *rows, before=""):
    path.write_text(before + "".join(f"{row}\n" for row in rows), encoding="utf-8")


def two_classes(root):
    for i, name in enumerate(("a", "b")):
        for k in range(3):
            picture(root / name / f"{k}.png", seed=10 * i + k)
    return root


def images_and_masks(root, images="images", masks="masks", count=4):
    for i in range(count):
        picture(root / images / f"{i}.png", seed=i)
        mask(root / masks / f"{i}.png")
    return root


def test_nothing_is_said_of_a_folder_that_is_used_whole(tmp_path):
    root = images_and_masks(tmp_path)
    rows = [f"{i},{'ab'[i % 2]},p{i},{i % 2}" for i in range(4)]
    table(root / "labels.csv", "image,label,patient,fold", *rows)
    (root / "readme.txt").write_text("Pictures of 2024, with masks.\n")
    assert layouts.read(root).notes == []
    assert layouts.read(two_classes(tmp_path / "other")).notes == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.csv", ["Bildname;Klasse", "0;a"], "no column of its first row (bildname, klasse)"),
        ("labels.csv", ["Study of 2024", "image,label", "0,a"], "(study of 2024)"),
        ("labels.csv", ["Study of 2024;;", "image;label;x", "0;a;1"], "(study of 2024)"),
        ("extra.csv", ["image,age", "0,50"], "is called label, group or fold"),
        ("labels.xls", ["old Excel"], "labels.xls is not read; save it as .xlsx or CSV"),
    ],
)
def test_a_table_that_is_not_understood(tmp_path, name, content, words):
    root = images_and_masks(tmp_path)
    table(root / name, *content)
    notes = " ".join(layouts.read(root).notes)
    assert words in notes


def test_a_table_beside_class_folders(tmp_path):
    root = two_classes(tmp_path)
    table(root / "patients.csv", "image,patient", "0,p1")
    (note,) = layouts.read(root).notes
    assert note.startswith("patients.csv is not used") and "manifest.csv" in note


def test_the_separator_that_excel_names_is_no_row(tmp_path):
    root = images_and_masks(tmp_path)
    table(root / "labels.csv", "image;label", *(f"{i};{'ab'[i % 2]}" for i in range(4)),
          before="sep=;\n")  # fmt: skip
    assert layouts.read(root).classes.names == ("a", "b")


def test_the_lock_of_an_open_table_is_no_table(tmp_path):
    root = images_and_masks(tmp_path)
    book = openpyxl.Workbook()
    for row in (("image", "label"), *((f"{i}.png", "ab"[i % 2]) for i in range(4))):
        book.active.append(row)
    book.save(root / "labels.xlsx")
    (root / "~$labels.xlsx").write_bytes(b"\x05Anna")
    found = layouts.read(root)
    assert (found.classes.names, found.notes) == (("a", "b"), [])


def test_pictures_without_a_fold_among_others_with_one(tmp_path):
    root = images_and_masks(tmp_path)
    for folds, count in ((("0", "1", "", ""), 2), (("test", "train", "", ""), 0)):
        rows = [f"{i},{'ab'[i % 2]},{fold}" for i, fold in enumerate(folds)]
        table(root / "labels.csv", "image,label,fold", *rows)
        notes = layouts.read(root).notes
        assert len(notes) == bool(count)
        if count:
            assert notes[0].startswith("2 pictures have no fold, such as 2") and "none" in notes[0]


def test_folders_of_patients(tmp_path):
    for i in range(5):
        picture(tmp_path / "flat" / f"P{i:03d}" / "1.png", seed=i)
        for kind in ("benign", "malignant"):
            picture(tmp_path / "within" / kind / f"P{i:03d}" / "1.png", seed=i)
    (note,) = layouts.read(tmp_path / "flat").notes
    assert "5 folders P000 to P004 are taken for classes" in note and "group" in note
    (note,) = layouts.read(tmp_path / "within").notes
    assert "10 pictures lie in folders within their class, such as benign" in note
    with pytest.warns(UserWarning, match="lie in folders within their class"):
        data.load_cases(
            str(tmp_path / "within"),
            image_size=(20, 30),
            data_dir=tmp_path / "built",
            cache_dir=tmp_path / "cache",
        )
    assert any("10 pictures lie" in each for each in look.warnings(look.check(tmp_path / "within")))


@pytest.mark.parametrize(("images", "masks"), [("Bilder", "Masken"), ("imágenes", "máscaras")])
def test_folders_in_other_languages(tmp_path, images, masks):
    found = layouts.read(images_and_masks(tmp_path, images, masks))
    assert all(len(entry.masks) == 1 for entry in found.entries)


@pytest.mark.parametrize("ending", ["_Maske", "_mascara", "-masque_2", "_masks"])
def test_masks_in_other_languages(tmp_path, ending):
    for i, name in enumerate(("a", "b")):
        picture(tmp_path / name / "x.png", seed=i)
        mask(tmp_path / name / f"x{ending}.png")
    assert [len(entry.masks) for entry in layouts.read(tmp_path).entries] == [1, 1]
    assert len(find([tmp_path]).masks) == 2  # mtbus predict leaves them out as well


def test_masks_that_are_taken_for_pictures_are_said(tmp_path):
    """In a language or spelling that is not known."""
    root = two_classes(tmp_path / "in")
    mask(root / "a" / "0_naamio.png")
    places = {"data_dir": tmp_path / "built", "cache_dir": tmp_path / "cache"}
    with pytest.warns(UserWarning, match=r"to look at: 0_naamio\.png is black and white alone"):
        data.load_cases(str(root), image_size=(20, 30), **places)
    said = look.warnings(look.check(root))
    assert any("1 pictures are black and white alone" in each for each in said)


def test_pictures_that_no_part_of_the_layout_uses(tmp_path):
    root = images_and_masks(tmp_path)
    picture(root / "images" / "more" / "x.png")
    picture(root / "left.png")
    assert layouts.read(root).notes == ["images/more/x.png and 1 more are not used."]


def test_a_table_that_cannot_be_read_is_refused_where_it_could_matter(tmp_path):
    root = images_and_masks(tmp_path)
    (root / "labels.csv").write_bytes("image,label\n0,Zyste é".encode("latin-1"))
    with pytest.raises(UserError, match="not a table in UTF-8"):
        layouts.read(root)


def test_links_that_lead_back_are_followed_once(tmp_path):
    root = images_and_masks(tmp_path / "in")
    table(root / "manifest.csv", "image,mask,label", *(
        f"images/../images/{i}.png,masks/{i}.png,{'ab'[i % 2]}" for i in range(4)
    ))  # fmt: skip
    for name in ("current", "latest"):
        (root / name).symlink_to(".", target_is_directory=True)
    found = layouts.read(root)
    assert len(found.entries) == 4 and found.notes == []


def test_names_as_macos_writes_them(tmp_path):
    apart = [unicodedata.normalize("NFD", name) for name in ("imágenes", "máscaras")]
    found = layouts.read(images_and_masks(tmp_path / "one", *apart))
    assert all(len(entry.masks) == 1 for entry in found.entries)
    for i, name in enumerate(("a", "b")):
        picture(tmp_path / "two" / name / "x.png", seed=i)
        mask(tmp_path / "two" / name / unicodedata.normalize("NFD", "x_máscara.png"))
    assert [len(e.masks) for e in layouts.read(tmp_path / "two").entries] == [1, 1]


def test_columns_that_were_known_first_come_first(tmp_path):
    root = images_and_masks(tmp_path)
    rows = (f"{i},/somewhere/else/{9 - i}.png,{'ab'[i % 2]}" for i in range(4))
    table(root / "labels.csv", "id,path,label", *rows)
    assert [entry.label for entry in layouts.read(root).entries] == ["a", "a", "b", "b"]


def test_a_file_of_folds_beside_the_pictures_is_told_apart(tmp_path):
    root = images_and_masks(tmp_path)
    table(root / "folds.csv", "uid,fold", "0,0")
    (note,) = layouts.read(root).notes
    assert "data.folds_file names" in note
