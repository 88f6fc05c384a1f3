"""DICOM files of every kind, checked against pydicom's own processing and hand calculations."""

import logging
import warnings

import dicom_dummies
import numpy as np
import pytest
from frames import only
from opencv_grey import luma
from PIL import Image

from mtbus_jax import images

HEIGHT, WIDTH = 40, 56


@pytest.fixture(autouse=True)
def dicom():
    return pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")


class TestDicom:
    def written(self, tmp_path, pixels, **elements):
        path = tmp_path / "a.dcm"
        pixels = np.asarray(pixels)
        dicom_dummies.write(path, pixels if "frames" in elements else pixels[None], **elements)
        return path

    def test_grey_of_8_bits(self, tmp_path, grey):
        found = only(self.written(tmp_path, grey))
        np.testing.assert_array_equal(found.grey, grey)
        assert found.notes == ("no mm: the file gives no spacing",)

    def test_without_any_suffix(self, tmp_path, grey):
        self.written(tmp_path, grey).rename(tmp_path / "IM_0001")
        np.testing.assert_array_equal(only(tmp_path / "IM_0001").grey, grey)

    def test_monochrome1_is_inverted(self, tmp_path, grey):
        found = only(self.written(tmp_path, grey, PhotometricInterpretation="MONOCHROME1"))
        np.testing.assert_array_equal(found.grey, 255 - grey)
        assert "MONOCHROME1 inverted" in found.notes

    def test_12_bits_without_a_window(self, tmp_path, rng):
        values = rng.integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
        values[0, 0] = 4095
        found = only(self.written(tmp_path, values, BitsStored=12, HighBit=11))
        np.testing.assert_allclose(found.grey, values / 4095 * 255, atol=0.5)
        assert "12-bit values scaled to 8 bits" in found.notes

    @pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize("rescaled", [False, True])
    def test_window_as_pydicom_applies_it(self, tmp_path, rng, dicom, function, rescaled):
        values = rng.integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
        elements = {"WindowCenter": [1500, 40], "WindowWidth": [2000, 400]}
        if function:
            elements["VOILUTFunction"] = function
        if rescaled:
            elements |= {"RescaleSlope": 2, "RescaleIntercept": -1000}
        path = self.written(tmp_path, values, BitsStored=12, HighBit=11, **elements)
        found = only(path)
        data = dicom.dcmread(path)
        shown = dicom.pixels.apply_modality_lut(values, data)
        shown = dicom.pixels.apply_windowing(shown, data)
        low, high = (-1000, 4095 * 2 - 1000) if rescaled else (0, 4095)
        np.testing.assert_allclose(found.grey, (shown - low) / (high - low) * 255, atol=0.51)
        assert "window applied" in found.notes
        assert ("modality table or rescaling applied" in found.notes) == rescaled

    def test_window_of_width_one_is_a_step(self, tmp_path, grey):
        found = only(self.written(tmp_path, grey, WindowCenter=100, WindowWidth=1))
        np.testing.assert_array_equal(found.grey, np.where(grey > 99.5, 255, 0))

    @pytest.mark.parametrize("width", [0, -3])
    def test_window_of_no_width(self, tmp_path, grey, width):
        found = only(self.written(tmp_path, grey, WindowCenter=100, WindowWidth=width))
        np.testing.assert_array_equal(found.grey, grey)
        assert "window of no width ignored" in found.notes

    @pytest.mark.parametrize("vr", ["US", "OW"])
    def test_lookup_tables(self, tmp_path, dicom, vr):
        # Modality: v → 3v + 10 for v = 5 … 104; VOI: 10 bits, w → 1023 − w for w = 0 … 1023.
        values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16) % 120
        tables = []
        for table, first, bits in (
            (3 * np.arange(5, 105) + 10, 5, 16),
            (1023 - np.arange(1024), 0, 10),
        ):
            item = dicom.Dataset()
            item.LUTDescriptor = [len(table), first, bits]
            data = table.astype("<u2")
            item.add_new("LUTData", vr, data.tobytes() if vr == "OW" else data.tolist())
            tables.append(dicom.Sequence([item]))
        path = self.written(
            tmp_path, values, ModalityLUTSequence=tables[0], VOILUTSequence=tables[1]
        )
        found = only(path)
        expected = (1023 - (3 * np.clip(values.astype(int), 5, 104) + 10)) * 255 / 1023
        np.testing.assert_allclose(found.grey, expected, atol=0.51)
        assert {"modality table or rescaling applied", "VOI table applied"} <= set(found.notes)

    def test_colour(self, tmp_path, colour):
        expected = luma(colour)
        found = only(self.written(tmp_path, colour))
        np.testing.assert_array_equal(found.grey, expected)
        assert "colour turned to grey" in found.notes

    def test_ycbcr(self, tmp_path, colour):
        # Its first channel is the luma.
        stored = np.asarray(Image.fromarray(colour).convert("YCbCr"))
        path = self.written(tmp_path, stored, PhotometricInterpretation="YBR_FULL")
        difference = only(path).grey.astype(int) - stored[..., 0]
        # Colours that RGB cannot hold are clipped on the way.
        assert np.percentile(np.abs(difference), 95) <= 2

    def test_frames_of_ycbcr_with_half_the_chroma(self, tmp_path, rng, dicom):
        """Uncompressed: two luma values, then one of each chroma, for two pixels."""
        luma = rng.integers(60, 190, (5, HEIGHT, WIDTH)).astype(np.uint8)
        stored = np.full((5, HEIGHT, WIDTH // 2, 4), 128, np.uint8)
        stored[..., :2] = luma.reshape(5, HEIGHT, WIDTH // 2, 2)
        path = tmp_path / "clip.dcm"
        dicom_dummies.write(path, np.repeat(luma[..., None], 3, axis=-1))
        data = dicom.dcmread(path)
        data.PhotometricInterpretation, data.PixelData = "YBR_FULL_422", stored.tobytes()
        data.save_as(path)
        frames = list(images.read(path))
        assert [frame.count for frame in frames] == [5] * 5
        for frame, expected in zip(frames, luma, strict=True):
            assert np.abs(frame.grey.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, tmp_path, rng, bits):
        index = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
        palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
        elements = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, entries in zip(("Red", "Green", "Blue"), palette.T, strict=True):
            elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
            stored = entries if bits == 8 else entries.astype("<u2") * 256 + 7
            elements[f"{name}PaletteColorLookupTableData"] = stored.tobytes()
        found = only(self.written(tmp_path, index, **elements))
        expected = luma(palette[index])
        np.testing.assert_array_equal(found.grey, expected)
        assert "palette replaced by its colours" in found.notes

    def test_frames_in_order(self, tmp_path, rng):
        frames = rng.integers(0, 256, (12, HEIGHT, WIDTH)).astype(np.uint8)
        dicom_dummies.write(tmp_path / "a.dcm", frames)
        found = list(images.read(tmp_path / "a.dcm"))
        assert [(f.number, f.count) for f in found] == [(i, 12) for i in range(1, 13)]
        np.testing.assert_array_equal([f.grey for f in found], frames)

    @pytest.mark.parametrize(
        ("syntax", "file_format", "options", "tolerance"),
        [
            ("JPEGBaseline8Bit", "JPEG", {"quality": 95}, 8),
            ("JPEG2000Lossless", "JPEG2000", {"irreversible": False, "no_jp2": True}, 0),
        ],
    )
    def test_compressed_frames(self, tmp_path, dicom, syntax, file_format, options, tolerance):
        ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8)
        frames = np.stack([ramp, 200 - ramp])
        dicom_dummies.write(
            tmp_path / "a.dcm",
            frames,
            syntax=getattr(dicom.uid, syntax),
            encode=dicom_dummies.pillow_encoder(file_format, **options),
        )
        found = np.stack([f.grey for f in images.read(tmp_path / "a.dcm")])
        assert np.abs(found.astype(int) - frames).max() <= tolerance

    def test_run_length_encoding(self, tmp_path, grey, dicom):
        path = self.written(tmp_path, grey)
        data = dicom.dcmread(path)
        data.compress(dicom.uid.RLELossless)
        data.save_as(path)
        np.testing.assert_array_equal(only(path).grey, grey)

    def test_deflated(self, tmp_path, grey, dicom):
        path = self.written(tmp_path, grey)
        data = dicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = dicom.uid.DeflatedExplicitVRLittleEndian
        data.save_as(path, enforce_file_format=True)
        np.testing.assert_array_equal(only(path).grey, grey)

    def test_bare_data_set(self, tmp_path, grey, dicom):
        path = self.written(tmp_path, grey)
        data = dicom.dcmread(path)
        del data.file_meta
        data.preamble = None
        for implicit in (True, False):
            data.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
            assert path.read_bytes()[128:132] != b"DICM"
            np.testing.assert_array_equal(only(path).grey, grey)

    @pytest.mark.parametrize(
        ("name", "twin"),
        [
            ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
            ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
            ("MR_small_RLE.dcm", "MR_small.dcm"),
            ("MR_small_bigendian.dcm", "MR_small.dcm"),
            ("SC_rgb_jls_lossy_line.dcm", "SC_rgb_rle.dcm"),
        ],
    )
    def test_files_of_other_makers(self, dicom, name, twin):
        """One picture compressed in several ways, from the files that come with pydicom."""
        gdcm_needed = "jpeg_ls" in name or "jls" in name
        if gdcm_needed:
            pytest.importorskip("gdcm", reason="NOT TESTED without mtbus_jax[dicom]")
        try:
            paths = [dicom.data.get_testdata_file(each, download=False) for each in (name, twin)]
        except (FileNotFoundError, OSError):
            paths = [None]
        if None in paths:
            pytest.skip("NOT TESTED: this pydicom came without its test files")
        one, other = (only(path).grey.astype(int) for path in paths)
        assert other.std() > 20
        assert np.abs(one - other).mean() < (3 if "lossy" in name else 1e-9)


class TestSpacing:
    def spacing(self, tmp_path, grey, **elements):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None], **elements)
        found = only(path)
        return found.spacing, " ".join(found.notes)

    def test_pixel_spacing_is_row_then_column(self, tmp_path, grey):
        spacing, notes = self.spacing(tmp_path, grey, PixelSpacing=[0.2, 0.1])
        assert spacing == images.Spacing(0.2, 0.1)
        assert "mm" not in notes

    def test_ultrasound_regions_are_in_centimetres(self, tmp_path, grey):
        item = dicom_dummies.region((2, 3, 30, 50), -0.02, 0.01)  # its y axis points up
        spacing, _ = self.spacing(
            tmp_path, grey, SequenceOfUltrasoundRegions=[item], PixelSpacing=[9, 9]
        )
        assert (spacing.row_mm, spacing.col_mm) == pytest.approx((0.2, 0.1))
        assert spacing.regions == ((2, 3, 30, 50),)

    def test_regions_that_agree_and_one_that_is_no_picture(self, tmp_path, grey):
        items = [
            dicom_dummies.region((0, 0, 40, 28), 0.02, 0.01),
            dicom_dummies.region((0, 28, 40, 56), 0.02, 0.01),
            dicom_dummies.region((0, 0, 9, 9), 0.5, 0.5, spatial_format=3),  # a spectrum
            dicom_dummies.region((0, 0, 9, 9), 0.7, 0.7, units=4),  # seconds
        ]
        spacing, notes = self.spacing(tmp_path, grey, SequenceOfUltrasoundRegions=items)
        assert (spacing.row_mm, spacing.col_mm) == pytest.approx((0.2, 0.1))
        assert len(spacing.regions) == 2
        assert "mm" not in notes

    def test_regions_that_differ(self, tmp_path, grey):
        items = [
            dicom_dummies.region((0, 0, 40, 28), 0.02, 0.01),
            dicom_dummies.region((0, 28, 40, 56), 0.02, 0.011),
        ]
        spacing, notes = self.spacing(
            tmp_path, grey, SequenceOfUltrasoundRegions=items, PixelSpacing=[1, 1]
        )
        assert spacing is None
        assert "no mm: the picture has regions of different scale" in notes

    def test_a_region_that_reaches_beyond_the_picture(self, tmp_path, grey):
        """A picture that was made smaller without its calibration."""
        item = dicom_dummies.region((0, 0, 80, 112), 0.02, 0.01)
        spacing, notes = self.spacing(tmp_path, grey, SequenceOfUltrasoundRegions=[item])
        assert spacing is None
        assert "reaches beyond the picture" in notes

    def test_regions_without_calibration_leave_it_to_pixel_spacing(self, tmp_path, grey):
        item = dicom_dummies.region((0, 0, 40, 56), 0, 0)
        spacing, _ = self.spacing(
            tmp_path, grey, SequenceOfUltrasoundRegions=[item], PixelSpacing=[0.3, 0.4]
        )
        assert spacing == images.Spacing(0.3, 0.4)

    def test_shared_functional_groups(self, tmp_path, grey, dicom):
        measures, group = dicom.Dataset(), dicom.Dataset()
        measures.PixelSpacing = [0.3, 0.4]
        group.PixelMeasuresSequence = [measures]
        spacing, _ = self.spacing(tmp_path, grey, SharedFunctionalGroupsSequence=[group])
        assert spacing == images.Spacing(0.3, 0.4)

    def test_detector_spacing_comes_last_and_says_so(self, tmp_path, grey):
        spacing, notes = self.spacing(tmp_path, grey, ImagerPixelSpacing=[0.1, 0.1])
        assert spacing == images.Spacing(0.1, 0.1)
        assert "detector" in notes

    @pytest.mark.parametrize("value", [[0, 0.1], [-0.1, 0.1], [0.1]])
    def test_values_that_are_no_spacing(self, tmp_path, grey, value):
        spacing, notes = self.spacing(tmp_path, grey, PixelSpacing=value)
        assert spacing is None
        assert "no spacing" in notes


