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
        ("extra.csv", ["image,age", "0,50"], "is called label, group or fold"),
        ("labels.xls", ["old Excel"], "labels.xls is not read; save it as .xlsx or CSV"),
    ],
)
def test_a_table_that_is_not_understood(tmp_path, name, content, words):
    root = images_and_masks(tmp_path)
    table(root / name, *content)
    notes = " ".join(layouts.read(root).notes)
    assert words in notes


def test_a_table_beside_class_folders_gives_groups_and_folds(tmp_path):
    root = two_classes(tmp_path)
    rows = [f"{c}/{k}.png,p{k},{k % 2},whatever" for c in "ab" for k in range(3)]
    table(root / "patients.csv", "image,patient,fold,pathology", *rows)
    found = layouts.read(root)
    assert {(e.uid, e.label, e.group, e.test_fold) for e in found.entries} == {
        (f"{c}/{k}", c, f"p{k}", k % 2) for c in "ab" for k in range(3)
    }
    assert found.layout.endswith("with patients.csv")
    assert found.notes == ["of patients.csv, these columns are kept and not used: pathology."]


def test_a_name_that_two_class_folders_have_needs_its_folder(tmp_path):
    root = two_classes(tmp_path)
    table(root / "patients.csv", "image,patient", "0,p1")
    (note,) = layouts.read(root).notes
    assert note == "patients.csv is not used: line 2: '0' may be a/0 or b/0; write the folder too."
    (root / "b" / "0.png").rename(root / "b" / "other.png")
    group = {entry.uid: entry.group for entry in layouts.read(root).entries}
    assert (group["a/0"], group["b/1"]) == ("p1", "")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (("image,patient", "a/0,p1", "a/9,p2"), "line 3: there is no image 'a/9'"),
        (("image,patient", "a/0,p1", "a/0_mask.png,p1"), "no image 'a/0_mask.png'"),
        (("image,patient,patient", "a/0,p1,p1"), "the column 'patient' occurs twice"),
        (("image,fold", "a/0,whatever"), "the fold is 'whatever'"),
    ],
)
def test_a_table_that_does_not_fit_class_folders_leaves_them_as_they_are(tmp_path, rows, why):
    root = two_classes(tmp_path)
    table(root / "t.csv", *rows)
    found = layouts.read(root)
    (note,) = found.notes
    assert note.startswith("t.csv is not used: ") and why in note
    assert len(found.entries) == 6 and not any(entry.group for entry in found.entries)


def test_a_row_about_a_picture_that_is_gone_is_not_taken_for_another(tmp_path):
    root = two_classes(tmp_path)
    (root / "b" / "0.png").rename(root / "b" / "x.png")
    table(root / "t.csv", "image,patient", "b/0.png,p9", "a/1,p1")
    found = layouts.read(root)
    assert "line 2: there is no image 'b/0.png'" in found.notes[0]
    table(root / "t.csv", "image,patient", "elsewhere/a/0.png,p9")
    assert {e.uid: e.group for e in layouts.read(root).entries}["a/0"] == "p9"


def test_a_table_that_says_nothing_new_of_class_folders(tmp_path):
    root = two_classes(tmp_path)
    table(root / "labels.csv", "image,label", "a/0,a")
    (note,) = layouts.read(root).notes
    assert "the folders are the classes" in note and "called group or fold" in note


def test_tables_above_and_among_the_pictures_are_named(tmp_path):
    root = two_classes(tmp_path / "BUSI")
    table(tmp_path / "patients.csv", "image,patient", "a/0,p1")
    (tmp_path / "readme.txt").write_text("about")
    table(root / "a" / "list.csv", "image,patient", "0,p1")
    above, among = sorted(layouts.read(tmp_path).notes, key=lambda note: "list" in note)
    assert "patients.csv is not used: it lies above the pictures" in above and "into BUSI" in above
    assert "a/list.csv is not used: tables are read from BUSI alone" in among


