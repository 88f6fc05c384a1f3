"""Folders of one's own pictures: layouts, classes, what is not known, folds, refusals."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from mtbus_jax import crossval, data, models, pack, report, splits, types
from mtbus_jax.data.places import with_places
from mtbus_jax.errors import UserError
from mtbus_jax.images import preprocess
from mtbus_jax.report import command
from tfds_busi import layouts, own, raw

SIZE = (48, 80)


def picture(path, *, seed=0, box=None, mask=False, colour=None):
    """Noise with a bright box, or the box alone as a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.zeros(SIZE, np.uint8) if mask else rng.integers(10, 90, SIZE).astype(np.uint8)
    if box is not None:
        top, left, height, width = box
        pixels[top : top + height, left : left + width] = 255 if mask else 200
    image = Image.fromarray(pixels)
    if colour is not None:
        image = Image.fromarray((pixels[..., None] > 0) * np.array(colour, np.uint8))
    image.save(path)
    return path


BOX = (10, 20, 12, 30)


def pair(folder, name, *, seed, mask_folder=None, ending="_mask"):
    """An image and its mask."""
    picture(folder / f"{name}.png", seed=seed, box=BOX)
    picture((mask_folder or folder) / f"{name}{ending}.png", box=BOX, mask=True)


def write_csv(path, rows, *, separator=",", encoding="utf-8"):
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding=encoding)


def load(folder, tmp_path, **options):
    places = {"data_dir": tmp_path / "built", "cache_dir": tmp_path / "cache"}
    return data.load_cases(str(folder), image_size=(24, 40), **places, **options)