class TestBadDicom:
    def refused(self, path):
        frames = []
        with pytest.raises(images.ReadError) as caught:
            for each in images.read(path):
                frames.append(each)
        assert dicom_dummies.SECRET not in str(caught.value)
        return caught.value, len(frames)

    def test_truncated(self, tmp_path, grey):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None])
        content = path.read_bytes()
        for length in (140, 400, len(content) - 100):
            path.write_bytes(content[:length])
            error, frames = self.refused(path)
            assert frames == 0
            assert error.number is None
            assert "damaged" in error.reason or "is not a DICOM file" in error.reason

    def test_a_sequence_that_is_cut(self, tmp_path, grey):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, np.stack([grey] * 4))
        path.write_bytes(path.read_bytes()[: -grey.size - 100])
        error, frames = self.refused(path)
        assert (frames, error.number) == (2, 3)

    def test_a_compressed_sequence_that_is_cut(self, tmp_path, grey, dicom):
        path = tmp_path / "a.dcm"
        encode = dicom_dummies.pillow_encoder("JPEG2000", irreversible=False, no_jp2=True)
        dicom_dummies.write(
            path, np.stack([grey] * 4), syntax=dicom.uid.JPEG2000Lossless, encode=encode
        )
        length = len(encode(grey))
        path.write_bytes(path.read_bytes()[: -length - length // 2])
        error, frames = self.refused(path)
        assert 1 <= frames <= 3
        assert error.number == frames + 1

    def test_fewer_frames_than_announced(self, tmp_path, grey, dicom):
        path = tmp_path / "a.dcm"
        encode = dicom_dummies.pillow_encoder("JPEG2000", irreversible=False, no_jp2=True)
        dicom_dummies.write(
            path,
            np.stack([grey] * 2),
            syntax=dicom.uid.JPEG2000Lossless,
            encode=encode,
            NumberOfFrames=5,
        )
        error, _ = self.refused(path)
        assert error.reason

    def test_no_picture_in_it(self, tmp_path, grey, dicom):
        path = tmp_path / "a.dcm"
        path.write_text("no DICOM at all, but a text that is longer than the head of one. " * 9)
        assert "is not a DICOM file" in self.refused(path)[0].reason
        dicom_dummies.write(path, grey[None])
        data = dicom.dcmread(path)
        del data.PixelData
        data.save_as(path)
        self.refused(path)
        del data.Rows
        data.save_as(path)
        assert "is not a DICOM file that holds a picture" in self.refused(path)[0].reason

    def test_sizes(self, tmp_path, grey):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None], Rows=20000, Columns=20000)
        assert "decompression bomb" in self.refused(path)[0].reason
        dicom_dummies.write(path, grey[None, :1, :1])
        assert "too small" in self.refused(path)[0].reason

    def test_films_and_unknown_colours(self, tmp_path, grey, dicom):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(
            path, grey[None], syntax=dicom.uid.MPEG4HP41, encode=lambda frame: frame.tobytes()
        )
        assert "not supported" in self.refused(path)[0].reason
        dicom_dummies.write(path, grey[None], PhotometricInterpretation="HSV")
        assert "photometric" in self.refused(path)[0].reason

    def test_a_decoder_that_is_not_installed(self, tmp_path, grey, dicom, monkeypatch):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(
            path, grey[None], syntax=dicom.uid.JPEGLSLossless, encode=lambda frame: b"12"
        )
        monkeypatch.setattr(dicom.pixels.decoders.base.Decoder, "is_available", False)
        assert "pip install -e '.[dicom]'" in self.refused(path)[0].reason

    def test_without_pydicom(self, tmp_path, grey, monkeypatch):
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None])
        monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
        assert "pip install -e '.[dicom]'" in self.refused(path)[0].reason

    def test_pydicom_does_not_quote_the_header(self, tmp_path, grey, dicom, capfd, caplog):
        """Values that it warns about hold names; neither warnings nor its log may show them."""
        path = tmp_path / "a.dcm"
        dicom_dummies.write(path, grey[None], PixelSpacing=[0.5, 0.5])
        content = path.read_bytes()
        wrong = b"x" + dicom_dummies.SECRET.encode() + b"\\"  # as long as the value it replaces
        assert content.count(b"0.5\\0.5 ") == 1
        path.write_bytes(content.replace(b"0.5\\0.5 ", wrong.ljust(8)))
        with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
            warnings.simplefilter("always")
            found = list(images.read(path))
        assert [f.spacing for f in found] == [None]
        text = " ".join([*(str(w.message) for w in caught), caplog.text, *capfd.readouterr()])
        assert dicom_dummies.SECRET not in text
        assert dicom_dummies.SECRET not in repr(found)
