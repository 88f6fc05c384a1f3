"""The TFDS builder on tiny raw downloads, its complaints, the published folds, the real data."""

import csv
import functools
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from raw_dummies import BUSI_NUMBERS, edit, write_bus_uclm, write_busi
from sklearn.model_selection import StratifiedKFold

from mtbus_jax.errors import UserError
from mtbus_jax.types import CLASS_NAMES
from tfds_busi import fetch, folds, raw
from tfds_busi.configs import BusConfig
from tfds_busi.tfds_busi_dataset_builder import Builder, removed_from_curated

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "tests" / "data" / "curated_busi_test_folds.csv"
BUSI = BusConfig(name="busi_dummy", source="busi")
CURATED = BusConfig(name="curated_dummy", source="busi", curated=True)
BUS_UCLM = BusConfig(name="bus_uclm_dummy", source="bus_uclm")
NOT_CURATED = {"benign_1", "benign_2", "malignant_4", "normal_1"}


def published_folds():
    with PUBLISHED.open(newline="") as file:
        return [(row["uid"], int(row["fold"])) for row in csv.DictReader(file)]


def prepared(config, manual_dir, data_dir):
    builder = Builder(config=config, data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    return builder


def read(builder):
    return list(builder.as_data_source(split="all"))


# --- TFDS's own checks -----------------------------------------------------------------------

missing = [name for name in ("tensorflow", "dill") if importlib.util.find_spec(name) is None]
if missing:

    @pytest.mark.skip(reason=f"NOT TESTED by TFDS's own test case: {missing} not installed")
    def test_by_tfds_test_case():
        pass

else:

    class _BuilderCase(tfds.testing.DatasetBuilderTestCase):
        __test__ = False
        DATASET_CLASS = Builder

        @classmethod
        def setUpClass(cls):
            folder = pathlib.Path(tempfile.mkdtemp())
            cls.addClassCleanup(shutil.rmtree, folder)
            cls.WRITE(folder)
            cls.EXAMPLE_DIR = folder
            super().setUpClass()

        def _assertAsDataset(self, builder):
            """TFDS cannot read ArrayRecord as a tf.data.Dataset; the same checks, other reader."""
            for split, count in self.SPLITS.items():
                examples = list(builder.as_data_source(split=split))
                self.assertLen(examples, count)
                self.assertLen({example["uid"] for example in examples}, count)
                for name, info in builder.info.features.get_tensor_info().items():
                    for example in examples:
                        self.assertEqual(np.ndim(example[name]), len(info.shape), name)
                        if info.shape:  # scalars come as Python's own int and bytes
                            self.assertEqual(np.asarray(example[name]).dtype, info.dtype, name)

    class BusiTest(_BuilderCase):
        __test__ = True
        WRITE = staticmethod(write_busi)
        BUILDER_CONFIG_NAMES_TO_TEST = (BUSI,)
        SPLITS = {"train": 17}  # noqa: RUF012

    class CuratedBusiTest(_BuilderCase):
        __test__ = True
        WRITE = staticmethod(write_busi)
        BUILDER_CONFIG_NAMES_TO_TEST = (CURATED,)
        SPLITS = {"train": 13}  # noqa: RUF012

    class BusUclmTest(_BuilderCase):
        __test__ = True
        WRITE = staticmethod(write_bus_uclm)
        BUILDER_CONFIG_NAMES_TO_TEST = (BUS_UCLM,)
        SPLITS = {"train": 12}  # noqa: RUF012


# --- what is stored --------------------------------------------------------------------------


def assert_pictures(records, expected):
    for record in records:
        want = expected[record["uid"].decode()]
        np.testing.assert_array_equal(record["image"], want.image)
        np.testing.assert_array_equal(record["mask"][..., 0], want.mask * np.uint8(255))
        assert record["image"].dtype == record["mask"].dtype == np.uint8
        assert (record["height"], record["width"]) == want.mask.shape
        assert CLASS_NAMES[record["label"]] == want.label


def assert_folds(records):
    labels = [record["label"] for record in records]
    split = StratifiedKFold(4, shuffle=True, random_state=1993).split(labels, labels)
    for fold, (_, test) in enumerate(split):
        assert [records[index]["test_fold"] for index in test] == [fold] * len(test)


def test_busi_is_stored_whole_in_the_published_order(busi, tmp_path):
    root, expected = busi
    records = read(prepared(BUSI, root, tmp_path))
    order = [f"{label}_{n}" for label in CLASS_NAMES for n in sorted(BUSI_NUMBERS[label])]
    assert [record["uid"].decode() for record in records] == order
    assert_pictures(records, expected)
    assert_folds(records)
    assert expected["benign_2"].mask.mean() > 0.2  # three masks were OR-ed


def test_curated_busi_leaves_the_duplicates_out(busi, tmp_path):
    root, expected = busi
    records = read(prepared(CURATED, root, tmp_path))
    assert {record["uid"].decode() for record in records} == expected.keys() - NOT_CURATED
    assert_pictures(records, expected)
    assert_folds(records)
    assert all(record["group"] == record["uid"] for record in records)


def test_groups_of_duplicates_are_stored_where_they_are_known(busi, tmp_path, monkeypatch):
    table = tmp_path / "near.csv"
    rows = ["dataset,uid,group", *(f"{BUSI.name},{u},pair_1" for u in ("benign_1", "benign_2"))]
    table.write_text("\n".join([*rows, "other,malignant_4,pair_2\n"]))
    monkeypatch.setattr("tfds_busi.tfds_busi_dataset_builder._NEAR_DUPLICATES", table)
    groups = {r["uid"]: r["group"] for r in read(prepared(BUSI, busi[0], tmp_path))}
    assert groups[b"benign_1"] == groups[b"benign_2"] == b"pair_1"
    assert groups[b"malignant_4"] == b"malignant_4"
    assert groups[b"benign_20"] == b"benign_20"


def test_bus_uclm_is_stored_whole_in_the_published_order(bus_uclm, tmp_path):
    root, expected = bus_uclm
    records = read(prepared(BUS_UCLM, root, tmp_path))
    order = sorted(expected, key=lambda uid: (expected[uid].label, uid))
    assert [record["uid"].decode() for record in records] == order
    assert_pictures(records, expected)
    assert_folds(records)
    assert all(record["group"] == record["uid"][:4] for record in records)


def test_phantoms_are_stored_with_the_union_of_their_lesions(tmp_path, monkeypatch):
    from mtbus_jax.images import phantom

    few = [phantom.make_phantom(index, label=label) for index in range(4) for label in (2, 0, 1)]
    monkeypatch.setattr(phantom, "make_phantoms", lambda: iter(few))
    records = read(prepared("phantom", None, tmp_path))
    by_uid = {picture.uid: picture for picture in few}
    assert [record["label"] for record in records] == [0] * 4 + [1] * 4 + [2] * 4
    for record in records:
        picture = by_uid[record["uid"].decode()]
        union = np.zeros(picture.image.shape, bool)
        for mask in picture.masks:
            union |= mask
        np.testing.assert_array_equal(record["image"], np.stack([picture.image] * 3, axis=-1))
        np.testing.assert_array_equal(record["mask"][..., 0] == 255, union)
    assert_folds(records)


# --- complaints ------------------------------------------------------------------------------


def _save(path, pixels):
    Image.fromarray(pixels).save(path)


BUSI_DAMAGE = {
    "missing benign (2)_mask.png": lambda d: [f.unlink() for f in d.glob("benign/benign (2)_m*")],
    "missing normal (3).png": lambda d: (d / "normal/normal (3).png").unlink(),
    "no folder 'malignant'": lambda d: shutil.rmtree(d / "malignant"),
    "copy.png is not a file of BUSI": lambda d: (d / "benign/benign (1) copy.png").touch(),
    "picture .*malignant .4..png": lambda d: (d / "malignant/malignant (4).png").write_bytes(b"x"),
    "benign .1._mask.png has 5×7 pixels": lambda d: _save(
        d / "benign/benign (1)_mask.png", np.zeros((5, 7), bool)
    ),
    "transparent pixels": lambda d: _save(
        d / "benign/benign (1)_mask.png", np.zeros((20, 31, 4), np.uint8)
    ),
    "not stored as published .12-bit": lambda d: _save(
        d / "benign/benign (1).png", np.full((20, 31), 4095, np.uint16)
    ),
    r"benign .01..png is not a file of BUSI": lambda d: shutil.copy(
        d / "benign/benign (1).png", d / "benign/benign (01).png"
    ),
}


@pytest.mark.parametrize("complaint", BUSI_DAMAGE)
def test_a_damaged_busi_folder_is_named_and_nothing_is_left(complaint, busi, tmp_path):
    folder = shutil.copytree(busi[0], tmp_path / "raw") / "Dataset_BUSI_with_GT"
    BUSI_DAMAGE[complaint](folder)
    pattern = complaint.replace("(2)", r"\(2\)").replace("(3)", r"\(3\)")
    with pytest.raises(UserError, match=pattern):
        prepared(BUSI, folder, tmp_path / "built")
    assert not list((tmp_path / "built").rglob("*.array_record*"))
    assert not Builder(config=BUSI, data_dir=tmp_path / "built").is_prepared()


@pytest.mark.parametrize("name", ["HESN_001", "EFGH_002"])
@pytest.mark.parametrize("change", ["turned", "cropped", "one pixel", "stretched"])
def test_only_the_stretched_masks_of_bus_uclm_may_have_another_size(
    name, change, bus_uclm, tmp_path
):
    folder = shutil.copytree(bus_uclm[0], tmp_path / "raw") / "BUS-UCLM"
    path = folder / "masks" / f"{name}.png"
    with Image.open(path) as image:
        mask = np.asarray(image)
    mask = {"turned": np.rot90(mask), "cropped": mask[:-3, :-1], "one pixel": mask[:1, :1],
            "stretched": np.zeros((303, 428, 3), np.uint8)}[change]  # fmt: skip
    Image.fromarray(np.ascontiguousarray(mask)).save(path)
    if (name, change) == ("HESN_001", "stretched"):
        records = read(prepared(BUS_UCLM, folder, tmp_path / "built"))
        assert not {r["uid"]: r["mask"] for r in records}[b"HESN_001"].any()
        return
    with pytest.raises(UserError, match=rf"{name}\.png has {mask.shape[0]}×{mask.shape[1]} pixels"):
        prepared(BUS_UCLM, folder, tmp_path / "built")


def test_masks_with_soft_edges_are_a_warning(busi, tmp_path):
    folder = shutil.copytree(busi[0], tmp_path / "raw") / "Dataset_BUSI_with_GT"
    path = folder / "benign" / "benign (1)_mask.png"
    with Image.open(path) as image:
        soft = np.zeros((image.height, image.width), np.uint8)
    soft[4:9, 4:9], soft[5:8, 5:8] = 90, 255
    Image.fromarray(soft).save(path)
    with pytest.warns(UserWarning, match=r"between black and white.*: benign \(1\)_mask\.png$"):
        records = read(prepared(BUSI, folder, tmp_path / "built"))
    assert ({r["uid"]: r["mask"] for r in records}[b"benign_1"] > 0).sum() == 9


def test_a_mask_colour_that_contradicts_the_label_is_a_warning(bus_uclm, tmp_path):
    folder = shutil.copytree(bus_uclm[0], tmp_path / "raw")
    edit(folder / "BUS-UCLM/INFO.csv", "HESN_001.png;36x24;Benign", "HESN_001.png;36x24;Malignant")
    with pytest.warns(UserWarning, match="colour that contradicts .*: HESN_001$"):
        records = read(prepared(BUS_UCLM, folder, tmp_path / "built"))
    assert {r["uid"]: r["label"] for r in records}[b"HESN_001"] == 1


@pytest.mark.parametrize("config", ["busi", "curated_busi", "bus_uclm"])
def test_other_counts_than_the_published_ones_are_refused(config, busi, bus_uclm, tmp_path):
    root = (bus_uclm if config == "bus_uclm" else busi)[0]
    with pytest.raises(UserError, match=r"should have \d+ benign, \d+ malignant, \d+ normal"):
        prepared(config, root, tmp_path)


def test_another_number_of_patients_is_refused(bus_uclm, tmp_path):
    config = BusConfig(name="patients", source="bus_uclm", expected_patients=38)
    with pytest.raises(UserError, match="should have 38 patients; the raw data has 3"):
        prepared(config, bus_uclm[0], tmp_path)


def test_another_draw_of_folds_is_refused(busi, tmp_path):
    config = BusConfig(name="drift", source="busi", folds_digest="0" * 64)
    with pytest.raises(UserError, match="not the published ones"):
        prepared(config, busi[0], tmp_path)


def test_a_named_folder_without_the_data_is_not_passed_over_for_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.requests, "get", lambda *_, **__: pytest.fail("downloads"))
    with pytest.raises(UserError) as info:
        prepared("bus_uclm", tmp_path, tmp_path / "built")
    for part in (str(tmp_path), fetch.BUS_UCLM_PAGE, "--manual_dir", "INFO.csv"):
        assert part in str(info.value)