def test_thumbnails_and_recycle_bins_of_drives_are_no_pictures(tmp_path):
    root = two_classes(tmp_path)
    for left in ("a/@eaDir/0.png/SYNOPHOTO_THUMB_M.png", "$RECYCLE.BIN/1.png", "#recycle/2.png"):
        picture(root / left)
    found = layouts.read(root)
    assert found.classes.names == ("a", "b") and len(found.entries) == 6
    assert len(find([root]).sources) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("masks/0.nii.gz", b"\x1f\x8b"),
        ("annotations/instances.json", b"{}"),
        ("images/0.xml", b"<annotation/>"),
    ],
)
def test_outlines_in_a_form_that_is_not_read_are_named(tmp_path, name, content):
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png", seed=i)
    table(tmp_path / "labels.csv", "image,label", *(f"{i},{'ab'[i % 2]}" for i in range(4)))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    found = layouts.read(tmp_path)
    assert found.layout == "pictures in images with labels.csv"
    (note,) = found.notes
    assert note.startswith(f"{name} is not read") and "masks are read from" in note


def test_numbers_of_classes_are_no_picture(tmp_path):
    root = two_classes(tmp_path)
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[5:9] = 2
    Image.fromarray(pixels).save(root / "a" / "0_kontur.png")
    said = " ".join(look.warnings(look.check(root, duplicates=False)))
    assert "1 pictures are black and white alone, or hold a few small numbers" in said


def test_sites_and_parts_are_no_classes(tmp_path):
    for place in ("north", "south"):
        for name in ("benign", "malignant"):
            picture(tmp_path / place / name / "0.png")
    with pytest.raises(UserError, match=r"north holds the classes benign, malignant and is hardly"):
        layouts.read(tmp_path)
    for old, new in (("north", "train_set"), ("south", "test-set")):
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(UserError, match="is not the name of a class"):
        layouts.read(tmp_path)
    # Views, sides or patients within classes may be alike.
    for c in ("benign", "malignant"):
        for view in ("transverse", "longitudinal", "case1"):
            picture(tmp_path / "other" / c / view / "0.png")
    assert layouts.read(tmp_path / "other").classes.names == ("benign", "malignant")


@pytest.mark.parametrize("column", ["patient", "group"])
def test_folds_that_divide_a_patient_are_told_before_training(tmp_path, column):
    root = images_and_masks(tmp_path)
    rows = [f"{i},{'ab'[i % 2]},p{i // 2},{i % 2}" for i in range(4)]
    table(root / "labels.csv", f"image,label,{column},fold", *rows)
    (note,) = layouts.read(root).notes
    assert "divides the pictures of 2 patients or groups, such as p0" in note
    rows = [f"{i},{'ab'[i % 2]},p{i // 2},{'train' if i < 3 else 'test'}" for i in range(4)]
    table(root / "labels.csv", f"image,label,{column},fold", *rows)
    assert "of 1 patients or groups, such as p1" in " ".join(layouts.read(root).notes)


def test_masks_are_found_whatever_the_case_of_their_names(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"IMG{i}.png", seed=i)
        mask(tmp_path / "masks" / f"img{i}.PNG")
    assert all(entry.masks for entry in layouts.read(tmp_path).entries)
    apart = unicodedata.normalize("NFD", "Müller")
    picture(tmp_path / "other" / "a" / "Müller.png")
    mask(tmp_path / "other" / "a" / f"{apart}_mask.png")
    picture(tmp_path / "other" / "b" / "x.png")
    mask(tmp_path / "other" / "b" / "X_Mask.png")
    assert [len(entry.masks) for entry in layouts.read(tmp_path / "other").entries] == [1, 1]


@pytest.mark.parametrize(
    ("image", "drawn"),
    [("image_{}", "mask_{}"), ("{}_image", "{}_mask"), ("img_{}", "{}"), ("bus_{}", "mask_{}")],
)
def test_pairs_of_names_around_a_number(tmp_path, image, drawn):
    for i in range(3):
        picture(tmp_path / "images" / f"{image.format(i)}.png", seed=i)
        mask(tmp_path / "masks" / f"{drawn.format(i)}.png")
    found = layouts.read(tmp_path).entries
    assert [e.masks[0].stem for e in found] == [drawn.format(i) for i in range(3)]