class TestLayouts:
    def test_a_folder_for_each_class_with_masks_beside(self, tmp_path):
        for i in range(12):
            pair(tmp_path / "benign", f"b ({i})", seed=i)
        pair(tmp_path / "Malignant", "m", seed=20, ending="_mask_1")
        picture(tmp_path / "Malignant" / "m_mask_2.png", box=(40, 70, 4, 4), mask=True)
        picture(tmp_path / "normal" / "n.png", seed=30)
        picture(tmp_path / ".thumbnails" / "n.png", seed=30)
        (tmp_path / "benign" / "Thumbs.db").write_bytes(b"x")
        found = layouts.read(tmp_path)
        assert found.classes == types.Classes(("benign", "malignant", "normal"), 2)
        assert [e.uid for e in found.entries[1:3]] == ["benign/b (1)", "benign/b (2)"]
        assert [e.label for e in found.entries] == ["benign"] * 12 + ["malignant", "normal"]
        assert len(found.entries[12].masks) == 2
        assert found.entries[13].masks == ()  # normal without a mask shows no lesion
        assert "a folder for each class (Malignant, benign, normal)" in found.layout

    def test_names_with_odd_digits_are_sorted_too(self, tmp_path):
        """A superscript is a digit to Python, but not a number."""
        for name in ("a²", "a10", "a9", "a③"):
            picture(tmp_path / "x" / f"{name}.png")
            picture(tmp_path / "y" / f"{name}.png")
        names = [entry.uid for entry in layouts.read(tmp_path).entries]
        assert names[:4] == ["x/a9", "x/a10", "x/a²", "x/a③"]

    def test_class_folders_without_masks_are_for_classification_alone(self, tmp_path):
        for name in ("cyst", "fibroadenoma"):
            picture(tmp_path / "inner" / name / "a.png")
        found = layouts.read(tmp_path)
        assert found.classes == types.Classes(("cyst", "fibroadenoma"), None)
        assert [entry.masks for entry in found.entries] == [None, None]
        assert "no masks" in found.layout

    def test_images_and_masks_with_a_table(self, tmp_path):
        for name in ("a_1", "a_2", "b_1"):
            pair(tmp_path / "images", name, seed=1, mask_folder=tmp_path / "masks", ending="")
        rows = [
            ("Image", "Label", "Patient"),
            ("a_1.png", "Normal", "a"),
            ("a_2.png", "Lesion", "a"),
        ]
        rows += [("b_1.png", "Lesion", "b"), ("", "", ""), ("", "", "")]
        write_csv(tmp_path / "INFO.csv", rows, separator=";", encoding="utf-8-sig")
        found = layouts.read(tmp_path)
        assert [(e.uid, e.label, e.group) for e in found.entries] == [
            ("a_2", "Lesion", "a"),
            ("b_1", "Lesion", "b"),
            ("a_1", "normal", "a"),
        ]
        assert found.classes == types.Classes(("Lesion", "normal"), 1)

    def test_bus_bra(self, tmp_path):
        """As its documentation describes it; the real download was not at hand."""
        for name in ("0001-l", "0001-r", "0002-l"):
            picture(tmp_path / "BUSBRA" / "Images" / f"bus_{name}.png", seed=len(name))
            picture(tmp_path / "BUSBRA" / "Masks" / f"mask_{name}.png", box=BOX, mask=True)
        ids = ["bus_0001-l", "bus_0001-r", "bus_0002-l"]
        rows = [("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side", "BBOX")]
        rows += [(uid, uid[7], "x", "benign", "2", "d", "l", '"[1, 2]"') for uid in ids[:2]]
        rows.append((ids[2], "2", "y", "malignant", "5", "d", "l", '"[1, 2]"'))
        write_csv(tmp_path / "BUSBRA" / "bus_data.csv", rows)
        folds = [("ID", "Pathology", "kFold", "valid_1")]
        folds += [(ids[0], "benign", "1", "0"), (ids[1], "benign", "1", "0")]
        folds.append((ids[2], "malignant", "2", "1"))
        write_csv(tmp_path / "BUSBRA" / "5-fold-cv.csv", folds)
        found = layouts.read(tmp_path)
        assert [(e.uid, e.label, e.group, e.test_fold) for e in found.entries] == [
            (ids[0], "benign", "1", 0),
            (ids[1], "benign", "1", 0),
            (ids[2], "malignant", "2", 1),
        ]
        assert all(len(entry.masks) == 1 for entry in found.entries)
        assert found.classes == types.Classes(("benign", "malignant"), None)

    def test_one_folder_as_breast_has_it(self, tmp_path):
        """As its documentation describes it, the table saved as CSV; not the real download."""
        rows = [("CaseID", "Image_filename", "Mask_tumor_filename", "Classification", "Shape")]
        for number, label in enumerate(("benign", "malignant", "normal"), start=1):
            name = f"case{number:03d}"
            picture(tmp_path / f"{name}.png", seed=number)
            if label != "normal":
                picture(tmp_path / f"{name}_tumor.png", box=BOX, mask=True)
                picture(tmp_path / f"{name}_other1.png", box=BOX, mask=True)
            rows.append((str(number), f"{name}.png", f"{name}_tumor.png", label, "oval&irregular"))
        write_csv(tmp_path / "clinical.csv", rows)
        found = layouts.read(tmp_path)
        assert [(e.uid, e.label, e.group, len(e.masks)) for e in found.entries] == [
            ("case001", "benign", "1", 1),
            ("case002", "malignant", "2", 1),
            ("case003", "normal", "3", 0),
        ]
        assert "pictures in one folder with masks and clinical.csv" in found.layout

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_a_manifest(self, tmp_path, encoding, separator):
        for name in ("x", "y", "z"):
            pair(tmp_path / "any", name, seed=len(name))
        rows = [("Image", "Mask", "Label", "UID", "Group", "Fold")]
        rows.append(("any\\x.png", "any/x_mask.png", "Zyste é", "one", "p1", "1"))
        rows.append(("any/y.png", "", "Zyste é", "two", "p1", "2.0"))
        rows.append(("any/z.png", "any/z_mask.png|any/x_mask.png", "", "ten", "", "train"))
        write_csv(tmp_path / "manifest.csv", rows, separator=separator, encoding=encoding)
        found = layouts.read(tmp_path)
        assert [(e.uid, e.label, e.group, e.test_fold) for e in found.entries] == [
            ("ten", "", "", types.NO_FOLD),
            ("one", "Zyste é", "p1", 0),
            ("two", "Zyste é", "p1", 1),
        ]
        assert [None if e.masks is None else len(e.masks) for e in found.entries] == [2, 1, None]

    def test_nnunet_has_masks_of_codes_and_no_classes(self, tmp_path):
        for i in range(2):
            picture(tmp_path / "imagesTr" / f"case_{i}_0000.png", seed=i)
            codes = np.zeros(SIZE, np.uint8)
            codes[5:9, 5:9], codes[20:22, 30:40] = 1, 2
            (tmp_path / "labelsTr").mkdir(exist_ok=True)
            Image.fromarray(codes).save(tmp_path / "labelsTr" / f"case_{i}.png")
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0}}))
        found = load(tmp_path, tmp_path / "out")
        assert found.mask.sum(axis=(1, 2, 3)).tolist() == [4 + 5, 4 + 5]  # every second pixel
        assert (found.label == types.NO_LABEL).all()

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda root: None, ["It is empty", "folder for each class"]),
            (lambda root: picture(root / "a.png"), ["manifest.csv", "is missing"]),
            (lambda root: picture(root / "masks" / "a.png"), ["images is missing"]),
            (lambda root: picture(root / "images" / "a.png"), ["neither masks that can be read"]),
            (lambda root: picture(root / "imagesTr" / "a_0000.png"), ["nnU-Net", "dataset.json"]),
            (lambda root: write_csv(root / "manifest.csv", [("file2",)]), ["one called image"]),
            (
                lambda root: write_csv(root / "manifest.csv", [("image",), ("gone.png",)]),
                ["gone.png (line 2)", "not there"],
            ),
        ],
    )
    def test_what_is_not_understood(self, tmp_path, make, words):
        make(tmp_path)
        with pytest.raises(UserError) as caught:
            layouts.read(tmp_path)
        for word in words:
            assert word in str(caught.value)

    @pytest.mark.parametrize(
        ("folders", "named"),
        [
            (("train/benign", "train/malignant", "test/benign"), "test"),
            (("images/benign", "images/malignant", "masks/benign"), "images"),
            (("benign/images", "benign/masks", "malignant/images"), "benign/images"),
        ],
    )
    def test_parts_and_masks_are_not_taken_for_classes(self, tmp_path, folders, named):
        for number, folder in enumerate(folders):
            pair(tmp_path / folder, f"p{number}", seed=number)
        with pytest.raises(UserError, match=rf"but {named} is not the name of a class.*manifest"):
            layouts.read(tmp_path)

    @pytest.mark.parametrize("suffix", [".tif", ".gif"])
    def test_a_mask_of_several_pages_is_refused(self, tmp_path, suffix):
        pair(tmp_path / "benign", "a", seed=0)
        picture(tmp_path / "malignant" / "b.png", seed=1)
        pages = [Image.fromarray(np.full(SIZE, 255 * i, np.uint8)) for i in (0, 1)]
        mask = tmp_path / "malignant" / f"b_mask{suffix}"
        pages[0].save(mask, save_all=True, append_images=pages[1:])
        with pytest.raises(UserError, match=rf"b_mask\{suffix}.*holds several pictures"):
            load(tmp_path, tmp_path / "out")

    def test_a_mask_without_an_image_is_named(self, tmp_path):
        pair(tmp_path / "a", "one", seed=0)
        pair(tmp_path / "b", "one", seed=1)
        picture(tmp_path / "b" / "two_mask.png", mask=True)
        with pytest.raises(UserError, match="two_mask"):
            layouts.read(tmp_path)

    @pytest.mark.parametrize("fold", ["x", "-1", "1.5", "nan", "inf", "1e12"])
    def test_a_fold_that_is_no_number(self, tmp_path, fold):
        picture(tmp_path / "a.png")
        write_csv(tmp_path / "manifest.csv", [("image", "fold"), ("a.png", fold)])
        with pytest.raises(UserError, match=r"line 2.*whole number"):
            layouts.read(tmp_path)

    @pytest.mark.parametrize("bad", ["average", "a|b"])  # a figure's name, and what joins names
    def test_a_class_with_a_name_that_means_something_else(self, tmp_path, bad):
        for name in (bad, "other"):
            picture(tmp_path / name / "a.png")
        with pytest.raises(UserError, match=rf"'{re.escape(bad)}' cannot be the name of a class"):
            layouts.read(tmp_path)