def test_other_formats_configurations_and_parts_are_refused(tmp_path):
    with pytest.raises(UserError, match="array_record only"):
        Builder(config="phantom", data_dir=tmp_path, file_format="tfrecord")
    with pytest.raises(UserError, match="array_record only"):
        Builder(config="phantom", data_dir=tmp_path).download_and_prepare(file_format="riegeli")
    few = tfds.download.DownloadConfig(max_examples_per_split=3)
    with pytest.raises(UserError, match="max_examples_per_split"):
        Builder(config="phantom", data_dir=tmp_path).download_and_prepare(download_config=few)
    with pytest.raises(UserError, match=r"Unknown configuration 'buzi'.*curated_busi"):
        Builder(config="buzi", data_dir=tmp_path)


def test_a_folder_of_ones_own_is_not_taken_for_another(tmp_path):
    """TFDS would say nothing, and keep what was built first."""

    def build(folder):
        options = tfds.download.DownloadConfig(manual_dir=folder)
        builder = Builder(config="folder", data_dir=tmp_path / "built")
        builder.download_and_prepare(download_config=options)
        return builder

    for name, count in (("one", 2), ("other", 3)):
        for kind in ("a", "b"):
            (tmp_path / name / kind).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 255, (20, 30)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / kind / f"{i}.png")
    for _ in range(2):
        assert build(tmp_path / "one").info.splits["train"].num_examples == 4
    with pytest.raises(UserError, match=r"was built from .*one as it was then; --overwrite"):
        build(tmp_path / "other")
    with pytest.raises(UserError, match="there is no such folder"):
        build(tmp_path / "nowhere")
    (tmp_path / "one" / "a" / "0.png").unlink()
    with pytest.raises(UserError, match="as it was then"):
        build(tmp_path / "one")


