"""Pictures of every kind, checked against Pillow and hand calculations; names of results."""

import os
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from frames import only
from opencv_grey import luma
from PIL import Image

from mtbus_jax import images
from mtbus_jax.errors import UserError
from mtbus_jax.images import depth

HEIGHT, WIDTH = 40, 56


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


class TestPictures:
    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF"])
    def test_grey_stays_what_it_is(self, tmp_path, grey, name):
        found = only(saved(tmp_path, grey, name))
        np.testing.assert_array_equal(found.grey, grey)
        assert found.notes == ()
        assert found.spacing is None

    def test_jpeg(self, tmp_path):
        ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8)
        found = only(saved(tmp_path, ramp, "a.jpg", quality=95))
        assert np.abs(found.grey.astype(int) - ramp).max() <= 3

    def test_content_decides_and_not_the_name(self, tmp_path, grey):
        path = saved(tmp_path, grey, "a.bmp")
        path.rename(tmp_path / "a.png")
        np.testing.assert_array_equal(only(tmp_path / "a.png").grey, grey)

    def test_colour_is_turned_to_luma(self, tmp_path, colour):
        found = only(saved(tmp_path, colour, "a.png"))
        np.testing.assert_array_equal(found.grey, luma(colour))
        assert found.notes == ("colour turned to grey",)

    @pytest.mark.parametrize("channel", range(3))
    def test_one_coloured_pixel_makes_a_colour_picture(self, tmp_path, grey, channel):
        pixels = np.repeat(grey[..., None], 3, -1)
        pixels[5, 9, channel] ^= 128
        found = only(saved(tmp_path, pixels, "a.png"))
        np.testing.assert_array_equal(found.grey, luma(pixels))
        assert found.notes == ("colour turned to grey",)

    def test_a_frame_keeps_its_pixels(self, grey):
        pixels = np.repeat(grey[..., None], 3, -1)
        for given in (grey.copy(), pixels):
            found = images.from_array(given)
            given[:] = 7
            np.testing.assert_array_equal(found.grey, grey)

    def test_grey_saved_as_colour_needs_no_note(self, tmp_path, grey):
        found = only(saved(tmp_path, np.repeat(grey[..., None], 3, -1), "a.png"))
        np.testing.assert_array_equal(found.grey, grey)
        assert found.notes == ()

    def test_alpha_is_ignored_as_in_training(self, tmp_path, grey):
        alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
        opaque = np.dstack([grey, grey, grey, alpha])
        assert only(saved(tmp_path, opaque, "a.png")).notes == ()
        opaque[3, 4, 3] = 0
        for pixels in (opaque, opaque[..., [0, 3]]):
            found = only(saved(tmp_path, pixels, "b.png"))
            np.testing.assert_array_equal(found.grey, grey)
            assert found.notes == ("transparency ignored",)

    def test_palette(self, tmp_path):
        image = Image.new("P", (WIDTH, HEIGHT))
        image.putpalette([10, 10, 10, 200, 0, 0])
        image.putpixel((5, 3), 1)
        found = only(saved(tmp_path, image, "a.png"))
        assert found.grey[0, 0] == 10
        assert found.grey[3, 5] == 59  # 0.299 · 200, cut off
        assert found.notes == ("palette replaced by its colours", "colour turned to grey")

    def test_cmyk(self, tmp_path):
        # Half of black ink, no colour: half as bright.
        image = Image.new("CMYK", (WIDTH, HEIGHT), (0, 0, 0, 128))
        found = only(saved(tmp_path, image, "a.jpg", quality=100))
        assert np.abs(found.grey.astype(int) - 127).max() <= 2
        assert found.notes[0] == "CMYK turned to RGB"

    def test_one_bit(self, tmp_path, grey):
        found = only(saved(tmp_path, Image.fromarray(grey > 99), "a.png"))
        np.testing.assert_array_equal(found.grey, np.where(grey > 99, 255, 0))

    def test_16_bit_file_of_12_bit_values(self, tmp_path, rng):
        values = rng.integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
        values[0, 0] = 4095
        for name in ("a.png", "a.tif"):
            found = only(saved(tmp_path, values, name))
            np.testing.assert_allclose(found.grey, values / 4095 * 255, atol=0.5)
            assert found.notes == ("12-bit values scaled to 8 bits",)

    def test_16_bit_file_of_stretched_8_bit_values(self, tmp_path, grey):
        found = only(saved(tmp_path, grey.astype(np.uint16) * 257, "a.png"))
        np.testing.assert_array_equal(found.grey, grey)
        assert found.notes == ("16-bit values scaled to 8 bits",)

    def test_16_bit_colour_loses_its_low_bytes_with_a_note(self, tmp_path, colour):
        path = tmp_path / "a.png"
        deep = (colour.astype(np.uint16) * 256 + 99).astype(">u2")
        path.write_bytes(png(deep, bit_depth=16, colour_type=2))
        found = only(path)
        np.testing.assert_array_equal(found.grey, luma(colour))
        assert found.notes[0] == "16-bit channels cut to 8 bits"

    def test_orientation_tag(self, tmp_path, grey):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned clockwise by a quarter
        for name in ("a.png", "a.tif"):
            found = only(saved(tmp_path, grey, name, exif=exif))
            np.testing.assert_array_equal(found.grey, np.rot90(grey, -1))
            assert "orientation" in found.notes[0]

    def test_pages_of_a_tiff_file(self, tmp_path, grey):
        pages = [Image.fromarray(np.roll(grey, i, axis=0)) for i in range(3)]
        path = tmp_path / "a.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        found = list(images.read(path))
        assert [(f.number, f.count) for f in found] == [(1, 3), (2, 3), (3, 3)]
        for page, each in zip(pages, found, strict=True):
            np.testing.assert_array_equal(each.grey, np.asarray(page))

    def test_first_picture_of_an_animation(self, tmp_path, grey):
        path = tmp_path / "a.png"
        Image.fromarray(grey).save(path, save_all=True, append_images=[Image.fromarray(255 - grey)])
        found = only(path)
        np.testing.assert_array_equal(found.grey, grey)
        assert found.notes == ("first of 2 pictures in the file",)

    def test_large_pictures_are_grey_throughout(self):
        # More rows than are turned to grey at once.
        colour = np.random.default_rng(1).integers(0, 256, (1100, 20, 3)).astype(np.uint8)
        expected = luma(colour)
        np.testing.assert_array_equal(images.from_array(colour).grey, expected)


