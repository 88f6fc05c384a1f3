"""Loading a built dataset: without TensorFlow, in order, exactly, and through the cache."""

import contextlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image
from raw_dummies import BUSI_NUMBERS, write_busi

from mtbus_jax import data
from mtbus_jax.errors import UserError
from mtbus_jax.images import preprocess
from mtbus_jax.images.enhancement import equalise_multi_peak
from mtbus_jax.types import CLASS_NAMES
from tfds_busi import tfds_busi_dataset_builder
from tfds_busi.tfds_busi_dataset_builder import Builder

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def dummy_busi(tmp_path, monkeypatch):
    """The configuration ``busi`` on 17 tiny images: (arguments of `load_cases`, expected)."""
    config = Builder.builder_configs["busi"]
    monkeypatch.setattr(config, "expected_counts", None)
    monkeypatch.setattr(config, "folds_digest", None)
    near = tmp_path / "near_duplicates.csv"
    near.write_text("dataset,uid,group\nbusi,benign_1,twins\nbusi,malignant_1,twins\n")
    monkeypatch.setattr(tfds_busi_dataset_builder, "_NEAR_DUPLICATES", near)
    expected = write_busi(tmp_path / "raw")
    names = {"data_dir": "built", "manual_dir": "raw", "cache_dir": "cache"}
    return {key: tmp_path / folder for key, folder in names.items()}, expected


def same(first, second):
    return data.fingerprint(first) == data.fingerprint(second)


def grey_of(picture):
    """OpenCV's, which is one less than Pillow's for half the colours."""
    if picture.ndim == 2:
        return picture
    red, green, blue = np.moveaxis(picture[..., :3].astype(int), -1, 0)
    return ((9797 * red + 19234 * green + 3737 * blue) >> 15).astype(np.uint8)


@contextlib.contextmanager
def pictures_gone():
    """Where a picture is needed again, the test fails."""

    def gone(*args):
        raise AssertionError("a picture is decoded though the cache has it")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.built, "decode", gone)
        yield


def test_phantoms_are_built_and_read_where_tensorflow_is_not_installed(tmp_path):
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "support")!r}]
from raw_dummies import hide_tensorflow
hide_tensorflow()
from mtbus_jax import data
assert "tensorflow_datasets" not in sys.modules, "importing mtbus_jax.data must be cheap"
from mtbus_jax.images import phantom
few = [phantom.make_phantom(index, label=label) for index in range(4) for label in (2, 0, 1)]
phantom.make_phantoms = lambda: iter(few)
cases = data.load_cases("phantom", image_size=(48, 64), data_dir="built", cache_dir="cache")
assert "tensorflow" not in sys.modules
print(cases.image.shape, sorted(set(cases.label.tolist())), sorted(set(cases.test_fold.tolist())))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(12, 48, 64, 1) [0, 1, 2] [0, 1, 2, 3]\n"
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("building dataset tfds_busi/phantom")


def test_cases_come_in_the_published_order_with_every_field(dummy_busi):
    arguments, expected = dummy_busi
    cases = data.load_cases("busi", image_size=(12, 17), **arguments)
    order = [f"{label}_{n}" for label in CLASS_NAMES for n in sorted(BUSI_NUMBERS[label])]
    assert cases.name == "busi"
    assert cases.uid.tolist() == order
    twins = {"benign_1", "malignant_1"}
    assert twins < set(order)
    assert cases.group.tolist() == ["twins" if u in twins else u for u in order]
    assert [CLASS_NAMES[label] for label in cases.label] == [expected[u].label for u in order]
    assert cases.original_size.tolist() == [list(expected[u].mask.shape) for u in order]
    assert set(cases.test_fold.tolist()) == {0, 1, 2, 3}
    assert cases.image.shape == cases.mask.shape == (17, 12, 17, 1)
    assert (cases.image.dtype, cases.mask.dtype) == (np.uint8, np.uint8)
    for name in ("label", "original_size", "test_fold"):
        assert getattr(cases, name).dtype == np.int32


def test_pictures_are_opencvs_greyscale_at_floor_of_i_times_source_over_target(dummy_busi):
    arguments, expected = dummy_busi
    cases = data.load_cases("busi", image_size=(12, 17), **arguments)
    for uid, image, mask in zip(cases.uid, cases.image, cases.mask, strict=True):
        grey = grey_of(expected[uid].image)
        height, width = grey.shape
        for row in range(12):
            for col in range(17):
                at = row * height // 12, col * width // 17
                assert image[row, col, 0] == grey[at]
                assert mask[row, col, 0] == expected[uid].mask[at]


