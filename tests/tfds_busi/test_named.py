"""BUS-BRA and BrEaST from stand-ins of their documented layout; the downloads were not at hand."""

import csv
import json
import pathlib
import shutil

import numpy as np
import openpyxl
import pytest
from PIL import Image

from configs import base
from mtbus_jax import data, splits, types
from mtbus_jax.errors import UserError
from tfds_busi import columns, named
from tfds_busi.tfds_busi_dataset_builder import Builder

HEIGHT, WIDTH = 40, 64


def picture(path, seed, *, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(10, 200, (HEIGHT, WIDTH)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def mask(path, top, *, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), np.uint8)
    pixels[top : top + 8, 10:30] = 255
    Image.fromarray(pixels).save(path)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_excel(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


@pytest.fixture
def bus_bra(tmp_path):
    """Six images of four patients; two folds."""
    root = tmp_path / "download" / "BUSBRA"
    table = [("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side", "BBOX")]
    folds = [("ID", "Pathology", "kFold", "valid_1")]
    names = ("0001-l", "0001-r", "0002-l", "0003-s", "0003-l", "0004-r")
    for number, name in enumerate(names):
        picture(root / "Images" / f"bus_{name}.png", number)
        mask(root / "Masks" / f"mask_{name}.png", 5 + number)
        case = name[:4].lstrip("0")
        label = "malignant" if case in "24" else "benign"
        birads = str(2 + number % 4)
        table.append((f"bus_{name}", case, "cyst, simple", label, birads, "Logiq", "left", "[1,2]"))
        folds.append((f"bus_{name}", label, "1" if case in "12" else "2", "0"))
    write_csv(root / "bus_data.csv", table)
    write_csv(root / "5-fold-cv.csv", folds)
    # The download holds these as well.
    ten = [(name, label, str(9 - int(fold)), valid) for name, label, fold, valid in folds[1:]]
    write_csv(root / "10-fold-cv.csv", [folds[0], *ten])
    (root / "LICENSE.txt").write_text("Attribution 4.0 International\n\nBy exercising, you accept")
    return root.parent


def breast_rows():
    header = ("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename")
    rows = [(*header, "Pixel_size", "Shape", "BIRADS", "Diagnosis", "Classification")]
    for number, label in enumerate(("benign", "malignant", "normal", "benign"), start=1):
        name = f"case{number:03d}"
        drawn = {1: f"{name}_tumor.png", 2: f"{name}_tumor1.png&{name}_tumor2.png"}
        drawn = drawn.get(number, f"{name}_tumor.png")
        if label == "normal":
            drawn = "not applicable"
        shape = "oval&irregular"
        rows.append((number, f"{name}.png", drawn, "", 0.0078, shape, "4a", "Fibroadenoma", label))
    return rows


@pytest.fixture
def breast(tmp_path):
    """Four patients; the table lies beside the folder with the pictures."""
    root = tmp_path / "download"
    folder = root / "BrEaST-Lesions_USG-images_and_masks"
    for row in breast_rows()[1:]:
        picture(folder / row[1], row[0], mode="RGBA")
        for top, name in enumerate(row[2].split("&")):
            if name.endswith(".png"):
                mask(folder / name, 4 + 15 * top)
        mask(folder / row[1].replace(".png", "_other1.png"), 30)
    write_excel(root / "BrEaST-Lesions-USG-clinical-data.xlsx", breast_rows())
    return root


@pytest.fixture(autouse=True)
def counts_of_the_stand_ins(monkeypatch):
    for name, counts, patients in (("bus_bra", (4, 2, 0), 4), ("breast_usg", (2, 1, 1), 4)):
        config = Builder.builder_configs[name]
        monkeypatch.setattr(config, "expected_counts", counts)
        monkeypatch.setattr(config, "expected_patients", patients)


def load(name, manual_dir, tmp_path):
    return data.load_cases(
        name,
        image_size=(24, 40),
        data_dir=tmp_path / "built",
        cache_dir=tmp_path / "cache",
        manual_dir=manual_dir,
    )


def records(name, tmp_path):
    return list(Builder(config=name, data_dir=tmp_path / "built").as_data_source(split="all"))


def test_what_a_run_has_written_of_its_data_reads_the_same_data(breast, tmp_path):
    cases = load("breast_usg", breast, tmp_path)
    config = base.get_config()
    config.data.update({"name": "breast_usg", "image_size": (24, 40)})
    config.data.data_dir, config.data.cache_dir = str(tmp_path / "built"), str(tmp_path / "cache")
    written = data.resolve(config, cases)
    assert written.data.normal_class == "normal"
    assert data.fingerprint(data.load_configured(written)) == data.fingerprint(cases)


def zipped(root, tmp_path, name):
    folder = tmp_path / "zipped"
    folder.mkdir()
    return pathlib.Path(shutil.make_archive(str(folder / name), "zip", root)).parent


@pytest.mark.parametrize("how", ["unpacked", "zip", "under another name", "twice in itself"])
def test_bus_bra(bus_bra, tmp_path, how):
    if how == "zip":
        bus_bra = zipped(bus_bra, tmp_path, "BUSBRA")
    elif how == "under another name":
        bus_bra = zipped(bus_bra, tmp_path, "8231412")
    elif how == "twice in itself":
        shutil.move(bus_bra / "BUSBRA", bus_bra / "inner")
        (bus_bra / "BUSBRA").mkdir()
        shutil.move(bus_bra / "inner", bus_bra / "BUSBRA" / "BUSBRA")
    cases = load("bus_bra", bus_bra, tmp_path)
    assert cases.name == "bus_bra"
    assert cases.classes == types.Classes(("benign", "malignant"), None)
    by_uid = dict(zip(cases.uid.tolist(), range(len(cases)), strict=True))
    assert cases.group[by_uid["bus_0001-l"]] == cases.group[by_uid["bus_0001-r"]]
    assert cases.group[by_uid["bus_0001-l"]] != cases.group[by_uid["bus_0003-l"]]
    assert cases.test_fold[by_uid["bus_0002-l"]] == 0
    assert cases.test_fold[by_uid["bus_0004-r"]] == 1
    assert cases.mask.any(axis=(1, 2, 3)).all()
    about = {r["uid"].decode(): json.loads(r["about"]) for r in records("bus_bra", tmp_path)}
    assert about["bus_0001-r"]["birads"] == "3"
    assert about["bus_0001-r"]["histology"] == "cyst, simple"
    assert "pathology" not in about["bus_0001-r"]


def test_bus_bra_is_trained_on_its_own_folds(bus_bra, tmp_path):
    cases = load("bus_bra", bus_bra, tmp_path)
    assert sorted(np.unique(cases.test_fold).tolist()) == [0, 1]
    with pytest.raises(UserError, match="too few to choose"):  # of six images
        splits.make_folds(cases.take(np.arange(3)), "given")


def test_a_mask_that_differs_in_size_alone_is_stretched_and_named(bus_bra, tmp_path):
    mask(bus_bra / "BUSBRA" / "Masks" / "mask_0002-l.png", 0, height=HEIGHT * 2, width=WIDTH * 2)
    with pytest.warns(UserWarning, match=r"mask_0002-l\.png \(80 × 128 pixels\) is stretched"):
        load("bus_bra", bus_bra, tmp_path)
    found = {r["uid"].decode(): r["mask"] for r in records("bus_bra", tmp_path)}
    drawn = found["bus_0002-l"][..., 0] > 0
    assert drawn.shape == (HEIGHT, WIDTH)
    assert drawn[:4, 5:15].all() and drawn.sum() == 40


def test_a_turned_mask_is_refused(bus_bra, tmp_path):
    mask(bus_bra / "BUSBRA" / "Masks" / "mask_0002-l.png", 0, height=WIDTH, width=HEIGHT)
    with pytest.raises(UserError, match=r"mask_0002-l\.png has 64 × 40"):
        load("bus_bra", bus_bra, tmp_path)


def test_a_part_of_bus_bra_is_refused(bus_bra, tmp_path, monkeypatch):
    monkeypatch.setattr(Builder.builder_configs["bus_bra"], "expected_counts", (1268, 607, 0))
    with pytest.raises(UserError, match="1268 benign, 607 malignant, 0 normal"):
        load("bus_bra", bus_bra, tmp_path)


@pytest.mark.parametrize("form", ["xlsx beside", "csv inside", "zips"])
def test_breast(breast, tmp_path, form):
    if form == "csv inside":
        folder = breast / "BrEaST-Lesions_USG-images_and_masks"
        write_csv(folder / "clinical.csv", breast_rows())
        next(breast.glob("*.xlsx")).unlink()
    elif form == "zips":
        folder = breast / "BrEaST-Lesions_USG-images_and_masks"
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)
    cases = load("breast_usg", breast, tmp_path)
    assert cases.classes == types.Classes(("benign", "malignant", "normal"), 2)
    assert cases.uid.tolist() == ["case001", "case004", "case002", "case003"]
    assert cases.mask.any(axis=(1, 2, 3)).tolist() == [True, True, True, False]
    assert cases.mask_known.all()
    found = {r["uid"].decode(): r for r in records("breast_usg", tmp_path)}
    both = found["case002"]["mask"][..., 0] > 0
    assert both[4:12, 10:30].all() and both[19:27, 10:30].all() and both.sum() == 2 * 8 * 20
    about = json.loads(found["case001"]["about"])
    assert about["shape"] == "oval&irregular" and about["birads"] == "4a"
    assert about["diagnosis"] == "Fibroadenoma" and about["pixel_size"] == "0.0078"


def test_breast_without_its_table(breast, tmp_path):
    next(breast.glob("*.xlsx")).unlink()
    with pytest.raises(UserError, match="but not its table"):
        load("breast_usg", breast, tmp_path)


def test_breast_without_a_mask_that_its_table_names(breast, tmp_path):
    next(breast.rglob("case002_tumor2.png")).unlink()
    with pytest.raises(UserError, match=r"line 3: .*case002_tumor2\.png is not there"):
        load("breast_usg", breast, tmp_path)


@pytest.mark.parametrize("name", sorted(named.FINDERS))
def test_a_folder_without_it_says_what_to_fetch(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"doi\.org"):
        load(name, tmp_path / "empty", tmp_path)


class TestExcel:
    def test_cells_are_texts_as_csv_has_them(self, tmp_path):
        rows = [("Image", "Fold", "Size", "Empty", None), ("a.png", 2.0, 0.5, None, "x"), ()]
        write_excel(tmp_path / "t.xlsx", rows)
        names, found = columns.read_table(tmp_path / "t.xlsx")
        assert names == ["image", "fold", "size", "empty"]
        assert found == [(2, {"image": "a.png", "fold": "2", "size": "0.5", "empty": ""})]

    def test_what_is_no_excel_file(self, tmp_path):
        (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(UserError, match="Save it as CSV"):
            columns.read_table(tmp_path / "t.xlsx")

    def test_a_column_twice(self, tmp_path):
        write_excel(tmp_path / "t.xlsx", [("Image", "image"), ("a", "b")])
        with pytest.raises(UserError, match="occurs twice"):
            columns.read_table(tmp_path / "t.xlsx")
