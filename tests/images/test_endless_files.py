"""Files that never end, or unpack to gigabytes: refused soon, in words, without the memory."""

import io
import os
import pathlib
import subprocess
import sys
import zipfile
import zlib

import dicom_dummies
import numpy as np
import pytest
import tifffile
from PIL import Image

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.images import dicom, picture, reading, tiff
from tfds_busi import search

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 40, 56
PATIENCE = 120  # seconds; a process that waits for a pipe waits for ever


def refused(path):
    with pytest.raises(images.ReadError) as caught:
        list(images.decode(path))
    return caught.value.reason


@pytest.fixture
def folder(tmp_path, grey):
    """One picture, and a pipe and a device under many names, behind links and not."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(grey).save(folder / "a.png")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(folder / "b.png")
    for name in ("c.png", "d.dcm", "e", "INFO.csv", "manifest.csv"):
        (folder / name).symlink_to(tmp_path / "pipe")
    for name in ("f.png", "g.dcm", "h"):
        (folder / name).symlink_to("/dev/zero")
    (folder / "dead.png").symlink_to(tmp_path / "nowhere")
    return folder


def in_time(program, *arguments):
    """What a program in a process of its own says; it must end."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
class TestPipesAndDevices:
    def test_predicting_passes_them_over(self, folder):
        program = "import sys; from mtbus_jax import images\n"
        program += "print(*(each.name for each in images.find([sys.argv[1]]).sources))"
        assert in_time(program, folder) == ["a", "dead"]

    def test_curating_passes_them_over(self, folder):
        program = "import pathlib, sys; from mtbus_jax.curate.folder import list_folder\n"
        program += "print(*(e.uid for e in list_folder(pathlib.Path(sys.argv[1])).entries))"
        assert in_time(program, folder) == ["a", "dead"]

    def test_building_passes_them_over(self, folder):
        program = "import pathlib, sys; from tfds_busi import search\n"
        program += "print(*sorted(each.name for each in search.visible(pathlib.Path(sys.argv[1]))))"
        assert in_time(program, folder) == ["a.png", "dead.png"]

    @pytest.mark.parametrize("name", ["b.png", "c.png", "d.dcm", "f.png", "g.dcm"])
    def test_one_that_is_named_is_refused(self, folder, name):
        program = "import sys; from mtbus_jax import images\n"
        program += "try: list(images.read(sys.argv[1]))\n"
        program += "except images.ReadError as error: print(error.reason)"
        said = " ".join(in_time(program, folder / name))
        assert said == "cannot be opened (a folder, a device or a pipe)"
        with pytest.raises(UserError, match="no such file"):
            images.find([folder / name])


class TestWhatUnpacksToMore:
    @pytest.fixture(autouse=True)
    def little(self, monkeypatch):
        """Limits of a few kilobytes, so that a test needs no gigabytes."""
        for module in (reading, picture, dicom):
            monkeypatch.setattr(module, "MAX_BYTES", 20_000)
        monkeypatch.setattr(tiff, "_SLACK", 1000)

    @pytest.mark.parametrize("size", [20_000, 20_001])
    def test_an_entry_of_a_zip(self, tmp_path, grey, size):
        content = io.BytesIO()
        Image.fromarray(grey).save(content, "PNG")
        content = content.getvalue().ljust(size, b"\0")
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", content)
        entry = zipfile.Path(tmp_path / "a.zip", "a.png")
        if size > 20_000:
            assert "unpacks to more than" in refused(entry)
        else:
            np.testing.assert_array_equal(next(images.decode(entry)).pixels, grey)

    def test_a_zip_in_a_zip(self, tmp_path, monkeypatch):
        monkeypatch.setattr(search, "_LARGEST_ZIP", 1000)
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("b.zip", bytes(2000))
        with pytest.raises(UserError, match="Unpack the outer zip first"):
            search.find(tmp_path / "a.zip", lambda folder: False, ())

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp"])
    def test_a_picture_with_a_long_tail(self, tmp_path, grey, suffix):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(grey).save(path)
        list(images.decode(path))
        os.truncate(path, 20_001)
        assert "too many for one picture" in refused(path)

    def test_a_tiff_picture(self, tmp_path, grey):
        values = grey.astype(np.uint16) * 257
        for compression in ("zlib", "lzma"):
            path = tmp_path / f"{compression}.tif"
            packed = {"zlib": zlib.compress, "lzma": __import__("lzma").compress}[compression]
            for extra, whole in ((0, True), (100_000, False)):
                content = packed(values.tobytes() + bytes(extra))
                tifffile.imwrite(
                    path,
                    iter([content]),
                    shape=values.shape,
                    dtype=values.dtype,
                    compression={"zlib": 8, "lzma": 34925}[compression],
                    rowsperstrip=HEIGHT,
                )
                if whole:
                    np.testing.assert_array_equal(next(images.decode(path)).pixels, grey)
                else:
                    assert "unpacks to more than it says" in refused(path)

    def test_a_deflated_dicom_file(self, tmp_path, grey):
        pydicom = pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
        deflated = pydicom.uid.DeflatedExplicitVRLittleEndian
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None], syntax=deflated)
        np.testing.assert_array_equal(next(images.decode(path)).pixels, grey)
        dicom_dummies.write(path, grey[None], syntax=deflated, DataSetTrailingPadding=bytes(10**6))
        assert path.stat().st_size < 20_000
        assert "unpacks to more than" in refused(path)
        with pytest.raises(images.ReadError, match="unpacks to more than"):
            list(images.read_content(path.read_bytes(), "a.dcm"))


def test_a_dicom_file_that_announces_few_of_its_frames_is_not_read_as_a_whole(tmp_path, grey):
    """2 GB of zeros on disk, as a sparse file: the length is taken from the header."""
    pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    path = tmp_path / "a.dcm"
    dicom_dummies.write(path, grey[None])
    content = bytearray(path.read_bytes())
    at = content.rindex(grey.size.to_bytes(4, "little"), 0, len(content) - grey.size)
    size = 2 << 30
    content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, at + 4 + size)
    program = "import resource, sys; from mtbus_jax import images\n"
    program += "images.read_content  # loads what is needed\n"
    program += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    program += "found = next(images.read(sys.argv[1]))\n"
    program += "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    program += "print((after - before) // 1024, *found.notes)"
    megabytes, *notes = in_time(program, path)
    assert int(megabytes) < 200
    assert f"holds {size // grey.size} frames but announces 1" in " ".join(notes)
