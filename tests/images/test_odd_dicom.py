"""DICOM files that are easily read wrongly, or refused for a wrong reason."""

import dicom_dummies
import numpy as np
import pytest
from opencv_grey import luma

from mtbus_jax import images
from mtbus_jax.images import apart

HEIGHT, WIDTH = 40, 56


@pytest.fixture(autouse=True)
def dicom():
    return pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")


def frames_of(path):
    return list(images.read(path))


def written(tmp_path, frames, **elements):
    path = tmp_path / "a.dcm"
    dicom_dummies.write(path, np.asarray(frames), **elements)
    return path


class TestOneScale:
    def clip(self, brightest):
        """Frames with one background and a bright corner of growing value."""
        frames = np.full((len(brightest), HEIGHT, WIDTH), 200, np.uint16)
        frames[:, :4, :4] = np.array(brightest)[:, None, None]
        return frames

    @pytest.mark.parametrize("polarity", ["MONOCHROME2", "MONOCHROME1"])
    def test_stored_bits_decide(self, tmp_path, polarity):
        frames = self.clip([210, 300, 900, 2000, 4095])
        stored = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": polarity}
        found = frames_of(written(tmp_path, frames, **stored))
        background = 12 if polarity == "MONOCHROME2" else 243  # 200 of 4095
        assert [each.grey[-1, -1] for each in found] == [background] * 5
        assert all("12-bit values scaled to 8 bits" in each.notes for each in found)

    def test_values_of_all_frames_decide_where_the_header_says_nothing(self, tmp_path):
        found = frames_of(written(tmp_path, self.clip([210, 300, 900, 2000, 4095])))
        assert [each.grey[-1, -1] for each in found] == [12] * 5

    @pytest.mark.parametrize("stored", [{}, {"BitsStored": 12, "HighBit": 11}])
    def test_colour_of_16_bits(self, tmp_path, stored):
        frames = np.repeat(self.clip([210, 4095])[..., None], 3, -1)
        found = frames_of(written(tmp_path, frames, **stored))
        assert [each.grey[-1, -1] for each in found] == [12] * 2

    def test_stored_bits_after_rescaling(self, tmp_path):
        stored = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 2, "RescaleIntercept": -1000}
        found = frames_of(written(tmp_path, self.clip([210, 4095]), **stored))
        # 2 · 200 − 1000 of −1000 … 7190
        assert [each.grey[-1, -1] for each in found] == [round(400 / 8190 * 255)] * 2

    def test_negative_values(self, tmp_path):
        frames = np.stack([np.full((HEIGHT, WIDTH), -1024), np.full((HEIGHT, WIDTH), 1023)])
        frames[:, :2] = 0
        stored = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
        found = frames_of(written(tmp_path, frames.astype(np.int16), **stored))
        assert [each.grey[-1, -1] for each in found] == [
            round((value + 2048) / 4095 * 255) for value in (-1024, 1023)
        ]

    def test_a_header_that_says_too_few_bits_is_not_believed(self, tmp_path):
        frames = self.clip([4000])
        (found,) = frames_of(written(tmp_path, frames, BitsStored=8, HighBit=7))
        # Either the decoder cuts what is not stored, or the values decide; nothing wraps around.
        assert found.grey[0, 0] != found.grey[-1, -1]

    def test_a_scale_does_not_stand_in_the_way_of_a_window(self, tmp_path):
        window = {"WindowCenter": 200, "WindowWidth": 1}
        found = frames_of(written(tmp_path, self.clip([210, 4095]), **window))
        assert [each.grey[-1, -1] for each in found] == [255, 255]


