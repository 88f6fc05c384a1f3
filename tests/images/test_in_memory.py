"""Files that are held in memory give the same pictures as files on disk, and write nothing."""

import io
import signal

import dicom_dummies
import numpy as np
import pytest
from PIL import Image

from mtbus_jax import images
from mtbus_jax.images import apart


def write_pages(path, grey, colour):
    pages = [Image.fromarray(grey), Image.fromarray(grey[::-1])]
    pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])


def write_clip(path, grey, colour):
    region = dicom_dummies.region((0, 0, *grey.shape), 0.02, 0.01)
    frames = np.stack([grey, grey[::-1], 255 - grey])
    dicom_dummies.write(path, frames, SequenceOfUltrasoundRegions=[region])


def write_deep_clip(path, grey, colour):
    dicom_dummies.write(path, np.stack([grey.astype(np.uint16), grey.astype(np.uint16) * 16]))


def write_jpeg(path, grey, colour):
    import pydicom

    encode = dicom_dummies.pillow_encoder("JPEG", quality=90)
    dicom_dummies.write(path, grey[None], syntax=pydicom.uid.JPEGBaseline8Bit, encode=encode)


def write_deflated(path, grey, colour):
    import pydicom

    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
    dicom_dummies.write(path, colour[None], syntax=syntax)


FILES = {
    "a.png": lambda path, grey, colour: Image.fromarray(colour).save(path),
    "a.jpg": lambda path, grey, colour: Image.fromarray(grey).save(path),
    "a.tif": write_pages,
    "a.dcm": write_clip,
    "IM1": write_deep_clip,
    "b.dcm": write_jpeg,
    "c.dcm": write_deflated,
}


def same(found, wanted):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.grey, other.grey)
        assert (one.number, one.count, one.spacing) == (other.number, other.count, other.spacing)
        assert one.notes == other.notes


@pytest.mark.parametrize("name", FILES)
def test_the_same_as_from_disk(tmp_path, grey, colour, name):
    if "." not in name or name.endswith("dcm"):
        pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    path = tmp_path / name
    FILES[name](path, grey, colour)
    content = path.read_bytes()
    wanted = list(images.read(path))
    path.unlink()
    assert images.is_known(content[: images.HEAD_BYTES], name)
    same(list(images.read_content(content, name)), wanted)
    assert list(tmp_path.iterdir()) == []


def test_through_gdcm_in_a_process_of_its_own(monkeypatch):
    pydicom = pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
    pytest.importorskip("gdcm", reason="NOT TESTED without mtbus_jax[dicom]")
    path = pydicom.data.get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    if path is None:
        pytest.skip("NOT TESTED: this pydicom came without its test files")
    asked = []
    original = apart.frames
    monkeypatch.setattr(apart, "frames", lambda *args: asked.append(args) or original(*args))
    with open(path, "rb") as file:
        content = file.read()
    same(list(images.read_content(content, "a.dcm")), list(images.read(path)))
    assert asked[0] == (content, pydicom.uid.JPEGLSLossless)


@pytest.mark.parametrize("source", [bytes(1 << 22), "a.dcm"])
def test_a_process_that_hangs_is_ended(monkeypatch, tmp_path, source):
    """One that reads nothing of a long file, and one that writes nothing."""
    popen, started = apart.subprocess.Popen, []

    def sleeping(command, **options):
        started.append(popen([command[0], "-c", "import time; time.sleep(60)"], **options))
        return started[0]

    monkeypatch.setattr(apart.subprocess, "Popen", sleeping)
    monkeypatch.setattr(apart, "_PATIENCE", 0.5)
    with pytest.raises(RuntimeError, match="decoder ended"):
        list(apart.frames(source, "1.2"))
    assert started[0].returncode == -signal.SIGKILL


def test_a_process_that_ends_early_does_not_wait_for_the_rest(monkeypatch):
    """More than a pipe holds, to a process that reads nothing."""
    popen = apart.subprocess.Popen
    monkeypatch.setattr(
        apart.subprocess, "Popen",
        lambda command, **options: popen([command[0], "-c", "import os; os.abort()"], **options),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="decoder ended"):
        list(apart.frames(bytes(1 << 22), "1.2"))


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"text" * 50, "is not a PNG")])
def test_what_is_no_picture(content, reason):
    with pytest.raises(images.ReadError, match=reason):
        list(images.read_content(content, "a"))


def test_a_cut_picture(grey):
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    with pytest.raises(images.ReadError, match="cannot be decoded, it is cut"):
        list(images.read_content(buffer.getvalue()[:-100], "a.png"))


def test_kinds_by_their_first_bytes(grey):
    assert not images.is_known(b"%PDF-1.7" + bytes(200), "a.pdf")
    assert images.is_known(bytes(128) + b"DICM", "a")
    assert images.is_known(b"\x08\x00\x05\x00" + bytes(200), "a.dcm")
    assert not images.is_known(b"\x08\x00\x05\x00" + bytes(200), "a")
