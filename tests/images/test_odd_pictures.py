"""Files that are read wrongly by the book: each has a twin, or pixels, that say what is right."""

import io
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from opencv_grey import luma
from PIL import Image

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.images import from_pillow, silence

HEIGHT, WIDTH = 40, 56
TURNED = "turned upright as its orientation tag says, mask and overlay too"


@pytest.fixture
def grey():
    """A ramp with black and white in it, equal to no turned version of itself."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return (rows * 255 // (HEIGHT - 1) // 2 + cols * 255 // (WIDTH - 1) // 2 + 1).astype(np.uint8)


def only(path):
    (found,) = images.read(path)
    return found


def refused(path):
    with pytest.raises(images.ReadError) as caught:
        list(images.read(path))
    return caught.value.reason


class TestDeepTiff:
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize(
        "dtype", [np.uint8, np.int8, np.uint16, np.uint32, np.int16, np.float32]
    )
    def test_white_is_zero(self, tmp_path, grey, byteorder, compression, dtype):
        """The smallest stored value is white, whatever the type."""
        low, high = 0, 1
        if np.dtype(dtype).kind != "f":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        values = low + grey.astype(np.float64) / 255 * (high - low)
        values = np.rint(values).astype(dtype) if np.dtype(dtype).kind != "f" else values
        values.flat[:2] = low, high
        expected = grey.copy()
        expected.flat[:2] = 0, 255
        stored = {"byteorder": byteorder, "compression": compression}
        for photometric, right in (("minisblack", expected), ("miniswhite", 255 - expected)):
            path = tmp_path / f"{photometric}.tif"
            content = values.astype(dtype)
            tifffile.imwrite(path, content, photometric=photometric, **stored)
            difference = only(path).grey.astype(int) - right
            assert np.abs(difference).max() <= 1
            assert only(path).grey[0, 0] == right[0, 0]

    @pytest.mark.parametrize("planar", ["separate", "contig"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    def test_colour_of_16_bits(self, tmp_path, planar, compression, byteorder):
        colour = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        deep = colour.astype(np.uint16) * 257
        stored = np.moveaxis(deep, -1, 0) if planar == "separate" else deep
        path = tmp_path / "a.tif"
        options = {"planarconfig": planar, "compression": compression, "byteorder": byteorder}
        tifffile.imwrite(path, stored, photometric="rgb", **options)
        found = only(path)
        np.testing.assert_array_equal(found.grey, luma(colour))
        assert found.notes == ("16-bit values scaled to 8 bits", "colour turned to grey")

    def test_alpha_of_16_bits(self, tmp_path, grey):
        alpha = np.full(grey.shape, 65535, np.uint16)
        deep = grey.astype(np.uint16) * 257
        for transparent in (False, True):
            alpha[3, 4] = 0 if transparent else 65535
            path = tmp_path / "a.tif"
            pixels = np.dstack([deep, deep, deep, alpha])
            tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
            (found,) = images.decode(path)
            assert found.transparent == transparent
            np.testing.assert_array_equal(found.to_frame().grey, grey)

    def test_one_scale_for_all_pages(self, tmp_path, grey):
        """A page of small values is not stretched to those of another."""
        pages = np.stack([grey.astype(np.uint16), grey.astype(np.uint16) * 16])
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pages, photometric="minisblack")
        found = [each.grey for each in images.read(path)]
        np.testing.assert_allclose(found[0], grey / 4095 * 255, atol=0.51)
        np.testing.assert_allclose(found[1], grey * (16 * 255 / 4095), atol=0.51)

    def test_floats_that_overshoot_are_not_black(self, tmp_path, grey):
        pages = np.stack([grey / 255, grey / 255 * 1.02]).astype(np.float32)
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pages, photometric="minisblack")
        found = [each.grey for each in images.read(path)]
        np.testing.assert_allclose(found[0], grey / 1.02, atol=1.01)
        np.testing.assert_allclose(found[1], grey, atol=1.01)

    def test_a_later_page_that_is_cut(self, tmp_path, grey):
        path = tmp_path / "a.tif"
        pages = np.stack([grey.astype(np.uint16) * 257] * 3)
        tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib")
        path.write_bytes(path.read_bytes()[:-50])
        frames = []
        with pytest.raises(images.ReadError, match="cut or damaged") as caught:
            for each in images.read(path):
                frames.append(each)
        assert (len(frames), caught.value.number) == (2, 3)

    def test_a_kind_that_neither_reader_knows_is_named(self, tmp_path, grey):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, grey.astype(np.uint16), photometric="minisblack")
        content = path.read_bytes()
        entry = struct.pack("<HHI", 259, 3, 1)
        assert content.count(entry) == 1
        cut = content.index(entry) + 8
        path.write_bytes(content[:cut] + struct.pack("<H", 34712) + content[cut + 2 :])
        assert "16 bits, photometric interpretation 1, compression 34712" in refused(path)

    def test_no_log_nor_warning_comes_through(self, tmp_path, grey, caplog):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, grey.astype(np.uint16), photometric="miniswhite")
        content = bytearray(path.read_bytes())
        content[-1:] = b"\x01\x02\x03"
        path.write_bytes(content)
        with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
            warnings.simplefilter("error")
            list(images.read(path))
        assert not caplog.records


class TestOrientation:
    @pytest.mark.parametrize("tag", range(1, 9))
    @pytest.mark.parametrize("kind", ["png", "jpg", "8-bit tif", "16-bit tif", "packed tif"])
    def test_as_pillow_turns_it(self, tmp_path, grey, tag, kind):
        exif = Image.Exif()
        exif[0x0112] = tag
        expected = np.asarray(_by_pillow(grey, tag))
        path = tmp_path / f"a.{kind[-3:]}"
        if "tif" in kind:
            depth = 257 if kind.startswith("16") else 1
            values = (grey.astype(np.uint16) * depth).astype(np.uint16 if depth > 1 else np.uint8)
            compression = "zlib" if kind.startswith("packed") else None
            tags = [(274, "H", 1, tag, True)]
            tifffile.imwrite(path, values, compression=compression, extratags=tags,
                             photometric="minisblack")  # fmt: skip
        else:
            Image.fromarray(grey).save(path, exif=exif, **{"quality": 100} if kind == "jpg" else {})
        found = only(path)
        assert found.grey.shape == expected.shape
        assert np.abs(found.grey.astype(int) - expected).max() <= (3 if kind == "jpg" else 0)
        assert found.notes[:1] == ((TURNED,) if tag > 1 else found.notes[:1])
        assert (TURNED in found.notes) == (tag > 1)

    @pytest.mark.parametrize("tag", [0, 9, 77])
    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
    def test_an_orientation_that_does_not_exist_turns_nothing(self, tmp_path, grey, tag, name):
        exif = Image.Exif()
        exif[0x0112] = tag
        Image.fromarray(grey).save(tmp_path / name, exif=exif)
        found = only(tmp_path / name)
        assert found.grey.shape == grey.shape
        assert found.notes == ()

    def test_by_hand(self):
        values = np.arange(6).reshape(2, 3)
        assert from_pillow.turned(values, 6).tolist() == [[3, 0], [4, 1], [5, 2]]
        assert from_pillow.turned(values, 5).tolist() == [[0, 3], [1, 4], [2, 5]]

    @pytest.mark.parametrize("name", ["a.png", "a.jpg"])
    @pytest.mark.parametrize("odd", ["fraction over zero", "cut"])
    def test_damaged_exif_does_not_damage_the_picture(self, tmp_path, grey, name, odd):
        path = tmp_path / name
        Image.fromarray(grey).save(path, exif=_odd_exif(odd))
        found = only(path)
        expected = grey if odd == "cut" else np.rot90(grey, -1)
        assert found.grey.shape == expected.shape
        assert np.abs(found.grey.astype(int) - expected).max() <= 8
        assert found.notes == (() if odd == "cut" else (TURNED,))


def _by_pillow(grey, tag):
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    image = Image.fromarray(grey)
    return image.transpose(methods[tag]) if tag in methods else image


def _odd_exif(kind):
    """Orientation 6 and a signed fraction -1/0, or an orientation that is cut in its middle."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    head = b"Exif\0\0II*\0" + struct.pack("<I", 8)
    if kind == "cut":
        return head + struct.pack("<H", 1) + orientation[:8]
    fraction = struct.pack("<HHII", 0x9204, 10, 1, 8 + 2 + 24 + 4)
    return head + struct.pack("<H", 2) + orientation + fraction + struct.pack("<Iii", 0, -1, 0)