def own_dataset(root, *, normal=False, count=24):
    """Wide boxes are benign, tall ones malignant; some without a mask, some without a label."""
    rows = [("image", "mask", "label", "uid")]
    for i in range(count):
        kind = i % (3 if normal else 2)
        box = (8, 10 + i, 8, 30) if kind == 0 else (4, 10 + i, 36, 8)
        name = f"p{i}"
        picture(root / f"{name}.png", seed=i, box=None if kind == 2 else box)
        mask = "" if i in (4, 5) else f"{name}_m.png"
        if mask:
            picture(root / mask, box=None if kind == 2 else box, mask=True)
        label = "" if i in (6, 7) else ("wide", "tall", "no lesion")[kind]
        rows.append((f"{name}.png", mask, label, f"u{i}"))
    write_csv(root / "manifest.csv", rows)
    return root


def test_loaded_as_any_dataset_and_built_again_when_a_file_changes(tmp_path, capsys):
    root = own_dataset(tmp_path / "mine")
    cases = load(root, tmp_path)
    assert cases.name == "mine"
    assert cases.classes == types.Classes(("tall", "wide"), None)
    assert (cases.image.shape, cases.mask.dtype) == ((24, 24, 40, 1), np.uint8)
    position = {uid: i for i, uid in enumerate(cases.uid.tolist())}
    assert sorted(np.flatnonzero(~cases.mask_known)) == sorted(position[u] for u in ("u4", "u5"))
    assert sorted(np.flatnonzero(~cases.label_known)) == sorted(position[u] for u in ("u6", "u7"))
    assert cases.label[position["u0"]] == 1
    assert "a manifest.csv with 24 images" in capsys.readouterr().err
    again = load(root, tmp_path)
    assert "building" not in capsys.readouterr().err
    assert data.fingerprint(again) == data.fingerprint(cases)
    picture(root / "p0.png", seed=99)
    changed = load(root, tmp_path)
    assert data.fingerprint(changed) != data.fingerprint(cases)
    assert (
        len(list((tmp_path / "built" / "tfds_busi").glob("folder_*"))) == 1
    )  # the old one is gone