def test_a_mask_that_may_be_of_two_pictures_is_refused(tmp_path):
    for name in ("img_1", "image_1"):
        picture(tmp_path / "images" / f"{name}.png")
    mask(tmp_path / "masks" / "mask_1.png")
    with pytest.raises(UserError, match=r"may be a mask of image_1\.png and of img_1\.png"):
        layouts.read(tmp_path)
    (tmp_path / "images" / "image_1.png").rename(tmp_path / "images" / "1.png")
    masks = {entry.uid: entry.masks for entry in layouts.read(tmp_path).entries}
    assert masks["img_1"] is None and masks["1"][0].name == "mask_1.png"
    Image.new("L", (60, 40)).save(tmp_path / "images" / "1.jpg")
    with pytest.raises(UserError, match=r"1 \(1\.jpg, 1\.png\)\. Take one of the files out"):
        layouts.read(tmp_path)


def test_a_class_that_is_called_none_may_be_meant(tmp_path):
    for c in ("none", "mass"):
        picture(tmp_path / c / "0.png")
    (note,) = layouts.read(tmp_path).notes
    assert "'none', the class of 1 pictures" in note and "name the classes in a manifest" in note
    assert layouts.read(tmp_path, normal="none").notes == []


def test_other_json_files_are_no_outlines(tmp_path):
    root = two_classes(tmp_path)
    (root / "dataset-metadata.json").write_text("{}")
    assert layouts.read(root).notes == []


def test_tables_two_folders_above_go_beside_the_pictures(tmp_path):
    two_classes(tmp_path / "one" / "BUSI")
    table(tmp_path / "patients.csv", "image,patient", "a/0,p1")
    (note,) = layouts.read(tmp_path).notes
    assert "put it into BUSI" in note


def test_a_list_beside_pictures_that_a_manifest_names_elsewhere(tmp_path, monkeypatch):
    picture(tmp_path / "in" / "pics" / "0.png")
    picture(tmp_path / "in" / "pics" / "1.png")
    rows = [f"{tmp_path}/in/pics/{i}.png,{'ab'[i]}" for i in range(2)]
    table(tmp_path / "in" / "manifest.csv", "image,label", *rows)
    table(tmp_path / "in" / "pics" / "list.csv", "a,b", "1,2")
    monkeypatch.chdir(tmp_path)
    (note,) = layouts.read("in").notes
    assert note == "pics/list.csv is not used: manifest.csv says what is what."


def test_pictures_called_after_tumours_are_pictures(tmp_path):
    for c in ("benign", "malignant"):
        for k in range(2):
            picture(tmp_path / c / f"{c}_tumor_{k}.png", seed=k)
    assert len(layouts.read(tmp_path).entries) == 4
    picture(tmp_path / "benign" / "x.png")
    mask(tmp_path / "benign" / "x_tumor.png")  # so it means a mask here
    with pytest.raises(UserError, match=r"masks without an image.*ending _mask, or say"):
        layouts.read(tmp_path)


def test_a_picture_beside_class_folders_is_blamed(tmp_path):
    picture(two_classes(tmp_path) / "overview.png")
    with pytest.raises(UserError, match=r"folders a, b, but overview\.png lies beside them"):
        layouts.read(tmp_path)


def test_a_name_with_two_suffixes_shows_both_files(tmp_path):
    root = two_classes(tmp_path)
    Image.open(root / "a" / "0.png").save(root / "a" / "0.jpg")
    with pytest.raises(UserError, match=r"a/0 \(0\.jpg, 0\.png\)\. Take one of the files out"):
        layouts.read(root)


def test_outlines_that_are_not_filled_are_noted(tmp_path):
    root = images_and_masks(tmp_path)
    ring = np.zeros(SHAPE, np.uint8)
    ring[10:30, 10:40] = 255
    ring[11:29, 11:39] = 0
    Image.fromarray(ring).save(root / "masks" / "0.png")
    said = " ".join(look.warnings(look.check(root, duplicates=False)))
    assert "1 masks are outlines that are not filled" in said


def test_depths_that_differ_within_a_folder_are_said(tmp_path):
    root = images_and_masks(tmp_path)
    for i, most in enumerate((240, 900, 3000)):
        pixels = np.full(SHAPE, most, np.uint16)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
    said = " ".join(look.warnings(look.check(root, duplicates=False)))
    assert "Grey values of .png are read in several ways" in said
    assert "1 10-bit values scaled to 8 bits" in said and "2 8-bit values as they are" in said