class TestCut:
    """Files whose picture ends early, but whose end is in good order."""

    @pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P", "I;16"])
    def test_png(self, tmp_path, grey, mode):
        image = Image.fromarray(grey.astype(np.uint16)) if mode == "I;16" else (
            Image.fromarray(grey).convert(mode)
        )  # fmt: skip
        path = tmp_path / "a.png"
        image.save(path)
        only(path)
        _shorten(path)
        assert refused(path) == "is cut: rows are missing at the end of the picture"

    def test_interlaced_png(self, tmp_path):
        # By hand: the seven passes of 17×21 pixels of one value, each row with its filter byte.
        rows = b"".join(
            (b"\0" + b"\x09" * len(range(c, 21, dc))) * len(range(r, 17, dr))
            for r, c, dr, dc in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
                                 (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        )  # fmt: skip
        header = struct.pack(">IIBBBBB", 21, 17, 8, 0, 0, 0, 1)
        path = tmp_path / "a.png"
        for content, complete in ((rows, True), (rows[:-5], False)):
            chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
            body = b"".join(_chunk(*each) for each in chunks)
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
            if complete:
                assert only(path).grey.shape == (17, 21)
            else:
                refused(path)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1},
                                         {"optimize": True}])  # fmt: skip
    def test_jpeg(self, tmp_path, grey, mode, options):
        """Whole ones with flat corners of any grey pass, those that are cut do not."""
        path = tmp_path / "a.jpg"
        for corner in (0, 127, 128, 255):
            pixels = np.tile(grey, (3, 3))
            pixels[-24:, -24:] = corner
            Image.fromarray(pixels).convert(mode).save(path, quality=90, **options)
            only(path)
        if options.get("progressive"):
            return  # what is cut there is fineness and no rows
        content = path.read_bytes()
        start = content.rfind(b"\xff\xda") + 14
        for share in range(30, 95, 5):
            cut = content[: start + (len(content) - start) * share // 100]
            path.write_bytes(cut.rstrip(b"\xff") + b"\xff\xd9")
            assert "rows are missing" in refused(path)

    def test_odd_sizes_of_jpeg(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3)).astype(np.uint8)
        noise[-13:, -13:] = 128
        path = tmp_path / "a.jpg"
        for subsampling in (0, 1, 2):
            Image.fromarray(noise).save(path, subsampling=subsampling)
            only(path)


