"""Segmentations as 3D Slicer saves them, beside their pictures."""

import gzip

import numpy as np
import pytest
from PIL import Image

from mtbus_jax.errors import UserError
from tfds_busi import layouts, nrrd, own

HEIGHT, WIDTH = 40, 60
IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@pytest.fixture
def mask():
    """A hook: no flip, turn or transpose of it is itself."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[6:20, 30:33] = True
    mask[6:9, 30:50] = True
    return mask


def geometry(spacing=(1, 1), origin=(0, 0), size=(WIDTH, HEIGHT, 1)):
    """Slicer's text for the volume that was drawn on: a matrix to RAS, and the extent."""
    matrix = [-spacing[0], 0, 0, -origin[0], 0, -spacing[1], 0, -origin[1], 0, 0, 1, 0, 0, 0, 0, 1]
    extent = [number for length in size for number in (0, length - 1)]
    text = "".join(f"{number};" for number in [*matrix, *extent])
    return f"Oversampling factor|1|How much finer.&Reference image geometry|{text}|Of labelmaps.&"


def save(path, layers, *, reference=None, spacing=(1, 1), origin=(0, 0), **changes):
    """As Slicer 5 writes it: LPS, the column first, several layers along an axis before it.

    Args:
      path: of the file.
      layers: ``(height, width)`` or ``(layers, height, width)``, whole numbers.
      reference: text of `geometry`.
      spacing: column and row, mm.
      origin: of the first pixel, likewise.
      changes: fields of the header in place of those here; None: without it.
    """
    layers = np.asarray(layers)
    several = layers.ndim == 3
    volume = layers.transpose(0, 2, 1) if several else layers.T  # (layers,) width, height
    header = {
        "type": "unsigned char",
        "dimension": volume.ndim + 1,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, (*volume.shape, 1))),
        "space_directions": "none " * several + f"({spacing[0]},0,0) (0,{spacing[1]},0) (0,0,1)",
        "kinds": "list " * several + "domain domain domain",
        "encoding": "gzip",
        "space_origin": f"({origin[0]},{origin[1]},0)",
    } | changes
    dtype = {"unsigned char": "u1", "short": ">i2", "double": "f8"}[header["type"]]
    content = volume.astype(dtype).tobytes(order="F")
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in header.items() if value]
    lines += ["Segment0_ID:=Segment_1", "Segment0_Name:=lesion"]
    lines += [f"Segmentation_ConversionParameters:={reference}"] if reference else []
    head = "\n".join(["NRRD0004", "# Complete NRRD file format specification at:", *lines])
    if header["encoding"] == "gzip":
        content = gzip.compress(content)
    path.write_bytes(head.encode() + b"\n\n" + content)
    return path


def read(path):
    return nrrd.read(path, (HEIGHT, WIDTH))


def test_whole_segmentations(tmp_path, mask):
    for number, changes in enumerate(
        (
            {},
            {"encoding": "raw"},
            {"type": "short", "endian": "big"},
            {"reference": geometry()},
            {"origin": (12.5, -3)},  # a label map says nothing of its volume
            {
                "space": "right-anterior-superior",
                "space_directions": "(-1,0,0) (0,-1,0) (0,0,1)",
                "reference": geometry(),
            },
        )
    ):
        path = save(tmp_path / f"{number}.seg.nrrd", 3 * mask, **changes)
        np.testing.assert_array_equal(read(path), mask)


@pytest.mark.parametrize("spacing", [(1, 1), (0.07, 0.09)])
def test_what_is_stored_alone_lies_where_it_was_drawn(tmp_path, mask, spacing):
    """Slicer crops to what is drawn; the rest is in the origin."""
    part, first = mask[4:25, 28:52], np.array([28, 4])
    for number, (start, reference) in enumerate(
        [((0, 0), None), ((0, 0), geometry(spacing)), ((-3, 7), geometry(spacing, (-3, 7)))]
    ):
        origin = tuple(start + first * spacing)
        path = save(
            tmp_path / f"{number}.seg.nrrd",
            part,
            spacing=spacing,
            origin=origin,
            reference=reference,
        )
        np.testing.assert_array_equal(read(path), mask)


def test_a_margin_beyond_the_picture_may_be_empty(tmp_path, mask):
    part = np.pad(mask, ((2, 1), (3, 0)))
    path = save(tmp_path / "a.seg.nrrd", part, origin=(-3, -2))
    np.testing.assert_array_equal(read(path), mask)
    with pytest.raises(UserError, match="reaches beyond the picture"):
        read(save(path, part, origin=(-40, -2)))
    with pytest.raises(UserError, match="reaches beyond the picture"):
        read(save(path, part, origin=(20, -2)))


