"""Reading the raw downloads: every layout, every complaint, and the download itself."""

import pathlib
import shutil

import numpy as np
import pytest
from raw_dummies import edit

from mtbus_jax.errors import UserError
from tfds_busi import fetch, raw


@pytest.mark.parametrize("layout", ["itself", "nested", "zip inside", "zip itself"])
@pytest.mark.parametrize("source", ["busi", "bus_uclm"])
def test_every_layout_of_the_raw_data_is_found(source, layout, busi, bus_uclm, tmp_path):
    root, expected = busi if source == "busi" else bus_uclm
    folder = next(root.iterdir())
    find, read_all = (
        (raw.find_busi, raw.read_busi)
        if source == "busi"
        else (raw.find_bus_uclm, raw.read_bus_uclm)
    )
    archive = "Dataset_BUSI.zip" if source == "busi" else "7fvgj4jsp7-1.zip"
    if layout == "itself":
        place = folder
    elif layout == "nested":
        place = tmp_path
        shutil.copytree(folder, tmp_path / "some Dataset" / folder.name)
    else:
        made = shutil.make_archive(str(tmp_path / "made"), "zip", root)
        place = pathlib.Path(made).rename(tmp_path / archive)
        place = place if layout == "zip itself" else tmp_path
    records = read_all(find(place))
    assert {record.uid for record in records} == expected.keys()
    for record in records:
        image = raw.decode_image(record)
        np.testing.assert_array_equal(image, expected[record.uid].image)
        mask = raw.decode_mask(record, *image.shape[:2])
        np.testing.assert_array_equal(mask.lesion, expected[record.uid].mask)
        assert mask.between == []


@pytest.mark.parametrize(
    "name", ["archive.zip", "archive (1).zip", "Dataset_BUSI (2).ZIP", "below/download.zip"]
)
@pytest.mark.parametrize("zipped_twice", [False, True])
def test_a_zip_of_any_name_is_found(name, zipped_twice, busi, bus_uclm, tmp_path):
    for root, find, read_all in (
        (busi, raw.find_busi, raw.read_busi),
        (bus_uclm, raw.find_bus_uclm, raw.read_bus_uclm),
    ):
        place = tmp_path / find.__name__
        place.mkdir()
        made = pathlib.Path(shutil.make_archive(str(tmp_path / "made"), "zip", root[0]))
        if zipped_twice:
            (tmp_path / "inner").mkdir(exist_ok=True)
            made.rename(tmp_path / "inner" / "content.zip")
            made = pathlib.Path(
                shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "inner")
            )
        (place / name).parent.mkdir(exist_ok=True)
        made.rename(place / name)
        (place / "a broken one.zip").write_bytes(b"PK")
        records = read_all(find(place))
        assert {record.uid for record in records} == root[1].keys()
        raw.decode_image(records[0])


def test_a_folder_unpacked_into_one_of_its_own_name(busi, tmp_path):
    shutil.copytree(busi[0], tmp_path / "Dataset_BUSI_with_GT")
    found = raw.find_busi(tmp_path)
    assert found == tmp_path / "Dataset_BUSI_with_GT" / "Dataset_BUSI_with_GT"
    (tmp_path / "else" / "Dataset_BUSI_with_GT").mkdir(parents=True)
    with pytest.raises(UserError, match="has no folder 'benign'"):
        raw.read_busi(raw.find_busi(tmp_path / "else"))


def test_a_folder_three_levels_deep(bus_uclm, tmp_path):
    shutil.copytree(bus_uclm[0], tmp_path / "one" / "two")
    assert raw.find_bus_uclm(tmp_path) == tmp_path / "one" / "two" / "BUS-UCLM"


def test_what_desktops_and_spreadsheets_leave_behind(busi, bus_uclm, tmp_path):
    folder = shutil.copytree(busi[0], tmp_path / "busi") / "Dataset_BUSI_with_GT"
    for name in ("desktop.ini", "Thumbs.db", ".DS_Store", "Desktop.ini"):
        (folder / "benign" / name).touch()
    assert {record.uid for record in raw.read_busi(folder)} == busi[1].keys()
    folder = shutil.copytree(bus_uclm[0], tmp_path / "uclm") / "BUS-UCLM"
    text = (folder / "INFO.csv").read_text(encoding="utf-8-sig")
    for content in (
        f"{text};;;;;\r\n;;;;;\r\n".encode(),
        text.replace(";", ",").encode("utf-16"),
        text.replace(";", "\t").encode("utf-8-sig"),
    ):
        (folder / "INFO.csv").write_bytes(content)
        assert {record.uid for record in raw.read_bus_uclm(folder)} == bus_uclm[1].keys()


def test_nothing_is_found_where_nothing_is(tmp_path):
    (tmp_path / "benign").mkdir()
    (tmp_path / "other.zip").write_bytes(b"not ours")
    assert raw.find_busi(tmp_path) is raw.find_bus_uclm(tmp_path / "gone") is None


BUS_UCLM_DAMAGE = {
    "no 'masks'": lambda d: shutil.rmtree(d / "masks"),
    "missing images/IJKL_000.png": lambda d: (d / "images/IJKL_000.png").unlink(),
    "missing masks/IJKL_000.png": lambda d: (d / "masks/IJKL_000.png").unlink(),
    "the row of NEW_1.png in INFO.csv": lambda d: (d / "images/NEW_1.png").touch(),
    "line 2: label 'Unsure'": lambda d: edit(
        d / "INFO.csv", "IJKL_000.png;36x24;Normal", "A;;Unsure"
    ),
    "'HESN_001.png' is listed twice": lambda d: edit(d / "INFO.csv", "IJKL_000", "HESN_001"),
    "columns": lambda d: edit(d / "INFO.csv", "Label", "Class"),
}


@pytest.mark.parametrize("complaint", BUS_UCLM_DAMAGE)
def test_a_damaged_bus_uclm_folder_is_named(complaint, bus_uclm, tmp_path):
    folder = shutil.copytree(bus_uclm[0], tmp_path / "raw") / "BUS-UCLM"
    BUS_UCLM_DAMAGE[complaint](folder)
    with pytest.raises(UserError, match=complaint):
        raw.read_bus_uclm(raw.find_bus_uclm(folder))


def test_a_broken_zip_is_named(tmp_path):
    (tmp_path / "Dataset_BUSI.zip").write_bytes(b"PK half a download")
    with pytest.raises(UserError, match=r"Dataset_BUSI\.zip is not a readable zip"):
        raw.find_busi(tmp_path)


class _Download:
    """A download manager that has one file, or no network."""

    def __init__(self, archive):
        self._archive = archive

    @property
    def manual_dir(self):
        raise AssertionError("as TFDS does for a folder that does not exist")

    def download(self, url):
        assert url == fetch.BUSI_URL
        return self._archive


def test_a_download_is_checked_and_read(busi, tmp_path, monkeypatch):
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "x"), "zip", busi[0]))
    arguments = ("busi", "busi", None, _Download(archive))

    def offline(url, **_):
        raise ConnectionError(url)

    monkeypatch.setattr(fetch.requests, "get", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError\)"):
        fetch.records(*arguments)

    class Answer:
        __enter__ = raise_for_status = lambda self: self
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(fetch.requests, "get", lambda *_, **__: Answer())
    with pytest.raises(UserError, match="is not the published file: its SHA-256") as info:
        fetch.records(*arguments)
    digest = str(info.value).split("SHA-256 is ")[1].split(",")[0]
    monkeypatch.setattr(fetch, "BUSI_SHA256", digest)
    assert len(fetch.records(*arguments)) == 17