def test_a_turned_picture_with_a_mask_is_to_be_looked_at(tmp_path):
    root = images_and_masks(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    (root / "images" / "0.png").unlink()
    pixels = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)
    Image.fromarray(pixels).save(root / "images" / "0.jpg", exif=exif)
    said = " ".join(look.warnings(look.check(root, duplicates=False)))
    assert "1 pictures are turned by their orientation tags, which masks may lack" in said


def test_the_separator_that_excel_names_is_no_row(tmp_path):
    root = images_and_masks(tmp_path)
    table(root / "labels.csv", "image;label", *(f"{i};{'ab'[i % 2]}" for i in range(4)),
          before="sep=;\n")  # fmt: skip
    assert layouts.read(root).classes.names == ("a", "b")


@pytest.mark.parametrize("name", ["labels.csv", "labels.xlsx"])
def test_titles_above_the_columns_are_passed_over(tmp_path, name):
    root = images_and_masks(tmp_path)
    lines = [("Patients of 2024", "", ""), (), ("image", "label", "patient")]
    lines += [(f"{i}.png", "ab"[i % 2], f"p{i}") for i in range(4)]
    if name.endswith(".xlsx"):
        book = openpyxl.Workbook()
        for cells in lines:
            book.active.append(cells)
        book.save(root / name)
    else:
        table(root / name, *map(";".join, lines))
    found = layouts.read(root)
    assert (found.classes.names, found.notes) == (("a", "b"), [])
    assert [entry.group for entry in found.entries] == ["p0", "p2", "p1", "p3"]


def test_a_single_column_needs_no_second(tmp_path):
    root = images_and_masks(tmp_path)
    table(root / "manifest.csv", "image", *(f"images/{i}.png" for i in range(4)))
    assert len(layouts.read(root).entries) == 4


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


@pytest.mark.parametrize("word", ["?", "NA", "n/a", "unknown", "-"])
def test_words_for_an_unknown_value_are_asked_about(tmp_path, word):
    root = images_and_masks(tmp_path)
    rows = [f"{i},{'ab'[i] if i < 2 else word},{word}" for i in range(4)]
    table(root / "labels.csv", "image,label,patient", *rows)
    of_class, of_group = layouts.read(root).notes
    assert f"{word!r}, the class of 2 pictures, is a class like others" in of_class
    assert f"{word!r}, the group of 4 pictures, is one group" in of_group
    assert all("leave these cells empty" in note for note in (of_class, of_group))


def test_a_file_of_folds_beside_the_pictures_is_told_apart(tmp_path):
    root = images_and_masks(tmp_path)
    table(root / "folds.csv", "uid,fold", "0,0")
    (note,) = layouts.read(root).notes
    assert "data.folds_file names" in note


def test_columns_that_are_not_used_are_named(tmp_path):
    root = images_and_masks(tmp_path)
    rows = [f"{i}.png,{'ab'[i % 2]},p{i // 2},x,y" for i in range(4)]
    table(root / "labels.csv", "image,label,Patient ID,Klinik,BIRADS", *rows)
    found = layouts.read(root)
    assert [entry.group for entry in found.entries] == ["p0", "p1", "p0", "p1"]
    assert found.notes == ["of labels.csv, these columns are kept and not used: klinik, birads."]
    table(root / "labels.csv", "image,label,Pat.,patient", *(f"{r[:-2]}" for r in rows))
    assert "pat." in " ".join(layouts.read(root).notes)


def test_patients_are_one_whatever_their_case(tmp_path):
    root = images_and_masks(tmp_path)
    rows = (f"{i},a,{g}" for i, g in enumerate(("P1", "p1", "", "P2")))
    table(root / "labels.csv", "image,label,patient", *rows)
    found = layouts.read(root)
    assert [entry.group for entry in found.entries] == ["P1", "P1", "", "P2"]
    assert "1 pictures have no group beside others with one, such as 2" in found.notes[0]


