"""What a study holds besides pictures: documents are passed over, segmentations are masks."""

import dicom_dummies
import numpy as np
import pytest
from PIL import Image

from mtbus_jax import data, images
from mtbus_jax.curate import folder
from mtbus_jax.images import dicom_mask
from tfds_busi import layouts, own

pydicom = pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")
highdicom = pytest.importorskip("highdicom", reason="NOT TESTED without mtbus_jax[dicom]")

STORAGE = "1.2.840.10008.5.1.4.1.1."
DOCUMENTS = {
    "structured report": "88.33",
    "key objects": "88.59",
    "presentation state": "11.1",
    "encapsulated PDF": "104.1",
    "raw data": "66",
    "table of contents": "../1.3.10",
}
SHAPE = (50, 70)


def grey(seed=0, count=1):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def document(path, kind):
    meta = pydicom.dataset.FileMetaDataset()
    kind = kind.replace("../", "1.2.840.10008.") if kind.startswith("..") else STORAGE + kind
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made = pydicom.Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


def picture(path, seed=0, count=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    sop_class = STORAGE + ("6.1" if count == 1 else "3.1")
    said = dicom_dummies.study(SOPClassUID=sop_class, PatientID=str(seed))
    dicom_dummies.write(path, grey(seed, count), **said)


def segmentation(source, path, masks, *, kind="BINARY"):
    """By highdicom: a segment for each mask."""
    read = pydicom.dcmread(source)
    masks = np.stack(masks, axis=-1)
    codes = pydicom.sr.codedict.codes
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=f"lesion {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="MANUAL",
        )
        for number in range(masks.shape[-1])
    ]
    made = highdicom.seg.Segmentation(
        source_images=[read],
        pixel_array=masks[None],
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="a viewer",
        manufacturer_model_name="a model",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)


@pytest.fixture
def masks():
    first, second = np.zeros((2, *SHAPE), np.uint8)
    first[5:20, 10:30] = 1
    second[30:33, 40:68] = 1
    return first, second


@pytest.mark.parametrize("kind", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@pytest.mark.parametrize("name", ["report.dcm", "IM0001"])
def test_documents_are_passed_over_among_pictures_and_refused_by_name(tmp_path, name, kind):
    picture(tmp_path / "IM0000")
    document(tmp_path / name, kind)
    found = images.find([tmp_path])
    assert [source.path.name for source in found.sources] == ["IM0000"]
    assert [path.name for path in found.others] == [name]
    assert [entry.path.name for entry in folder.find_entries(tmp_path)] == ["IM0000"]
    (source,) = images.find([tmp_path / name]).sources
    with pytest.raises(images.ReadError, match="not a DICOM file that holds a picture"):
        list(images.read(source.path))


def test_a_picture_whose_head_is_broken_is_still_a_picture(tmp_path):
    picture(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:140])
    (tmp_path / "b.dcm").write_bytes(content)
    assert len(images.find([tmp_path]).sources) == 2  # so that it is reported, and not lost


def test_segments_are_lesions_together(tmp_path, masks):
    picture(tmp_path / "x.dcm")
    segmentation(tmp_path / "x.dcm", tmp_path / "x_seg.dcm", masks)
    found = images.decode_mask(tmp_path / "x_seg.dcm")
    np.testing.assert_array_equal(found.pixels, 255 * (masks[0] | masks[1]))


def test_a_fractional_segmentation_is_cut_at_half(tmp_path, masks):
    picture(tmp_path / "x.dcm")
    soft = masks[0] * np.linspace(0, 1, SHAPE[1])
    segmentation(tmp_path / "x.dcm", tmp_path / "x_seg.dcm", [soft], kind="FRACTIONAL")
    found = images.decode_mask(tmp_path / "x_seg.dcm")
    stored = np.round(soft * 255)
    np.testing.assert_array_equal(found.pixels > 0, stored > 127.5)


def test_outlines_in_several_pictures_are_refused(tmp_path, masks):
    picture(tmp_path / "x.dcm")
    segmentation(tmp_path / "x.dcm", tmp_path / "x_seg.dcm", masks)
    made = pydicom.dcmread(tmp_path / "x_seg.dcm")
    last = made.PerFrameFunctionalGroupsSequence[-1].DerivationImageSequence[0]
    last.SourceImageSequence[0].ReferencedFrameNumber = 2  # of a clip
    made.save_as(tmp_path / "x_seg.dcm")
    with pytest.raises(images.ReadError, match="a segmentation of several pictures"):
        images.decode_mask(tmp_path / "x_seg.dcm")