def test_areas_are_averaged_for_images_and_masks_are_sampled(dummy_busi):
    arguments, expected = dummy_busi
    sampled = data.load_cases("busi", image_size=(12, 17), **arguments)
    averaged = data.load_cases("busi", image_size=(12, 17), resize="area", **arguments)
    for uid, image in zip(averaged.uid, averaged.image, strict=True):
        grey = grey_of(expected[uid].image)
        np.testing.assert_array_equal(image[..., 0], preprocess.resize_area(grey, 12, 17))
    np.testing.assert_array_equal(averaged.mask, sampled.mask)
    # Each has a cache of its own, and neither is taken for the other.
    with pictures_gone():
        for resize, cases in (("area", averaged), ("nearest", sampled)):
            again = data.load_cases("busi", image_size=(12, 17), resize=resize, **arguments)
            assert same(cases, again)
    assert not same(averaged, sampled)


@pytest.mark.parametrize("field", ["resize", "enhancement"])
def test_unknown_ways_are_refused_before_anything_is_built(tmp_path, field):
    with pytest.raises(UserError, match=rf"{field}='bad' is unknown\. Known: n"):
        data.load_cases("phantom", data_dir=tmp_path / "built", **{field: "bad"})
    assert not (tmp_path / "built").exists()


def test_images_are_enhanced_before_they_are_resized(dummy_busi):
    arguments, expected = dummy_busi
    plain = data.load_cases("busi", image_size=(12, 17), **arguments)
    enhanced = {"image_size": (12, 17), "enhancement": "multi_peak", **arguments}
    cases = data.load_cases("busi", **enhanced)
    for uid, image in zip(cases.uid, cases.image, strict=True):
        equalised = equalise_multi_peak(grey_of(expected[uid].image))
        np.testing.assert_array_equal(image[..., 0], preprocess.resize_nearest(equalised, 12, 17))
    np.testing.assert_array_equal(cases.mask, plain.mask)
    # Each has a cache of its own, and neither is taken for the other.
    with pictures_gone():
        assert same(cases, data.load_cases("busi", **enhanced))
        assert same(plain, data.load_cases("busi", image_size=(12, 17), **arguments))
    assert not same(cases, plain)


def test_the_cache_is_used_for_the_same_data_and_size_only(dummy_busi):
    arguments, _ = dummy_busi
    first = data.load_cases("busi", image_size=(12, 17), **arguments)
    with pictures_gone():
        again = data.load_cases("busi", image_size=(12, 17), **arguments)
    assert same(first, again)
    for name in ("uid", "group", "original_size", "test_fold"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).dtype == getattr(again, name).dtype
    turned = data.load_cases("busi", image_size=(17, 12), **arguments)
    assert turned.image.shape == (17, 17, 12, 1)


def test_another_build_under_the_same_name_makes_the_cache_stale(dummy_busi, tmp_path):
    arguments, _ = dummy_busi
    first = data.load_cases("busi", image_size=(12, 17), **arguments)
    mask = tmp_path / "raw/Dataset_BUSI_with_GT/benign/benign (20)_mask.png"
    Image.fromarray(~np.array(Image.open(mask).convert("L"))).save(mask)
    other = arguments | {"data_dir": tmp_path / "rebuilt"}
    second = data.load_cases("busi", image_size=(12, 17), **other)
    assert not same(first, second)
    with pictures_gone():
        assert same(second, data.load_cases("busi", image_size=(12, 17), **other))


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no zip"),
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        lambda path: np.savez(path, key="another"),
        _flip_a_byte,
    ],
)
def test_a_damaged_cache_is_ignored_and_rewritten(damage, dummy_busi):
    arguments, _ = dummy_busi
    first = data.load_cases("busi", image_size=(12, 17), **arguments)
    (path,) = arguments["cache_dir"].iterdir()
    damage(path)
    assert same(first, data.load_cases("busi", image_size=(12, 17), **arguments))
    with pictures_gone():
        assert same(first, data.load_cases("busi", image_size=(12, 17), **arguments))
    assert [p.name for p in arguments["cache_dir"].iterdir()] == [path.name]


def test_a_cache_folder_that_cannot_be_written_is_a_warning(dummy_busi, tmp_path):
    arguments, _ = dummy_busi
    (tmp_path / "file").touch()
    arguments["cache_dir"] = tmp_path / "file" / "cache"
    with pytest.warns(UserWarning, match="not cached"):
        cases = data.load_cases("busi", image_size=(12, 17), **arguments)
    assert len(cases) == 17


def test_raw_data_that_are_not_there_are_a_warning_once_the_dataset_is_built(dummy_busi, tmp_path):
    arguments, _ = dummy_busi
    first = data.load_cases("busi", image_size=(12, 17), **arguments)
    arguments["manual_dir"] = tmp_path / "mistyped"
    with pytest.warns(UserWarning, match=r"mistyped does not exist; busi is used"):
        assert same(first, data.load_cases("busi", image_size=(12, 17), **arguments))


def test_folders_default_to_the_environment(dummy_busi, tmp_path, monkeypatch):
    arguments, _ = dummy_busi
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from_env"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data.load_cases("busi", data_dir="", cache_dir="", manual_dir=arguments["manual_dir"])
    assert (tmp_path / "from_env/tfds_busi/busi").is_dir()
    assert [p.suffix for p in (tmp_path / "xdg/mtbus_jax").iterdir()] == [".npz"]