def test_a_copy_is_grouped_with_its_original(tmp_path):
    root = tmp_path / "mine"
    for i in range(6):
        rng = np.random.default_rng(i)
        small = Image.fromarray(rng.integers(0, 255, (20, 24)).astype(np.uint8))
        path = root / ("a", "b")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((240, 200), Image.Resampling.BICUBIC).save(path)
    Image.open(root / "a" / "0.png").save(root / "b" / "copy.png")
    cases = load(root, tmp_path)
    group = dict(zip(cases.uid.tolist(), cases.group.tolist(), strict=True))
    assert group["a/0"] == group["b/copy"]
    assert len(set(group.values())) == 6


def test_copies_of_pictures_without_a_group_are_found(tmp_path):
    root = tmp_path / "mine"
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 24))
        small = Image.fromarray(pixels.astype(np.uint8))
        root.mkdir(exist_ok=True)
        small.resize((240, 200), Image.Resampling.BICUBIC).save(root / f"{i}.png")
    shutil.copy(root / "0.png", root / "copy.png")
    shutil.copy(root / "0.png", root / "again.png")
    given = {"0": "p1", "1": "p1", "copy": "", "again": "p2"}
    names = [*map(str, range(6)), "copy", "again"]
    rows = [("image", "label", "group")]
    rows += [(f"{n}.png", "ab"[i % 2], given.get(n, f"q{n}")) for i, n in enumerate(names)]
    write_csv(root / "manifest.csv", rows)
    cases = load(root, tmp_path)
    group = dict(zip(cases.uid.tolist(), cases.group.tolist(), strict=True))
    assert group["0"] == group["1"] == group["copy"] == group["again"]
    assert len(set(group.values())) == 5
    rows = [rows[0], *((*row[:2], row[2] or "p3") for row in rows[1:])]
    write_csv(root / "manifest.csv", rows)  # groups for all: they are known
    cases = load(root, tmp_path)
    group = dict(zip(cases.uid.tolist(), cases.group.tolist(), strict=True))
    assert group["0"] == group["1"] and len({group["0"], group["copy"], group["again"]}) == 3


def test_near_duplicates_unknown_are_said_each_time_and_looked_for_once_they_can_be(
    tmp_path, monkeypatch
):
    """Else a grouped split would leak without a word, in this and every later run."""
    root = own_dataset(tmp_path / "mine")
    shutil.copy(root / "p0.png", root / "p1.png")
    shutil.copy(root / "p0_m.png", root / "p1_m.png")
    with monkeypatch.context() as without:
        without.setattr(own, "_NEEDED", ("a_package_that_is_not_installed",))
        with pytest.warns(UserWarning, match="near-duplicates were not looked for"):
            assert len(set(load(root, tmp_path).group.tolist())) == 24
        with pytest.warns(UserWarning, match="near-duplicates were not looked for"):
            cases = load(root, tmp_path)
        assert "installs what that needs" in cases.not_compared
        data.save_arrays(cases, tmp_path / "mine.npz")
        config = configured(root, tmp_path)
        with pytest.warns(UserWarning, match="near-duplicates were not looked for"):
            crossval.train_and_evaluate(config, tmp_path / "run", folds=(0,))
    packed = data.load_arrays(tmp_path / "mine.npz", name="mine", image_size=(24, 40))
    assert packed.not_compared == cases.not_compared
    assert "**Near-duplicates are unknown:**" in (tmp_path / "run" / "summary.md").read_text()
    assert "Near-duplicates are unknown" in (tmp_path / "run" / "report.html").read_text()
    cases = load(root, tmp_path)
    group = dict(zip(cases.uid.tolist(), cases.group.tolist(), strict=True))
    assert (cases.not_compared, group["u0"]) == ("", group["u1"])