def test_slices_of_a_volume_are_refused(tmp_path, masks):
    picture(tmp_path / "x.dcm")
    segmentation(tmp_path / "x.dcm", tmp_path / "x_seg.dcm", masks)
    made = pydicom.dcmread(tmp_path / "x_seg.dcm")
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
        del frame.DerivationImageSequence
    made.save_as(tmp_path / "x_seg.dcm")
    with pytest.raises(images.ReadError, match="a segmentation of several pictures"):
        images.decode_mask(tmp_path / "x_seg.dcm")


def test_a_segmentation_of_another_picture_or_of_none_here(tmp_path, masks):
    root = tmp_path / "in"
    for i, name in enumerate(("a", "b")):
        picture(root / name / "x.dcm", seed=i)
    other = dicom_dummies.study(SOPClassUID=STORAGE + "6.1", SOPInstanceUID="1.2.3.4")
    dicom_dummies.write(tmp_path / "other.dcm", grey(5), **other)
    segmentation(tmp_path / "other.dcm", root / "a" / "x_seg.dcm", masks[:1])
    segmentation(root / "b" / "x.dcm", root / "b" / "SEG0001.dcm", masks[:1])
    found = layouts.read(root)
    assert [entry.masks is None for entry in found.entries] == [False, True]
    assert found.notes == ["b/SEG0001.dcm is not used."]
    notes = own.decode(found.entries[0]).doubts
    assert notes == ["x_seg.dcm says that it was drawn in another picture"]


def test_a_damaged_segmentation(tmp_path, masks):
    picture(tmp_path / "x.dcm")
    segmentation(tmp_path / "x.dcm", tmp_path / "x_seg.dcm", masks)
    content = (tmp_path / "x_seg.dcm").read_bytes()
    (tmp_path / "x_seg.dcm").write_bytes(content[:-40])
    with pytest.raises(images.ReadError, match="cut or damaged"):
        dicom_mask.decode(tmp_path / "x_seg.dcm")


@pytest.mark.parametrize("layout", ["beside", "folders"])
def test_a_folder_of_dicom_files_is_a_dataset(tmp_path, masks, layout):
    root = tmp_path / "in"
    for i, name in enumerate(("benign", "malignant")):
        at = root / name if layout == "beside" else root / "images"
        picture(at / f"{name}.dcm", seed=i)
        masked = at / f"{name}_seg.dcm" if layout == "beside" else root / "masks" / f"{name}.dcm"
        segmentation(at / f"{name}.dcm", masked, masks[i : i + 1])
        document(at / "report.dcm", "88.33")
    (root / "labels.csv").write_text("image,label\nbenign,benign\nmalignant,malignant\n")
    if layout == "beside":
        (root / "labels.csv").unlink()
    assert len(layouts.read(root).entries) == 2
    places = {"data_dir": tmp_path / "built", "cache_dir": tmp_path / "cache"}
    cases = data.load_cases(str(root), image_size=SHAPE, **places)
    for i in range(2):
        np.testing.assert_array_equal(cases.image[i, ..., 0], grey(i)[0])
        np.testing.assert_array_equal(cases.mask[i, ..., 0], masks[i])


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.7"])
def test_a_dataset_takes_dicom_files_under_any_name(tmp_path, masks, name):
    for i, kind in enumerate(("benign", "malignant")):
        picture(tmp_path / kind / name, seed=i)
        segmentation(tmp_path / kind / name, tmp_path / kind / f"{name}.seg.dcm", masks[i : i + 1])
    found = layouts.read(tmp_path)
    assert [entry.uid for entry in found.entries] == [f"benign/{name}", f"malignant/{name}"]
    assert all(len(entry.masks) == 1 for entry in found.entries)


def test_curation_takes_segmentations_for_masks_by_their_names(tmp_path, masks):
    for name in ("x", "y"):
        picture(tmp_path / f"{name}.dcm")
        ending = "seg" if name == "x" else "other"
        segmentation(tmp_path / f"{name}.dcm", tmp_path / f"{name}.{ending}.dcm", masks)
    first, second = folder.find_entries(tmp_path)
    assert (first.uid, len(first.masks), second.uid, second.masks) == ("x", 1, "y", ())
    found, odd = folder.read_mask(first, SHAPE)
    np.testing.assert_array_equal(found, (masks[0] | masks[1]) > 0)
    assert odd == []


def test_curation_reads_dicom_files(tmp_path):
    picture(tmp_path / "1.2.840.1")
    picture(tmp_path / "1.2.840.2", seed=1)
    Image.fromarray(grey(2)[0]).save(tmp_path / "c.png")
    entries = folder.find_entries(tmp_path)
    assert [entry.uid for entry in entries] == ["1.2.840.1", "1.2.840.2", "c"]
    np.testing.assert_array_equal(folder.read_picture(entries[0]).grey, grey(0)[0])