class TestWindows:
    @pytest.mark.parametrize("group", ["SharedFunctionalGroupsSequence", "both"])
    def test_in_functional_groups(self, tmp_path, rng, dicom, group):
        """The frame's own window goes before the shared one; both before the header's."""
        frames = rng.integers(0, 4096, (2, HEIGHT, WIDTH)).astype(np.uint16)

        def functional(center, width):
            item, voi = dicom.Dataset(), dicom.Dataset()
            voi.WindowCenter, voi.WindowWidth = center, width
            voi.VOILUTFunction = "LINEAR_EXACT"
            item.FrameVOILUTSequence = [voi]
            return item

        elements = {"SharedFunctionalGroupsSequence": [functional(500, 1000)]}
        expected = [(500, 1000)] * 2
        if group == "both":
            elements["PerFrameFunctionalGroupsSequence"] = [
                functional(1000, 400), functional(3000, 800)
            ]  # fmt: skip
            expected = [(1000, 400), (3000, 800)]
        elements |= {"WindowCenter": 1, "WindowWidth": 2, "BitsStored": 12, "HighBit": 11}
        found = frames_of(written(tmp_path, frames, **elements))
        for each, values, (center, width) in zip(found, frames, expected, strict=True):
            share = np.clip((values.astype(float) - center) / width + 0.5, 0, 1)
            np.testing.assert_allclose(each.grey, share * 255, atol=0.51)
            assert "window applied" in each.notes

    def test_rescaling_in_functional_groups(self, tmp_path, rng, dicom):
        frames = rng.integers(0, 4096, (2, HEIGHT, WIDTH)).astype(np.uint16)
        item, transformation = dicom.Dataset(), dicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 0.5, -10
        item.PixelValueTransformationSequence = [transformation]
        elements = {"SharedFunctionalGroupsSequence": [item], "BitsStored": 12, "HighBit": 11}
        elements |= {"WindowCenter": 500, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}
        found = frames_of(written(tmp_path, frames, **elements))
        expected = np.clip((frames * 0.5 - 10 - 500) / 1000 + 0.5, 0, 1) * 255
        np.testing.assert_allclose([each.grey for each in found], expected, atol=0.51)

    def test_decimal_commas(self, tmp_path, grey, dicom):
        path = tmp_path / "a.dcm"
        texts = {"WindowCenter": ["127.5"], "WindowWidth": ["256.0"], "RescaleIntercept": ["1.5"],
                 "RescaleSlope": ["2.25"], "PixelSpacing": ["0.25", "0.75"]}  # fmt: skip
        dicom_dummies.write(path, grey[None], **texts)
        right = frames_of(path)[0]
        content = path.read_bytes()
        for text in (b"127.5", b"256.0", b"1.5 ", b"2.25", b"0.25\\0.75"):
            assert content.count(text) == 1
            content = content.replace(text, text.replace(b".", b","))
        path.write_bytes(content)
        (found,) = frames_of(path)
        np.testing.assert_array_equal(found.grey, right.grey)
        assert found.spacing == right.spacing == images.Spacing(0.25, 0.75)
        assert found.notes.count("decimal comma read as a point") == 1

    def test_a_decimal_comma_in_the_spacing_alone(self, tmp_path, grey):
        path = written(tmp_path, grey[None], PixelSpacing=["0.25", "0.75"])
        content = path.read_bytes()
        path.write_bytes(content.replace(b"0.25\\0.75", b"0,25\\0,75"))
        (found,) = frames_of(path)
        assert found.spacing == images.Spacing(0.25, 0.75)
        assert found.notes == ("decimal comma read as a point",)

    def test_a_number_that_is_none_is_said_to_be_none(self, tmp_path, grey):
        path = written(tmp_path, grey[None], WindowCenter="127.5", WindowWidth="256")
        path.write_bytes(path.read_bytes().replace(b"127.5", b"Zyxwv"))
        with pytest.raises(images.ReadError, match="WindowCenter that is not a number") as caught:
            frames_of(path)
        assert dicom_dummies.SECRET not in str(caught.value)


@pytest.mark.parametrize("order", ["words", "bytes"])
def test_a_palette_of_8_bit_entries(tmp_path, rng, order):
    """PS3.3 C.7.6.3.1.6: packed in bytes, or one in each word of 16 bits."""
    index = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        stored = entries.astype("<u2") if order == "words" else entries
        elements[f"{name}PaletteColorLookupTableData"] = stored.tobytes()
    (found,) = frames_of(written(tmp_path, index[None], **elements))
    np.testing.assert_array_equal(found.grey, luma(palette[index]))