@pytest.mark.parametrize("folds", [("test", "0", "1", "1"), ("test", "1", "2", "3")])
def test_a_hold_out_beside_numbered_folds_is_refused(tmp_path, folds):
    root = images_and_masks(tmp_path)
    rows = (f"{i},a,{fold}" for i, fold in enumerate(folds))
    table(root / "labels.csv", "image,label,fold", *rows)
    with pytest.raises(UserError, match="by numbers and by the word test"):
        layouts.read(root)


def test_a_mask_of_the_very_name_comes_first(tmp_path):
    for name in ("P1", "P1_tumor"):
        picture(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}.png")
    picture(tmp_path / "images" / "case_seg.png")
    mask(tmp_path / "masks" / "case_seg.png")
    mask(tmp_path / "masks" / "P1_mask_2.png")
    found = {entry.uid: [m.name for m in entry.masks] for entry in layouts.read(tmp_path).entries}
    assert found == {
        "P1": ["P1.png", "P1_mask_2.png"],
        "P1_tumor": ["P1_tumor.png"],
        "case_seg": ["case_seg.png"],
    }


def test_what_lies_beside_and_is_about_something_else(tmp_path):
    root = images_and_masks(tmp_path)
    (root / "liesmich.txt").write_bytes("Gerät, Gerät\nÄnne".encode("latin-1"))
    table(root / "staff.csv", "name,group", "Meier,a")
    table(root / "labels.csv", "id,file_name,label", *(f"{9 - i},{i}.PNG,a" for i in range(4)))
    found = layouts.read(root)
    assert [entry.label for entry in found.entries] == ["a"] * 4
    of_columns, of_table = sorted(found.notes)
    assert of_columns == "of labels.csv, these columns are kept and not used: id."
    assert of_table.startswith("staff.csv is not used: no row of it names a picture here")


def test_names_in_tables_as_another_system_writes_them(tmp_path):
    picture(tmp_path / "images" / unicodedata.normalize("NFD", "Brüste0.png"))
    mask(tmp_path / "masks" / unicodedata.normalize("NFD", "Brüste0.png"))
    table(tmp_path / "labels.csv", "image,label", "BRÜSTE0.PNG,a")
    (entry,) = layouts.read(tmp_path).entries
    assert entry.label == "a"
    table(tmp_path / "manifest.csv", "image,label", "images/Brüste0.png,b")
    (entry,) = layouts.read(tmp_path).entries
    assert entry.label == "b" and entry.image.is_file()


def test_masks_that_are_inverted_or_soft_are_counted_by_check(tmp_path):
    root = images_and_masks(tmp_path / "in")
    for i in range(2):
        pixels = np.full(SHAPE, 255, np.uint8)
        pixels[10:20, 10:30] = 0
        Image.fromarray(pixels).save(root / "masks" / f"{i}.png")
    soft = np.zeros(SHAPE, np.uint8)
    soft[5:15, 5:15], soft[8:12, 8:12] = 100, 255
    Image.fromarray(soft).save(root / "masks" / "2.png")
    said = " ".join(look.warnings(look.check(root)))
    assert "2 masks cover more than half of their picture" in said
    assert "1 masks have values between black and white" in said


def test_a_mask_as_jpeg_is_known_and_an_even_picture_is_none(tmp_path):
    root = two_classes(tmp_path / "in")
    mask(root / "a" / "x_kontur.png")
    Image.open(root / "a" / "x_kontur.png").save(root / "a" / "x_kontur.jpg", quality=85)
    (root / "a" / "x_kontur.png").unlink()
    Image.fromarray(np.full(SHAPE, 90, np.uint8)).save(root / "b" / "even.png")
    said = " ".join(look.warnings(look.check(root)))
    assert "1 pictures are black and white alone" in said and "a/x_kontur" in said


def test_a_picture_file_of_several_is_refused(tmp_path):
    root = two_classes(tmp_path / "in")
    pages = [Image.fromarray(np.full(SHAPE, 40 * i, np.uint8)) for i in (1, 2)]
    pages[0].save(root / "a" / "film.gif", save_all=True, append_images=pages[1:])
    checked = look.check(root)
    assert [each.uid for each in checked.seen if each.problem] == ["a/film"]