def test_an_unknown_name_is_answered_with_the_valid_ones():
    with pytest.raises(UserError, match=r"'curated'.*mean 'curated_busi'.*phantom.*bus_uclm"):
        data.load_cases("curated")


def test_missing_raw_data_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"raw data of bus_uclm is missing.*--manual_dir=FOLDER"):
        data.load_cases("bus_uclm", data_dir=tmp_path, manual_dir=tmp_path)


def test_an_interrupted_build_is_not_taken_for_a_dataset(dummy_busi):
    arguments, _ = dummy_busi
    folder = arguments["data_dir"] / "tfds_busi" / "busi"
    (folder / "incomplete.ABC123_1.0.0").mkdir(parents=True)  # what a killed build leaves
    assert len(data.load_cases("busi", image_size=(12, 17), **arguments)) == 17


def test_a_folder_without_a_description_is_refused(dummy_busi):
    arguments, _ = dummy_busi
    (arguments["data_dir"] / "tfds_busi/busi/1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no complete dataset\. Delete that folder"):
        data.load_cases("busi", **arguments)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: os.truncate(p, 900)])
def test_damaged_records_are_refused(damage, dummy_busi):
    arguments, _ = dummy_busi
    data.load_cases("busi", image_size=(12, 17), **arguments)
    (records,) = arguments["data_dir"].rglob("*.array_record*")
    damage(records)
    with pytest.raises(UserError, match=r"cannot be read.*Delete that folder"):
        data.load_cases("busi", image_size=(12, 17), **arguments)


def test_a_dataset_built_in_part_is_refused(dummy_busi, monkeypatch):
    arguments, _ = dummy_busi
    data.load_cases("busi", image_size=(12, 17), **arguments)
    monkeypatch.setattr(Builder.builder_configs["busi"], "expected_counts", (437, 210, 133))
    with pytest.raises(UserError, match="is not complete"):
        data.load_cases("busi", image_size=(10, 17), **arguments)


def test_the_fingerprint_sees_uid_label_image_and_mask(dummy_busi):
    import dataclasses

    arguments, _ = dummy_busi
    cases = data.load_cases("busi", image_size=(12, 17), **arguments)
    prints = {data.fingerprint(cases)}
    for name in ("image", "mask", "label"):
        changed = getattr(cases, name).copy()
        changed.flat[3] ^= 1
        prints.add(data.fingerprint(dataclasses.replace(cases, **{name: changed})))
    prints.add(data.fingerprint(dataclasses.replace(cases, uid=np.char.add(cases.uid, "x"))))
    prints.add(data.fingerprint(cases.take(np.arange(16))))
    assert len(prints) == 6
    assert data.fingerprint(cases.take(np.arange(17))) in prints
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update(mask=a["mask"] * 255), "has the value 255; masks are 0 and 1"),
        (lambda a: a.update(label=a["label"] + 3), "known are 0 benign, 1 malignant, 2 normal"),
        (lambda a: a.update(uid=np.array(["x"] * len(a["uid"]))), "'x' occurs twice"),
        (lambda a: a["uid"].__setitem__(3, "a\rb"), "cannot be printed"),
        (lambda a: a.update(label=a["label"][:-1]), "entries of label"),
        (lambda a: a.update(image=a["image"].astype(np.float32)), "image is an array of float32"),
        (lambda a: a.update(image=np.repeat(a["image"], 3, -1)), "must be (height, width, 1)"),
        (lambda a: a.update(label=a["label"].astype(float)), "label is an array of float64"),
    ],
)
def test_arrays_made_elsewhere_are_checked(tmp_path, change, words):
    """Such as masks of 0 and 255, which would train to nonsense."""
    cases = tiny.make_cases()
    data.save_arrays(cases, tmp_path / "good.npz")
    size = (tiny.HEIGHT, tiny.WIDTH)
    found = data.load_arrays(tmp_path / "good.npz", name="phantom", image_size=size)
    assert data.fingerprint(found) == data.fingerprint(cases)
    with np.load(tmp_path / "good.npz") as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError) as caught:
        data.load_arrays(tmp_path / "bad.npz", name="phantom", image_size=size)
    assert words in str(caught.value)


@pytest.mark.parametrize("size", [64, (64,), (0, 64), (64.5, 64), "64,64", None])
def test_a_size_that_is_none(size):
    with pytest.raises(UserError, match=r"image_size=.*give height and width"):
        data.load_cases("phantom", image_size=size)


def test_a_way_of_resizing_and_a_name_that_are_none(tmp_path):
    places = {"data_dir": tmp_path / "built", "cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match=r"resize='foo' is unknown\. Known: nearest, area"):
        data.load_cases("phantom", image_size=(16, 16), resize="foo", **places)
    with pytest.raises(UserError, match=r"data\.name is empty"):
        data.load_cases("", **places)
