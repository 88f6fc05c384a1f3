"""Reading archives of several layouts, and files that are not what they seem."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mtbus_jax import images
from mtbus_jax.curate import archive, folder
from mtbus_jax.errors import UserError


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def noise(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def test_busi_layout(tmp_path):
    for stem in ("benign (10)", "benign (2)", "benign (2)_mask", "benign (2)_mask_1"):
        save(tmp_path / "benign" / f"{stem}.png", noise())
    save(tmp_path / "normal" / "normal (1).png", noise())
    save(tmp_path / "normal" / "normal (1)_mask.png", noise())
    entries = folder.find_entries(tmp_path)
    assert [e.uid for e in entries] == ["benign_2", "benign_10", "normal_1"]
    assert [e.label for e in entries] == ["benign", "benign", "normal"]
    assert [len(e.masks) for e in entries] == [2, 0, 1]


def test_bus_uclm_layout_with_its_irregular_table(tmp_path):
    for name in ("ABCD_000", "ABCD_001", "WXYZ_000"):
        save(tmp_path / "images" / f"{name}.png", noise())
        save(tmp_path / "masks" / f"{name}.png", noise())
    (tmp_path / "INFO.csv").write_text(
        "Image;Resolution;Label\nABCD_000.png;20x30;Benign\nABCD_001.png;;normal \n"
        "WXYZ_000.png;20x30;?\n;;\n",
        encoding="utf-8-sig",
    )
    entries = {e.uid: e for e in folder.find_entries(tmp_path)}
    assert {u: (e.label, e.patient, len(e.masks)) for u, e in entries.items()} == {
        "ABCD_000": ("benign", "ABCD", 1),
        "ABCD_001": ("normal", "ABCD", 1),
        "WXYZ_000": ("", "WXYZ", 1),
    }


def test_any_nested_folder_with_non_ascii_names(tmp_path):
    save(tmp_path / "Zürich" / "échographie 1.png", noise())
    save(tmp_path / "Malignant" / "超音波.bmp", noise())
    save(tmp_path / "a.png", noise())
    save(tmp_path / "a.tif", noise())
    save(tmp_path / "lonely_mask.png", noise())  # no image of that name: an image itself
    (tmp_path / "notes.txt").write_text("no image")
    entries = {e.uid: e.label for e in folder.find_entries(tmp_path)}
    assert entries == {
        "Zürich/échographie 1": "",
        "Malignant/超音波": "malignant",
        "a.png": "",
        "a.tif": "",
        "lonely_mask": "",
    }


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_images_is_a_users_mistake(tmp_path, make):
    root = tmp_path / "archive"
    if make:
        (root / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="archive"):
        folder.find_entries(root)


def test_colour_is_kept_only_where_there_is_some(tmp_path):
    grey = noise()
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "rgb.png", np.repeat(grey[..., None], 3, 2))
    coloured = np.repeat(grey[..., None], 3, 2)
    coloured[3, 4] = 255, 0, 0
    save(tmp_path / "colour.png", coloured)
    pictures = {e.uid: folder.read_picture(e) for e in folder.find_entries(tmp_path)}
    assert pictures["grey"].colour is None and pictures["rgb"].colour is None
    assert pictures["colour"].colour[3, 4].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(pictures["rgb"].grey, grey)
    assert pictures["grey"].digest == pictures["rgb"].digest != pictures["colour"].digest


def test_sixteen_bits_palette_and_orientation(tmp_path):
    wide = np.linspace(100, 4000, 600).reshape(20, 30).astype(np.uint16)
    save(tmp_path / "wide.png", wide)
    Image.fromarray(noise()).convert("P").save(tmp_path / "palette.gif")
    turned = Image.fromarray(noise(24, 40))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    pictures = {e.uid: folder.read_picture(e).grey for e in folder.find_entries(tmp_path)}
    # By bit depth, so that pictures stay comparable: 12 bits hold these values.
    np.testing.assert_allclose(pictures["wide"], wide * (255 / 4095), atol=0.51)
    np.testing.assert_array_equal(pictures["palette"], noise())
    assert pictures["turned"].shape == (40, 24)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_file_is_named_with_its_reason(tmp_path, content):
    path = tmp_path / "bad.png"
    if content is None:  # cut short
        save(path, noise(200, 300))
        content = path.read_bytes()[:4000]
    path.write_bytes(content)
    (entry,) = folder.find_entries(tmp_path)
    with pytest.raises(ValueError, match=r"cut or damaged|is empty|is not a PNG"):
        folder.read_picture(entry)


def test_a_tiny_image_is_refused(tmp_path):
    save(tmp_path / "tiny.png", noise(9, 30))
    (entry,) = folder.find_entries(tmp_path)
    with pytest.raises(ValueError, match="9×30"):
        folder.read_picture(entry)


def test_masks_are_united_and_their_size_is_checked(tmp_path):
    save(tmp_path / "a.png", noise())
    first, second = np.zeros((20, 30), np.uint8), np.zeros((20, 30, 4), np.uint8)
    first[1, 2] = 255
    second[..., 3] = 255  # opaque everywhere
    second[5, 6, 0] = 9
    save(tmp_path / "a_mask.png", first)
    save(tmp_path / "a_mask_1.png", second)
    (entry,) = folder.find_entries(tmp_path)
    mask, odd = folder.read_mask(entry, (20, 30))
    assert odd == []
    assert np.argwhere(mask).tolist() == [[1, 2], [5, 6]]
    with pytest.raises(ValueError, match="20×30"):
        folder.read_mask(entry, (30, 20))


def test_natural_order():
    names = ["b_10", "b_9", "a_100", "b_1", "b"]
    assert sorted(names, key=images.natural_key) == ["a_100", "b", "b_1", "b_9", "b_10"]


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark"])
def test_classes_from_any_table_that_a_spreadsheet_saves(tmp_path, separator, encoding):
    save(tmp_path / "images" / "ABCD_000.png", noise())
    save(tmp_path / "masks" / "ABCD_000.png", noise())
    text = "Image;Resolution;Label\r\nABCD_000.png;20x30;Benign\r\n;;\r\n".replace(";", separator)
    content = text.encode(encoding) if "mark" not in encoding else (
        b"\xff\xfe" + text.encode("utf-16-le")
    )  # fmt: skip
    (tmp_path / "INFO.csv").write_bytes(content)
    (entry,) = folder.find_entries(tmp_path)
    assert (entry.label, entry.patient, len(entry.masks)) == ("benign", "ABCD", 1)


@pytest.mark.parametrize("content", [b"Image;Class\nA.png;Benign\n", b"\xff\x00\xd8", b""])
def test_a_table_of_classes_that_cannot_be_read_is_named(tmp_path, content):
    save(tmp_path / "images" / "ABCD_000.png", noise())
    (tmp_path / "INFO.csv").write_bytes(content)
    listing = folder.list_folder(tmp_path)
    assert [entry.label for entry in listing.entries] == [""]
    assert [problem.path.name for problem in listing.problems] == ["INFO.csv"]
    assert "no classes are taken" in listing.problems[0].reason


def test_hidden_folders_are_passed_over_and_links_followed(tmp_path):
    root = tmp_path / "in"
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", ".thumbnails/a.png"):
        save(root / name, noise())
    save(tmp_path / "elsewhere" / "b.png", noise())
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert [entry.uid for entry in folder.find_entries(root)] == ["a", "link/b"]


def test_names_that_sort_or_encode_oddly(tmp_path):
    for name in ("3².png", "10.png", "٣.png"):
        save(tmp_path / name, noise())
    try:
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
        shutil.copy(tmp_path / "10.png", path)
        shutil.copy(tmp_path / "10.png", path.replace("caf\udce9", "caf\udce8"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    uids = [entry.uid for entry in folder.find_entries(tmp_path)]
    assert len(set(uids)) == 5
    assert {"3²", "10"} <= set(uids)
    for uid in uids:
        uid.encode("utf-8")


def test_a_mask_in_the_alpha_channel_is_refused(tmp_path):
    save(tmp_path / "a.png", noise())
    mask = np.full((20, 30, 4), 255, np.uint8)
    mask[3:, :, 3] = 0
    save(tmp_path / "a_mask.png", mask)
    (entry,) = folder.find_entries(tmp_path)
    with pytest.raises(ValueError, match=r"a_mask\.png has transparent pixels"):
        folder.read_mask(entry, (20, 30))


def test_a_mask_that_unpacks_to_hundreds_of_megabytes_is_refused(tmp_path):
    save(tmp_path / "a.png", noise())
    Image.new("1", (14000, 14000)).save(tmp_path / "a_mask.png")
    assert (tmp_path / "a_mask.png").stat().st_size < 50_000
    (entry,) = folder.find_entries(tmp_path)
    with pytest.raises(ValueError, match="decompression bomb"):
        folder.read_mask(entry, (20, 30))


def test_a_mask_with_soft_edges_is_named(tmp_path):
    save(tmp_path / "a.png", noise())
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:9] = 60
    mask[6:8, 6:8] = 255
    save(tmp_path / "a_mask.png", mask)
    (entry,) = folder.find_entries(tmp_path)
    found, odd = folder.read_mask(entry, (20, 30))
    assert found.sum() == 4
    assert len(odd) == 1 and odd[0].startswith("mask a_mask.png has values between")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_uncompressed_tiff_is_turned_and_not_scrambled(tmp_path, orientation):
    pixels = noise(24, 40)
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "a.tif", exif=exif)
    turned.save(tmp_path / "b.png", exif=exif)
    first, second = (folder.read_picture(entry).grey for entry in folder.find_entries(tmp_path))
    assert first.shape == (40, 24)
    np.testing.assert_array_equal(first, second)


def test_whatever_one_file_raises_the_others_go_on(tmp_path, monkeypatch):
    for seed, name in enumerate(("a", "b", "c")):
        save(tmp_path / f"{name}.png", noise(60, 80, seed))
    original = folder.read_picture

    def fail(entry):
        if entry.uid == "b":
            raise MemoryError
        return original(entry)

    monkeypatch.setattr(folder, "read_picture", fail)
    found = archive.read_archive(tmp_path)
    assert found.uid == ["a", "c"]
    assert [(p.path.name, p.reason) for p in found.problems] == [
        ("b.png", "cannot be compared (MemoryError)")
    ]


def test_of_several_pages_the_first_is_compared_and_that_is_said(tmp_path):
    pages = [Image.fromarray(noise(60, 80, seed)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "b.png", noise(60, 80, 9))
    found = archive.read_archive(tmp_path)
    assert [p.reason for p in found.problems] == [
        "holds 3 pictures, of which the first is compared"
    ]