def test_the_tfds_command_ends_on_missing_data_with_a_paragraph_and_exit_code_2(tmp_path):
    if missing:
        pytest.skip(f"NOT TESTED: {missing} not installed")
    command = pathlib.Path(sys.executable).with_name("tfds")
    flags = ["--config=curated_busi", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}/built"]
    done = subprocess.run(
        [command, "build", "tfds_busi", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    paragraph = " ".join(done.stderr.split("tfds build: ")[1].split())
    assert paragraph.startswith("The raw data of curated_busi is missing")
    assert fetch.BUSI_URL in paragraph
    assert not (tmp_path / "built/tfds_busi/curated_busi/1.0.0").exists()


# --- facts -----------------------------------------------------------------------------------


def test_the_drawn_folds_are_the_published_ones():
    uid, fold = zip(*published_folds(), strict=True)
    labels = [CLASS_NAMES.index(name.split("_")[0]) for name in uid]
    assert list(uid) == sorted(uid, key=lambda u: (u.split("_")[0], int(u.split("_")[1])))
    assert tuple(folds.draw_test_folds(labels)) == fold
    assert folds.digest(uid, fold) == Builder.builder_configs["curated_busi"].folds_digest


def test_the_removed_images_are_all_of_busi_but_the_published_ones():
    everything = {
        f"{name}_{n + 1}"
        for name, count in zip(CLASS_NAMES, (437, 210, 133), strict=True)
        for n in range(count)
    }
    removed = removed_from_curated()
    assert len(removed) == 330
    assert removed == everything - {uid for uid, _ in published_folds()}


@pytest.mark.real
def test_real_curated_busi_has_the_published_cases_and_folds(real_data_dir, tmp_path, monkeypatch):
    """Without their pixels, all of which the next test decodes."""
    black = np.zeros((8, 12, 3), np.uint8)
    monkeypatch.setattr(raw, "decode_image", lambda record: black)
    nothing = raw.DecodedMask(black[..., 0] > 0, [])
    monkeypatch.setattr(raw, "decode_mask", lambda record, height, width: nothing)
    source = prepared("curated_busi", real_data_dir, tmp_path)
    skip = tfds.decode.SkipDecoding()
    records = list(source.as_data_source(split="all", decoders={"image": skip, "mask": skip}))
    assert [(r["uid"].decode(), r["test_fold"]) for r in records] == published_folds()
    assert Counter(r["label"] for r in records) == {0: 222, 1: 164, 2: 64}
    # The near-duplicates that the published list left in: a sweep of seven frames, and a pair.
    together = Counter(r["group"] for r in records)
    assert sorted(n for n in together.values() if n > 1) == [2, 7]


@pytest.mark.real
@pytest.mark.parametrize(
    ("find", "read_all", "counts"),
    [
        (raw.find_busi, raw.read_busi, {"benign": 437, "malignant": 210, "normal": 133}),
        (raw.find_bus_uclm, raw.read_bus_uclm, {"benign": 174, "malignant": 90, "normal": 419}),
    ],
)
def test_real_images_have_a_tumour_exactly_when_they_are_not_normal(
    find, read_all, counts, real_data_dir, monkeypatch
):
    """And the pixels that Pillow alone reads, of every seventh; a file is decoded once."""
    monkeypatch.setattr(raw, "_decode", functools.lru_cache(maxsize=8)(raw._decode))
    records = read_all(find(real_data_dir))
    assert Counter(record.label for record in records) == counts
    for number, record in enumerate(records):
        image = raw.decode_image(record)
        mask, between = raw.decode_mask(record, *image.shape[:2])
        assert not between, record.uid
        assert mask.any() == (record.label != "normal"), record.uid
        if record.patient:
            assert raw.mask_classes(record) == {record.label} - {"normal"}, record.uid
        if number % 7 == 0:
            assert_pillow_reads(record, image, mask)


def assert_pillow_reads(record, pixels, lesion):
    with Image.open(record.image) as image:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    if record.uid.startswith("HESN_"):
        return  # stretched
    union = np.zeros(lesion.shape, bool)
    for path in record.masks:
        with Image.open(path) as image:
            union |= (np.asarray(image.convert("RGB")) > 0).any(axis=-1)
    np.testing.assert_array_equal(lesion, union)


def test_looking_at_a_dataset_that_is_not_built_leaves_nothing(tmp_path, monkeypatch):
    """TFDS by itself leaves an empty folder where temporary files lie, each time."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Builder(config="curated_busi", data_dir=tmp_path / "data")
    assert list((tmp_path / "temporary").iterdir()) == []