def _chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _shorten(path):
    """Takes the last rows out of a PNG file's data and closes the stream properly."""
    content, chunks, data = path.read_bytes(), [], b""
    position = 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        name = content[position + 4 : position + 8]
        body = content[position + 8 : position + 8 + length]
        if name == b"IDAT":
            data += body
        else:
            chunks.append((name, body))
        position += 12 + length
    rows = zlib.decompress(data)
    chunks.insert(-1, (b"IDAT", zlib.compress(rows[: len(rows) * 3 // 4])))
    path.write_bytes(content[:8] + b"".join(_chunk(*each) for each in chunks))


class TestOtherKinds:
    @pytest.mark.parametrize("name", ["a.gif", "a.webp"])
    def test_gif_and_webp(self, tmp_path, grey, name):
        path = tmp_path / name
        Image.fromarray(grey).save(path, **{"lossless": True} if "webp" in name else {})
        np.testing.assert_array_equal(only(path).grey, grey)

    def test_a_stride_that_looks_like_16_bits(self, tmp_path):
        """A row of 56 pixels in colour takes 168 bytes; that is no depth."""
        path = tmp_path / "a.bmp"
        Image.fromarray(np.zeros((HEIGHT, 56, 3), np.uint8) + 9).save(path)
        assert only(path).notes == ("all pixels have one value",)

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP"])
    def test_a_picture_named_like_a_dicom_file(self, tmp_path, grey, file_format):
        path = tmp_path / "a.dcm"
        Image.fromarray(grey).save(path, format=file_format)
        assert np.abs(only(path).grey.astype(int) - grey).max() <= 8

    def test_in_a_zip_archive(self, tmp_path, grey):
        import zipfile

        content = io.BytesIO()
        Image.fromarray(grey).save(content, format="PNG")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("b/c.png", content.getvalue())
        root = zipfile.Path(tmp_path / "a.zip")
        (found,) = images.decode(root / "b" / "c.png")
        np.testing.assert_array_equal(found.pixels, grey)
        with pytest.raises(images.ReadError, match=r"a\.zip/b/d\.png: cannot be opened"):
            list(images.decode(root / "b" / "d.png"))


def test_silence_in_several_threads_ends_with_the_last(caplog):
    log, filters = logging.getLogger("tifffile"), list(warnings.filters)
    first, second = silence.quiet(), silence.quiet()
    with caplog.at_level(logging.DEBUG):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        log.warning("not heard")
        second.__exit__(None, None, None)
        log.warning("heard")
    assert warnings.filters == filters
    assert caplog.messages == ["heard"]


def test_a_line_that_is_far_too_long_is_refused(tmp_path):
    """Tables for resizing grow with the longest side."""
    path = tmp_path / "line.png"
    Image.new("L", (70_000, 20)).save(path)
    with pytest.raises(images.ReadError, match="too long: at most 65535 a side"):
        list(images.read(path))


def test_a_name_that_is_too_long_to_look_at():
    with pytest.raises(UserError, match="cannot be looked at: File name too long"):
        images.find(["x" * 300])