@pytest.mark.parametrize("announced", [1, 2])
def test_frames_beyond_those_announced_are_noted(tmp_path, rng, announced):
    frames = rng.integers(0, 256, (3, HEIGHT, WIDTH)).astype(np.uint8)
    found = frames_of(written(tmp_path, frames, NumberOfFrames=announced))
    assert len(found) == announced
    note = f"holds 3 frames but announces {announced}, the others are left out"
    assert all(note in each.notes for each in found)
    (*_, last) = frames_of(written(tmp_path, frames))
    assert not any("announces" in note for note in last.notes)


def test_compressed_frames_beyond_those_announced_are_noted(tmp_path, rng, dicom):
    frames = rng.integers(0, 256, (3, HEIGHT, WIDTH)).astype(np.uint8)
    encode = dicom_dummies.pillow_encoder("JPEG2000", irreversible=False, no_jp2=True)
    syntax = dicom.uid.JPEG2000Lossless
    found = frames_of(written(tmp_path, frames, syntax=syntax, encode=encode, NumberOfFrames=2))
    assert len(found) == 2
    note = "holds more than 2 frames but announces 2, the others are left out"
    assert [note in each.notes for each in found] == [False, True]


def test_damaged_jpeg_data_does_not_end_the_process(tmp_path, grey, dicom):
    """GDCM ends the process on some; Pillow, which can do without, raises an error."""
    content = dicom_dummies.pillow_encoder("JPEG", quality=90)(grey)
    syntax = dicom.uid.JPEGBaseline8Bit
    for length in (2, 20, 200, len(content) // 2):
        cut = content[:length]
        path = written(tmp_path, grey[None], syntax=syntax, encode=lambda _, cut=cut: cut)
        with pytest.raises(images.ReadError):
            frames_of(path)


def test_gdcm_is_asked_in_a_process_of_its_own(dicom, monkeypatch, tmp_path, grey):
    """Only where Pillow cannot decode; and if that process ends, the file is refused."""
    pytest.importorskip("gdcm", reason="NOT TESTED without mtbus_jax[dicom]")
    asked = []
    original = apart.frames
    monkeypatch.setattr(apart, "frames", lambda *args: asked.append(args) or original(*args))
    encode = dicom_dummies.pillow_encoder("JPEG", quality=90)
    frames_of(written(tmp_path, grey[None], syntax=dicom.uid.JPEGBaseline8Bit, encode=encode))
    frames_of(written(tmp_path, grey[None]))
    assert asked == []
    lossless = dicom.uid.JPEGLSLossless
    path = written(tmp_path, grey[None], syntax=lossless, encode=lambda frame: b"no JPEG-LS data")
    with pytest.raises(images.ReadError, match="cannot be decoded"):
        frames_of(path)
    assert asked == [(path, lossless)]


def test_a_decoder_that_ends_its_process_is_a_file_that_cannot_be_read(tmp_path, grey, monkeypatch):
    program = (
        "import os, sys\n"
        "sys.stdout.write('[\"|u1\", [2, 3]]\\n123456')\n"
        "sys.stdout.flush()\n"
        "os.abort()"
    )
    popen = apart.subprocess.Popen
    monkeypatch.setattr(
        apart.subprocess, "Popen",
        lambda command, **options: popen([command[0], "-c", program], **options),
    )  # fmt: skip
    found = apart.frames(tmp_path / "a.dcm", "1.2")
    assert next(found).tolist() == [[49, 50, 51], [52, 53, 54]]
    with pytest.raises(RuntimeError, match="decoder ended"):
        next(found)


def test_a_process_that_is_not_read_to_its_end_is_ended(dicom):
    pytest.importorskip("gdcm", reason="NOT TESTED without mtbus_jax[dicom]")
    path = dicom.data.get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    if path is None:
        pytest.skip("NOT TESTED: this pydicom came without its test files")
    found = apart.frames(path, dicom.uid.JPEGLSLossless)
    assert next(found).shape == (64, 64)
    found.close()
    with pytest.raises(StopIteration):
        next(found)