def test_everything_that_cannot_be_read_is_named_at_once(tmp_path):
    root = tmp_path / "mine"
    for name in ("a", "b"):
        pair(root / name, "one", seed=0)
        pair(root / name, "two", seed=1)
    (root / "a" / "one.png").write_bytes(b"\x89PNG but cut")
    Image.new("L", (7, 9)).save(root / "b" / "two_mask.png")
    with pytest.raises(UserError) as caught:
        load(root, tmp_path)
    message = str(caught.value)
    assert "2 of 4 images cannot be used" in message
    assert "one.png" in message
    assert "9 × 7 pixels (height × width), its image 48 × 80" in message


def test_an_unknown_dataset_says_that_a_folder_will_do():
    with pytest.raises(UserError, match="or a folder of your own pictures"):
        data.load_cases("curated_bsui")


def test_packed_and_read_again(tmp_path):
    cases = load(own_dataset(tmp_path / "mine", normal=True), tmp_path, normal_class="no lesion")
    assert cases.classes == types.Classes(("no lesion", "tall", "wide"), 0)
    data.save_arrays(cases, tmp_path / "mine.npz")
    found = data.load_arrays(
        tmp_path / "mine.npz", name=str(tmp_path / "mine"), image_size=(24, 40)
    )
    assert found.classes == cases.classes
    assert data.fingerprint(found) == data.fingerprint(cases)
    np.testing.assert_array_equal(found.has_mask, cases.has_mask)


def configured(root, tmp_path, **train):
    config = tiny.make_config(epochs=2, **train)
    config.data.name = str(root)
    config.data.folds = ()
    config.data.fold_count = 2
    config.data.data_dir, config.data.cache_dir = str(tmp_path / "b"), str(tmp_path / "c")
    return config


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)


def read_rows(workdir):
    rows = []
    for path in sorted(workdir.glob("fold_*/cases.csv")):
        rows += list(csv.DictReader(path.open()))
    return {row["uid"]: row for row in rows}


def test_two_classes_are_trained_tested_and_reported(tmp_path):
    """What is not known is not scored, and nothing is called normal."""
    root = own_dataset(tmp_path / "mine")
    result = crossval.train_and_evaluate(configured(root, tmp_path), tmp_path / "run")
    assert result["class_names"] == ["tall", "wide"]
    assert (result["split"], result["folds"]) == ("grouped", [0, 1])
    assert result["leaking_test_images"] == 0
    figures = result["results"]["raw"]["figures"]
    assert {"dsc_tall", "f1_wide", "auc_tall"} <= figures.keys()
    assert sum(figures["dsc_average"]["n"]) == 22
    assert sum(figures["acc"]["n"]) == 22
    assert list(result["results"]) == ["raw"]  # without a class "no lesion" nothing is refined
    rows = read_rows(tmp_path / "run")
    assert (rows["u4"]["dice"], rows["u6"]["label"]) == ("", "")
    assert {row["predicted"] for row in rows.values()} <= {"tall", "wide"}
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert (recorded["class_names"], recorded["normal_class"]) == (["tall", "wide"], "")
    for name in ("summary.md", "report.html"):
        text = (tmp_path / "run" / name).read_text()
        assert "DSC tall" in text
        assert "malignant" not in text


def test_class_weights_are_counted_once_the_classes_are_known(tmp_path):
    config = configured(own_dataset(tmp_path / "mine"), tmp_path)
    config.loss.class_weights = (1.0, 2.0, 1.0)
    with pytest.raises(UserError, match="each of the 2 classes tall, wide"):
        crossval.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.loss.class_weights = (1.0, 2.0)
    crossval.train_and_evaluate(config, tmp_path / "run", folds=(0,))