def test_overlapping_segments_are_joined(tmp_path, mask):
    other = np.zeros_like(mask)
    other[15:30, 10:40] = True
    path = save(tmp_path / "a.seg.nrrd", [mask, 2 * other])
    np.testing.assert_array_equal(read(path), mask | other)


def test_one_pixel_means_that_nothing_is_drawn(tmp_path):
    path = save(tmp_path / "a.seg.nrrd", np.ones((1, 1)))
    assert not read(path).any()
    path = save(tmp_path / "b.seg.nrrd", np.zeros((HEIGHT, WIDTH)))
    assert not read(path).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space_directions": "(-1,0,0) (0,1,0) (0,0,1)"}, "turned, mirrored or finer"),
        ({"space_directions": "(0,1,0) (1,0,0) (0,0,1)"}, "turned, mirrored or finer"),
        ({"spacing": (0.5, 0.5), "reference": geometry()}, "turned, mirrored or finer"),
        ({"origin": (0.4, 0), "reference": geometry()}, "between those of the picture"),
        ({"reference": geometry(size=(WIDTH, HEIGHT + 1, 1))}, "of 41 × 60 pixels"),
        ({"reference": geometry(size=(WIDTH, HEIGHT, 5))}, "several slices"),
        ({"reference": "Reference image geometry|1;0;|"}, "geometry is broken"),
        ({"sizes": "60 20 2"}, "a picture has one slice"),
        ({"sizes": "60000 60000 1"}, "too large"),
        ({"sizes": "60 41 1"}, "ends early"),
        ({"sizes": "60 -40 1"}, "sizes 60 -40 1"),
        ({"type": "double"}, "no whole numbers"),
        ({"type": "short"}, "lacks 'endian'"),
        ({"space": None}, "lacks 'space'"),
        ({"space_origin": "none"}, "none"),
        ({"space_origin": "(nan,0,0)"}, "not a place in space"),
        ({"encoding": "hex"}, "stored as hex"),
        ({"data_file": "a.raw"}, "in another file"),
    ],
)
def test_what_does_not_fit_is_refused_by_file(tmp_path, mask, changes, words):
    path = save(tmp_path / "a.seg.nrrd", mask, **changes)
    with pytest.raises(UserError, match=r"a\.seg\.nrrd is not a segmentation") as caught:
        read(path)
    assert words in str(caught.value)


def test_damaged_files_are_refused_by_file(tmp_path, mask):
    """Cut and changed anywhere: a mask, or the one paragraph."""
    whole = save(tmp_path / "a.seg.nrrd", mask, reference=geometry()).read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "b.seg.nrrd", 0
    for _ in range(300):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(len(whole), size=3):
            content[place : place + 1] = bytes([rng.integers(256)])
        path.write_bytes(content)
        try:
            assert read(path).shape == (HEIGHT, WIDTH)
        except UserError:
            refused += 1
    assert refused > 100


def picture(path):
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(path)


def test_beside_the_pictures(tmp_path, mask):
    """In class folders, in one folder with a table, and under the names that Slicer offers."""
    for folder, name in (("benign", "a 1"), ("malignant", "b"), ("malignant", "c.d")):
        (tmp_path / folder).mkdir(exist_ok=True)
        picture(tmp_path / folder / f"{name}.png")
    save(tmp_path / "benign" / "a 1.seg.nrrd", mask)
    save(tmp_path / "malignant" / "c.d_mask.nrrd", ~mask)
    found = {entry.uid: entry for entry in layouts.read(tmp_path).entries}
    assert found.keys() == {"benign/a 1", "malignant/b", "malignant/c.d"}
    np.testing.assert_array_equal(own.decode(found["benign/a 1"]).mask, mask)
    np.testing.assert_array_equal(own.decode(found["malignant/c.d"]).mask, ~mask)
    assert found["malignant/b"].masks is None


def test_in_one_folder_and_in_masks(tmp_path, mask):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, drawn in ((one, one), (two / "images", two / "masks")):
        folder.mkdir(parents=True)
        drawn.mkdir(exist_ok=True)
        picture(folder / "a.png")
        save(drawn / "a.seg.nrrd", mask)
    (two / "labels.csv").write_text("image,label\na.png,benign\n")
    for root in (one, two):
        (entry,) = layouts.read(root).entries
        np.testing.assert_array_equal(own.decode(entry).mask, mask)
    save(one / "Segmentation.seg.nrrd", mask)
    with pytest.raises(UserError, match=r"Segmentation\.seg\.nrrd"):
        layouts.read(one)