def png(pixels, *, bit_depth, colour_type, height=None, width=None):
    """A PNG file; ``height`` and ``width`` are what it says they are."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">II", width or pixels.shape[1], height or pixels.shape[0])
    header = chunk(b"IHDR", size + bytes([bit_depth, colour_type, 0, 0, 0]))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class TestBadPictures:
    def refused(self, path):
        with pytest.raises(images.ReadError) as caught:
            list(images.read(path))
        assert isinstance(caught.value, UserError)
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        assert "\n" not in caught.value.reason
        return caught.value.reason

    def test_missing_and_empty(self, tmp_path):
        assert "No such file" in self.refused(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes(b"")
        assert self.refused(tmp_path / "a.png") == "is empty (0 bytes)"
        assert "cannot be opened" in self.refused(tmp_path)

    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
    def test_truncated(self, tmp_path, grey, name):
        path = saved(tmp_path, grey, name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "cut or damaged" in self.refused(path)

    def test_text_and_other_formats_named_like_a_picture(self, tmp_path, grey):
        (tmp_path / "a.png").write_text("no picture")
        assert "is not a PNG" in self.refused(tmp_path / "a.png")
        saved(tmp_path, grey, "b.png", format="PPM")
        assert "is not a PNG" in self.refused(tmp_path / "b.png")

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 300), (300, 15)])
    def test_too_small(self, tmp_path, height, width):
        reason = self.refused(saved(tmp_path, np.zeros((height, width), np.uint8), "a.png"))
        assert f"{height}×{width}" in reason
        assert "too small" in reason

    @pytest.mark.parametrize("side", [9000, 20000])
    def test_decompression_bomb(self, tmp_path, side):
        # Pillow itself refuses the larger one only; neither may be unpacked.
        path = tmp_path / "a.png"
        one_row = np.zeros((1, 8), np.uint8)
        path.write_bytes(png(one_row, bit_depth=8, colour_type=0, height=side, width=side))
        assert "decompression bomb" in self.refused(path)

    def test_a_later_page_that_is_cut(self, tmp_path, grey):
        pages = [Image.fromarray(grey)] * 3
        path = tmp_path / "a.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(images.ReadError, match="cut or damaged"):
                list(images.read(path))

    def test_no_warning_comes_through(self, tmp_path, grey):
        path = saved(tmp_path, grey, "a.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            only(path)


class TestGreyValues:
    @pytest.mark.parametrize(
        ("values", "expected", "note"),
        [
            ([0, 1], [0, 255], ""),  # bool below
            (np.uint8([3, 7]), [3, 7], ""),
            (np.uint16([0, 255]), [0, 255], ""),
            (np.int64([0, 100]), [0, 100], ""),
            (np.uint16([0, 1023]), [0, 255], "10-bit"),
            (np.uint16([0, 8191, 16383]), [0, 127, 255], "14-bit"),
            (np.int16([-100, 20, 100]), [0, 153, 255], "smallest to largest"),
            (np.uint32([0, 2**20]), [0, 255], "smallest to largest"),
            (np.float32([0, 0.5, 1]), [0, 128, 255], "0 to 1"),
            (np.float32([0, 128, 250]), [0, 128, 250], "0 to 255"),
            (np.float64([0, 0.51, 1.02]), [0, 128, 255], "0 to 1.02"),
            (np.float64([-5, 1, 5]), [0, 153, 255], "smallest to largest"),
            (np.float64([-5, -5]), [0, 0], "smallest to largest"),
        ],
    )
    def test_ranges(self, values, expected, note):
        if isinstance(values, list):
            values = np.array(values, bool)
        found, said = depth.to_8_bit(values)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
        assert note in said
        assert bool(note) == bool(said)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1j])
    def test_no_grey_values(self, bad):
        with pytest.raises(ValueError, match=r"finite|type"):
            depth.to_8_bit(np.array([0, bad]))

    @pytest.mark.parametrize("shape", [(HEIGHT,), (HEIGHT, WIDTH, 5), (2, HEIGHT, WIDTH, 3)])
    def test_shapes_that_are_no_picture(self, shape):
        with pytest.raises(ValueError, match="is no grey or colour picture"):
            images.from_array(np.zeros(shape, np.uint8))

    def test_a_single_value_is_noted(self):
        notes = images.from_array(np.full((HEIGHT, WIDTH), 9, np.uint8)).notes
        assert notes == ("all pixels have one value",)


class TestFinding:
    def touch(self, root, *names):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    def test_what_is_taken_in_a_folder(self, tmp_path):
        self.touch(tmp_path, "b10.png", "b2.JPG", "sub/c.tiff", "d.bmp", "e.dcm", "b2_mask.png")
        self.touch(tmp_path, "b2_mask_1.png", "lone_mask.png", "notes.txt", ".hidden.png")
        self.touch(tmp_path, "__MACOSX/b2.JPG", ".git/x.png", "DICOMDIR")
        (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
        (tmp_path / "short").write_bytes(b"DICM")
        found = images.find([tmp_path])
        assert [source.file for source in found.sources] == [
            *("IM0001", "b2.JPG", "b10.png", "d.bmp", "e.dcm", "lone_mask.png", "sub/c.tiff")
        ]
        assert sorted(path.name for path in found.masks) == ["b2_mask.png", "b2_mask_1.png"]
        assert sorted(path.name for path in found.others) == ["notes.txt", "short"]

    @pytest.mark.parametrize(
        "mask", ["x_mask.png", "x_Mask.png", "x_mask_2.tif", "X/../x_seg.png", "x_tumor.png",
                 "x-segmentation.png", "masks/x.png", "Masks/x_mask.png", "gt/x.png"]
    )  # fmt: skip
    def test_masks_beside_a_picture(self, tmp_path, mask):
        (tmp_path / "X").mkdir()
        self.touch(tmp_path, "x.png", mask)
        found = images.find([tmp_path])
        assert [source.file for source in found.sources] == ["x.png"]
        assert len(found.masks) == 1

    @pytest.mark.parametrize(
        "name", ["mask.png", "y_mask.png", "masks/y.png", "unmasked_x.png", "x_tumors.png"]
    )
    def test_files_that_are_no_mask_of_a_picture(self, tmp_path, name):
        self.touch(tmp_path, "x.png", name)
        assert len(images.find([tmp_path]).sources) == 2

    def test_folders_of_images_and_masks(self, tmp_path):
        self.touch(tmp_path, "Images/ABCD_001.png", "Masks/ABCD_001.png", "Masks/EFGH_001.png")
        self.touch(tmp_path, "set/images/benign/1.png", "set/masks/benign/1.png", "INFO.csv")
        found = images.find([tmp_path])
        assert [source.file for source in found.sources] == [
            *("Images/ABCD_001.png", "Masks/EFGH_001.png", "set/images/benign/1.png")
        ]
        assert len(images.find([tmp_path / "Masks"]).sources) == 2

    def test_a_pattern_that_no_shell_has_expanded_gets_a_hint(self, tmp_path):
        self.touch(tmp_path, "x.png")
        with pytest.raises(UserError, match=r"with a space"):
            images.find([tmp_path / "*.png"])
        with pytest.raises(UserError) as caught:
            images.find([tmp_path / "y.png"])
        assert "with a space" not in str(caught.value)

    def test_linked_folders_are_searched_once(self, tmp_path):
        self.touch(tmp_path, "in/real/a.png", "elsewhere/b.png")
        (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "real")
        (tmp_path / "in" / "real" / "back").symlink_to(tmp_path / "in")
        found = images.find([tmp_path / "in"])
        assert [source.file for source in found.sources] == ["link/b.png", "real/a.png"]

    def test_files_of_one_name_in_several_folders_are_told_apart(self, tmp_path):
        self.touch(tmp_path, "one/x.png", "two/x.png", "two/y.png")
        found = images.find([tmp_path / "one", tmp_path / "two"])
        assert [source.file for source in found.sources] == [
            *((tmp_path / "one/x.png").as_posix(), (tmp_path / "two/x.png").as_posix(), "y.png")
        ]

    def test_a_named_file_is_taken_whatever_it_is(self, tmp_path):
        self.touch(tmp_path, "a.txt", "a.png", "a_mask.png")
        found = images.find([tmp_path / "a.txt", tmp_path / "a_mask.png", tmp_path])
        assert {source.file for source in found.sources} == {"a.txt", "a_mask.png", "a.png"}

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            images.find([tmp_path / "nowhere"])
        self.touch(tmp_path, "notes.txt")
        with pytest.raises(UserError, match="holds no picture"):
            images.find([tmp_path])

    def test_a_dead_link_is_found_and_then_reported(self, tmp_path):
        (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
        (source,) = images.find([tmp_path]).sources
        with pytest.raises(images.ReadError, match="cannot be opened"):
            list(images.read(source.path))

    def test_names(self, tmp_path):
        self.touch(tmp_path, "a.png", "a.jpg", "b.png", "sub/b.png", "1.2.840.7", "c.d.dcm")
        (tmp_path / "1.2.840.7").write_bytes(b"\0" * 128 + b"DICM")
        names = {s.file: s.name for s in images.find([tmp_path]).sources}
        assert names == {
            "a.png": "a.png",
            "a.jpg": "a.jpg",
            "b.png": "b",
            "sub/b.png": "sub/b",
            "1.2.840.7": "1.2.840.7",
            "c.d.dcm": "c.d",
        }

    def test_bytes_that_are_no_unicode(self, tmp_path):
        try:
            path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
            with open(path, "wb") as file:
                file.write(b"x")
        except OSError:
            pytest.skip("this file system takes Unicode names only")
        (source,) = images.find([tmp_path]).sources
        assert source.file == "caf\N{REPLACEMENT CHARACTER}.png"
        with pytest.raises(images.ReadError) as caught:
            list(images.read(source.path))
        str(caught.value).encode("utf-8")

    @pytest.mark.parametrize("seed", range(5))
    def test_results_never_collide(self, tmp_path, seed):
        """On nasty names: no two results share a path, nor is a folder in the way of a file."""
        draw = random.Random(seed)
        parts = [
            "a",
            "A",
            "a.png",
            "a.jpg",
            "a#1",
            "a#1.png",
            "a~2",
            "a.png~2",
            "a.png_",
            "b" * 240,
        ]
        suffixes = [".png", ".jpg", ".dcm", ".PNG"]
        for _ in range(60):
            depth = draw.randrange(3)
            folders = [draw.choice(parts) for _ in range(depth)]
            path = tmp_path.joinpath(*folders, draw.choice(parts) + draw.choice(suffixes))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
            except OSError:
                continue  # a file of that name is in the way here, too
        sources = images.find([tmp_path]).sources
        assert len(sources) > 25
        results = set()
        for source in sources:
            for suffix in (".png", ".npy", "#1.png", "#1.npy", "#12.png"):
                path = f"{source.name}{suffix}".casefold()
                assert path not in results
                assert len(os.path.basename(path).encode()) < 200
                results.add(path)
        folders = {os.path.dirname(path) for path in results}
        assert not folders & results