def test_a_class_without_a_lesion_that_the_data_do_not_have_is_refused(tmp_path, monkeypatch):
    root = own_dataset(tmp_path / "mine", normal=True)
    config = configured(root, tmp_path)
    packed = str(tmp_path / "mine.npz")
    places = [f"--data_dir={config.data.data_dir}"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = [f"--name={root}", f"--out={packed}", "--height=24", "--width=40", *places]
    config.data.arrays_file = packed
    config.data.image_size = (24, 40)
    config.data.normal_class = "no lesion"
    pack.main(arguments)
    with pytest.raises(UserError, match=r"data\.normal_class=no lesion: mine has no class that"):
        data.load_configured(config)
    pack.main([*arguments, "--normal_class=no lesion"])
    cases = data.load_configured(config)
    assert cases.classes.names[cases.classes.normal] == "no lesion"


def test_the_class_without_a_lesion_has_any_place_and_names_may_be_numbers(tmp_path):
    root = own_dataset(tmp_path / "mine", normal=True, count=30)
    table = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(table.replace("wide", "1").replace("tall", "07"))
    config = configured(root, tmp_path)
    config.data.normal_class = "no lesion"
    result = crossval.train_and_evaluate(config, tmp_path / "run")
    assert result["class_names"] == ["07", "1", "no lesion"]
    assert list(result["results"]) == ["raw", "refined"]
    for row in read_rows(tmp_path / "run").values():
        empty = row["predicted_pixels"] == "0"
        assert row["incoherent"] == str(empty != (row["predicted"] == "no lesion"))
        if empty:
            assert row["refined_predicted"] == "no lesion"


def test_one_task_where_the_other_has_no_truth(tmp_path):
    root = tmp_path / "mine"
    for i in range(24):
        picture(root / ("a", "b")[i % 2] / f"{i}.png", seed=i)
    config = configured(root, tmp_path)
    with pytest.raises(UserError, match=r"no masks.*--config.tasks=cls"):
        crossval.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.tasks = ("cls",)
    result = crossval.train_and_evaluate(config, tmp_path / "run")
    assert "acc" in result["results"]["raw"]["figures"]


def test_folds_of_a_file_are_called_given(tmp_path):
    root = own_dataset(tmp_path / "mine")
    config = configured(root, tmp_path)
    rows = [("uid", "fold"), *((f"u{i}", str(i // 2 % 2)) for i in range(24))]
    write_csv(tmp_path / "folds.csv", rows)
    config.data.folds_file = str(tmp_path / "folds.csv")
    result = crossval.train_and_evaluate(config, tmp_path / "run", folds=(1,))
    assert (result["split"], result["folds_of_split"]) == ("given", 2)
    assert sorted(read_rows(tmp_path / "run")) == sorted(
        f"u{i}" for i in range(24) if i // 2 % 2 == 1
    )
    write_csv(tmp_path / "folds.csv", rows[:-1])
    with pytest.raises(UserError, match="lacks 1 of 24 images, such as 'u23'"):
        crossval.train_and_evaluate(config, tmp_path / "other")


def test_no_run_folder_among_the_pictures(tmp_path):
    root = own_dataset(tmp_path / "mine")
    for workdir in (root, root / "run"):
        with pytest.raises(UserError, match="lies in the folder of pictures"):
            crossval.train_and_evaluate(configured(root, tmp_path), workdir)
    assert not (root / "config.json").exists()


def test_a_folder_that_moves_is_the_same_dataset(tmp_path, monkeypatch):
    """A run goes on, and can be tested and reported, wherever its pictures lie; others stay out."""
    root = own_dataset(tmp_path / "mine")
    workdir = tmp_path / "run"
    crossval.train_and_evaluate(configured(root, tmp_path), workdir, folds=(0,))
    monkeypatch.chdir(tmp_path)
    for spelled in ("mine/", "./mine", str(tmp_path / "other" / ".." / "mine")):
        (tmp_path / "other").mkdir(exist_ok=True)
        crossval.train_and_evaluate(configured(spelled, tmp_path), workdir, folds=(0,))
    there = root.rename(tmp_path / "moved")
    places = ["--run", str(workdir)]
    with pytest.raises(UserError, match=r"There is no folder .*--config.data.name=FOLDER"):
        crossval.evaluate(workdir)
    with pytest.raises(UserError, match=r"has pictures, but .*There is no folder .*--data"):
        command.main(places)
    assert report.has_pictures(workdir)
    command.main([*places, "--no_pictures"])
    assert not report.has_pictures(workdir)
    command.main([*places, "--data", str(there)])
    assert report.has_pictures(workdir)
    crossval.evaluate(workdir, changes={"data.name": str(there)})
    result = crossval.train_and_evaluate(configured(there, tmp_path), workdir)
    assert result["folds"] == [0, 1]
    assert json.loads((workdir / "config.json").read_text())["data"]["name"] == str(there)
    picture(there / "p0.png", seed=99)
    with pytest.raises(UserError, match="trained on a different dataset"):
        crossval.train_and_evaluate(configured(there, tmp_path), workdir)
    with pytest.raises(UserError, match=r"pictures in .*moved; give the folder"):
        crossval.evaluate(workdir, changes={"data.name": "phantom"})


def test_the_data_of_a_public_run_do_not_become_a_folder():
    config = tiny.make_config()
    config.data.name = "phantom"
    with pytest.raises(UserError, match=r"the run is on phantom.*mtbus external"):
        with_places(config, {"name": "somewhere"})
    assert with_places(config, {"data_dir": "x"}).data.data_dir == "x"
    assert config.data.data_dir == ""


@pytest.mark.parametrize("how", [{"separator": ";", "encoding": "utf-16"}, {"separator": "\t"}])
def test_a_folds_file_is_read_like_any_table(tmp_path, how):
    """Also in other words, from 1, and with rows that are empty."""
    config = configured(own_dataset(tmp_path / "mine"), tmp_path)
    config.data.folds_file = str(tmp_path / "folds.csv")
    parts = ("test", "train", "train", "val")
    rows = [("UID", "Fold"), ("", ""), *((f"u{i}", parts[i // 2 % 4]) for i in range(24))]
    write_csv(tmp_path / "folds.csv", rows, **how)
    cases = data.load_configured(config)
    assert data.resolve(config, cases).data.split == "given"
    (fold,) = splits.make_folds(cases, "given")
    there = {
        name: {int(uid[1:]) // 2 % 4 for uid in uids}
        for name, uids in fold.to_uids(cases.uid).items()
    }
    assert there == {"train": {1, 2}, "validation": {3}, "test": {0}}
    rows = [("uid", "kfold"), *((f"u{i}", str(i % 3 + 1)) for i in range(24))]
    write_csv(tmp_path / "folds.csv", rows, **how)
    assert set(data.load_configured(config).test_fold.tolist()) == {0, 1, 2}
    write_csv(tmp_path / "folds.csv", [*rows[:-1], ("u23", "")], **how)
    with pytest.raises(UserError, match=r"data.folds_file=.*line 25: 'u23' has no fold"):
        data.load_configured(config)
    config.data.folds_file = str(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match=r"data.folds_file=.*nowhere.csv cannot be read"):
        data.load_configured(config)


def test_a_folds_file_that_changed_is_said(tmp_path):
    config = configured(own_dataset(tmp_path / "mine"), tmp_path)
    config.data.folds_file = str(tmp_path / "folds.csv")
    for shift in (0, 1):
        rows = [("uid", "fold"), *((f"u{i}", str((i // 2 + shift) % 2)) for i in range(24))]
        write_csv(tmp_path / "folds.csv", rows)
        result = crossval.train_and_evaluate(config, tmp_path / "run", folds=(0,))
        assert result["split"] == ("given", "custom")[shift]
    assert "the folds file was changed" in (tmp_path / "run" / "summary.md").read_text()


def test_a_run_with_a_folds_file_is_tested_where_that_lies_now(tmp_path):
    config = configured(own_dataset(tmp_path / "mine"), tmp_path)
    rows = [("uid", "fold"), *((f"u{i}", str(i // 2 % 2)) for i in range(24))]
    write_csv(tmp_path / "folds.csv", rows)
    config.data.folds_file = str(tmp_path / "folds.csv")
    crossval.train_and_evaluate(config, tmp_path / "run", folds=(0,))
    there = (tmp_path / "folds.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(UserError, match="If it lies elsewhere now, give its new place"):
        crossval.evaluate(tmp_path / "run")
    changes = {"data.folds_file": str(there)}
    assert crossval.evaluate(tmp_path / "run", changes=changes)["split"] == "given"
    command.main(["--run", str(tmp_path / "run"), "--folds_file", str(there)])
    config = tiny.make_config()
    with pytest.raises(UserError, match="the run has no file of folds"):
        with_places(config, {"folds_file": "x.csv"})


def test_validation_marks_without_a_test_set(tmp_path):
    """In a column they are said to be unused; in a file that was given for the folds, refused."""
    config = configured(own_dataset(tmp_path / "mine"), tmp_path)
    marks = [("train", "val")[i % 2] for i in range(24)]
    rows = (tmp_path / "mine" / "manifest.csv").read_text().splitlines()
    table = [f"{rows[0]},fold", *(f"{r},{m}" for r, m in zip(rows[1:], marks, strict=True))]
    (tmp_path / "mine" / "manifest.csv").write_text("\n".join(table))
    with pytest.warns(UserWarning, match="marked for validation, but none for testing"):
        cases = data.load_configured(config)
    assert data.resolve(config, cases).data.split == "grouped"
    write_csv(tmp_path / "f.csv", [("uid", "fold"), *((f"u{i}", marks[i]) for i in range(24))])
    config.data.folds_file = str(tmp_path / "f.csv")
    with pytest.raises(UserError, match="marks no image as tested"):
        data.load_configured(config)
    write_csv(
        tmp_path / "f.csv",
        [("uid", "fold"), *((f"u{i}", ("test", "0", "1")[i % 3]) for i in range(24))],
    )
    with pytest.raises(UserError, match="given by numbers and by the word test"):
        data.load_configured(config)


@pytest.mark.parametrize("how", ["linked", "named"])
def test_files_elsewhere_that_change_are_built_again(tmp_path, how):
    there, root = tmp_path / "there", tmp_path / "mine"
    own_dataset(there)
    root.mkdir()
    if how == "linked":
        (root / "inner").symlink_to(there, target_is_directory=True)
    else:
        text = (there / "manifest.csv").read_text()
        (root / "manifest.csv").write_text(re.sub(r"(p\d+(_m)?\.png)", r"../there/\1", text))
    before = load(root, tmp_path)
    assert before.mask.any()
    picture(there / "p0_m.png", box=(0, 0, 48, 80), mask=True)
    after = load(root, tmp_path)
    assert after.mask.sum() > before.mask.sum()


def test_a_dataset_that_cannot_be_built_anew_is_kept(tmp_path, monkeypatch):
    root = own_dataset(tmp_path / "mine")
    with monkeypatch.context() as without:
        without.setattr(own, "_NEEDED", ("a_package_that_is_not_installed",))
        with pytest.warns(UserWarning, match="near-duplicates were not looked for"):
            load(root, tmp_path)
    with monkeypatch.context() as failing:
        failing.setattr(own, "examples", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(root, tmp_path)
    (built,) = (tmp_path / "built" / "tfds_busi").glob("folder_*")
    assert [path.name for path in built.iterdir()] == ["1.3.0"]
    with monkeypatch.context() as read_only:

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        read_only.setattr(os, "rename", refuse)
        with pytest.warns(UserWarning, match="near-duplicates were not looked for"):
            assert load(root, tmp_path).not_compared
    assert not load(root, tmp_path).not_compared
    assert [path.name for path in built.iterdir()] == ["1.3.0"]


def test_a_fixed_test_set_is_one_fold():
    label = np.arange(40) % 2
    group = np.array([f"g{i // 2}" for i in range(40)])
    test_fold = np.where(np.arange(40) < 8, 0, types.NO_FOLD)
    (fold,) = splits.given_folds(label, test_fold, group)
    assert fold.test.tolist() == list(range(8))
    assert sorted([*fold.train, *fold.validation]) == list(range(8, 40))
    assert not set(group[fold.train]) & set(group[fold.validation])
    with pytest.raises(UserError, match="without a gap"):
        splits.given_folds(label, np.where(test_fold == 0, 3, -1), group)
    with pytest.raises(UserError, match="no image of this dataset has a fold"):
        splits.given_folds(label, np.full(40, types.NO_FOLD), group)


def as_tiffs(source, target):
    """The pictures of class folders as 16-bit TIFF files of other names, with a manifest."""
    rows = [("image", "mask", "label", "uid")]
    for number, entry in enumerate(reversed(layouts.read(source).entries)):
        cells = []
        for path, kind in ((entry.image, "i"), (entry.masks[0], "m")):
            grey = np.array(Image.open(path).convert("RGB"))
            if kind == "i":
                grey = preprocess.to_greyscale(grey).astype(np.uint16) * 257
            else:
                grey = grey.max(axis=-1)
            name = f"{kind}{number}.tif" if kind == "i" else f"{kind}{number}.png"
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(target / name)
            cells.append(name)
        rows.append((*cells, entry.label.upper(), entry.uid))
    write_csv(target / "manifest.csv", rows, separator=";", encoding="utf-16")
    return target


def assert_same_dataset(first, second, tmp_path):
    one, two = load(first, tmp_path), load(second, tmp_path)
    assert data.fingerprint(one) == data.fingerprint(two)
    assert one.group.tolist() == two.group.tolist()
    return one, two


def test_sixteen_bit_tiffs_under_other_names_are_the_same_dataset(tmp_path):
    """The same images, masks, labels and groups, hence the same training."""
    for i in range(16):
        pair(tmp_path / "png" / ("benign", "malignant")[i % 2], f"p{i}", seed=i)
    tiffs = as_tiffs(tmp_path / "png", tmp_path / "tif")
    assert_same_dataset(tmp_path / "png", tiffs, tmp_path)


@pytest.mark.real
@pytest.mark.long
def test_busi_as_sixteen_bit_tiffs_is_the_same_dataset(tmp_path, real_data_dir):
    source = raw.find_busi(real_data_dir)
    for name in types.CLASS_NAMES:
        (tmp_path / "png" / name).mkdir(parents=True)
        for number in range(1, 17):
            for end in ("", "_mask"):
                file = f"{name} ({number}){end}.png"
                shutil.copyfile(source / name / file, tmp_path / "png" / name / file)
    tiffs = as_tiffs(tmp_path / "png", tmp_path / "tif")
    one, two = assert_same_dataset(tmp_path / "png", tiffs, tmp_path)
    folds = [splits.grouped_folds(each.label, each.group) for each in (one, two)]
    for a, b in zip(*folds, strict=True):
        assert a.fingerprint(one.uid) == b.fingerprint(two.uid)
