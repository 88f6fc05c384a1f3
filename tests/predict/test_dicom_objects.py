"""Segmentation and Secondary Capture: read back with pydicom and highdicom, and validated."""

import io
import pathlib
import shutil
import subprocess
import warnings

import dicom_dummies
import numpy as np
import pytest
from PIL import Image

from mtbus_jax import images, types
from mtbus_jax.images import overlay
from mtbus_jax.predict import Prediction, dicom_objects, dicom_output
from mtbus_jax.predict.dicom_objects import Software

HEIGHT, WIDTH = 90, 131  # no multiple of 8 pixels: bits of rows do not end with bytes
SOFTWARE = Software("lite_unet", "0123456789abcdef", {"folds": "0 1", "tta": "no"})
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
ULTRASOUND, CLIP = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
RETIRED_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6"


@pytest.fixture(autouse=True)
def dicom():
    pytest.importorskip("highdicom", reason="NOT TESTED without mtbus_jax[dicom]")
    return pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")


@pytest.fixture
def mask():
    """A hook in the upper right: no flip, turn or transpose of it is itself."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:16, 60:120] = True
    mask[10:40, 60:66] = True
    mask[0, 130] = mask[89, 3] = True
    return mask


def written(tmp_path, count=1, *, frames=None, **elements):
    if frames is None:
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 256, (count, HEIGHT, WIDTH)).astype(np.uint8)
    elements.setdefault("SOPClassUID", ULTRASOUND if len(frames) == 1 else CLIP)
    path = tmp_path / "source.dcm"
    dicom_dummies.write(path, frames, **dicom_dummies.study(**elements))
    return path


def predicted(frame, mask, **changes):
    values = {
        "frame": frame,
        "mask": mask,
        "probability": None,
        "class_names": types.CLASS_NAMES,
        "class_id": types.MALIGNANT,
        "class_probability": np.array([0.2, 0.7, 0.1]),
        "prediction_set": None,
        "refined": "no",
        "unrefined_class_id": types.MALIGNANT,
        "unrefined_mask": mask,
        "uncertainty": 0.12,
        "warning": "",
    }
    return Prediction(**values | changes)


def made(path, mask, *, out=None, lines=("malignant (…)",), **changes):
    """What is made of each frame of a file, with the mask rolled down by its index."""
    out = out or dicom_output.DicomOutput(SOFTWARE)
    source = images.Source(path, path.name, path.stem)
    found = []
    for index, frame in enumerate(images.read(path)):
        rolled = None if mask is None else np.roll(mask, index, axis=0)
        found.append(out.make(source, predicted(frame, rolled, **changes), list(lines)))
    return found


def opened(content):
    import pydicom

    return pydicom.dcmread(io.BytesIO(content))


def objects(found):
    """(segmentation, capture) as data sets."""
    assert found.note == ""
    return opened(found.segmentation), opened(found.capture)


def validated(tmp_path, *contents):
    """No error by dciodvfy of David Clunie's dicom3tools, which knows the standard's modules."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("NOT VALIDATED without dciodvfy (Debian's package dicom3tools)")
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.validated.dcm"
        path.write_bytes(content)
        said = subprocess.run([program, "-new", path], capture_output=True).stderr
        said = said.decode("utf-8", "replace")
        assert {"Segmentation", "SCImage"} & set(said.split("\n")), said
        assert "Error" not in said, said


class TestSinglePicture:
    def test_the_mask_lies_over_the_pixels_of_the_source(self, tmp_path, mask):
        import highdicom

        path = written(tmp_path)
        (found,) = made(path, mask)
        plain, _ = objects(found)
        assert plain.pixel_array.shape == mask.shape
        np.testing.assert_array_equal(plain.pixel_array.astype(bool), mask)
        read = highdicom.seg.segread(io.BytesIO(found.segmentation))
        source = opened(path.read_bytes())
        pixels = read.get_pixels_by_source_instance([source.SOPInstanceUID])
        np.testing.assert_array_equal(pixels[0, ..., 0].astype(bool), mask)

    def test_both_refer_to_their_source(self, tmp_path, mask):
        (found,) = made(written(tmp_path), mask)
        source = opened((tmp_path / "source.dcm").read_bytes())
        segmentation, capture = objects(found)
        frames = segmentation.PerFrameFunctionalGroupsSequence
        (derived,) = frames[0].DerivationImageSequence[0].SourceImageSequence
        (series,) = segmentation.ReferencedSeriesSequence
        (in_series,) = series.ReferencedInstanceSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        references = [derived, in_series, segmentation.SourceImageSequence[0]]
        for item in (*references, capture.SourceImageSequence[0]):
            assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert item.ReferencedSOPClassUID == ULTRASOUND
            assert "ReferencedFrameNumber" not in item

    def test_patient_and_study_are_the_source_s(self, tmp_path, mask):
        (found,) = made(written(tmp_path), mask)
        source = opened((tmp_path / "source.dcm").read_bytes())
        for each in objects(found):
            for keyword in (
                *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
                *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
                *("AccessionNumber", "ReferringPhysicianName"),
            ):
                assert each[keyword].value == source[keyword].value, keyword
            assert each.SOPInstanceUID != source.SOPInstanceUID
            assert each.SeriesInstanceUID != source.SeriesInstanceUID
            # Of the rest of the header nothing is taken.
            assert "InstitutionName" not in each
            assert dicom_dummies.SECRET not in each.ImageComments

    def test_what_made_them_and_what_for(self, tmp_path, mask):
        (found,) = made(written(tmp_path), mask)
        segmentation, capture = objects(found)
        for each in (segmentation, capture):
            assert each.ContentQualification == "RESEARCH"
            assert each.Manufacturer == "mtbus_jax"
            assert each.ManufacturerModelName == "mtbus_jax lite_unet"
            assert each.SoftwareVersions == "0.1.0 weights 0123456789abcdef"
            assert each.ImageComments == dicom_objects.NOT_FOR_DIAGNOSIS
            assert "Not for diagnosis" in each.DerivationDescription
            assert "not for diagnosis" in each.SeriesDescription
            assert each.ImageType[0] == "DERIVED"
        (segment,) = segmentation.SegmentSequence
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == algorithm.AlgorithmName == "mtbus_jax lite_unet"
        assert algorithm.AlgorithmVersion == "0.1.0 weights 0123456789abcdef"
        assert algorithm.AlgorithmParameters == "folds=0 1,tta=no"
        codes = [
            (item.CodeValue, item.CodingSchemeDesignator)
            for item in (
                segment.SegmentedPropertyCategoryCodeSequence[0],
                segment.SegmentedPropertyTypeCodeSequence[0],
                segment.AnatomicRegionSequence[0],
                algorithm.AlgorithmFamilyCodeSequence[0],
            )
        ]
        assert codes == [
            *(("49755003", "SCT"), ("52988006", "SCT"), ("76752008", "SCT"), ("123110", "DCM"))
        ]
        assert "malignant (benign 0.20, malignant 0.70" in segment.SegmentDescription
        assert "being wrong: 0.12" in segment.SegmentDescription
        assert segmentation.ContentDescription.endswith("not for diagnosis")
        assert segmentation.BurnedInAnnotation == "NO"
        assert (segmentation.SeriesNumber, capture.SeriesNumber) == (401, 402)

    def test_the_outline_is_burned_in_pixel_by_pixel(self, tmp_path, mask):
        path = written(tmp_path)
        (found,) = made(path, mask)
        _, capture = objects(found)
        pixels = capture.pixel_array
        assert pixels.shape[0] > HEIGHT
        assert pixels.shape[1:] == (320, 3)  # wide enough for the text
        source = opened(path.read_bytes()).pixel_array
        shown = pixels[:HEIGHT, :WIDTH]
        changed = (shown != source[..., None]).any(axis=-1)
        # Its lines are one pixel thick here: the pixels of the mask beside one that is not of it.
        padded = np.pad(mask, 1)
        beside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        outline = mask & ~beside
        np.testing.assert_array_equal(changed, outline)
        assert (shown[outline] == overlay.COLOURS["malignant"]).all()
        assert capture.PhotometricInterpretation == "RGB"

    @pytest.mark.parametrize("said", ["YES", "NO", None])
    def test_burned_in_annotation_is_what_the_source_says(self, tmp_path, mask, said):
        (found,) = made(written(tmp_path, BurnedInAnnotation=said), mask)
        assert objects(found)[1].get("BurnedInAnnotation") == said

    def test_both_are_valid(self, tmp_path, mask):
        for elements in (
            {},
            {"PixelSpacing": ["0.25", "0.75"], "SliceThickness": "2"},
            {
                "PatientOrientation": ["L", "F"],
                "ImageLaterality": "R",
                "BodyPartExamined": "BREAST",
            },
            {"SeriesNumber": None, "StudyID": None, "PatientSex": ""},
            {"BodyPartExamined": "BREAST"},
            {"BodyPartExamined": "BREAST", "Laterality": "L"},
            {"BodyPartExamined": "ABDOMEN"},
        ):
            (found,) = made(written(tmp_path, **elements), mask)
            validated(tmp_path, found.segmentation, found.capture)


class TestSpacing:
    def regions(self, box):
        return {"SequenceOfUltrasoundRegions": [dicom_dummies.region(box, 0.02, 0.01)]}

    def test_of_a_calibrated_region(self, tmp_path, mask):
        (found,) = made(written(tmp_path, **self.regions((0, 0, HEIGHT, WIDTH))), mask)
        segmentation, capture = objects(found)
        assert list(capture.PixelSpacing) == [0.2, 0.1]
        area = mask.sum() * 0.2 * 0.1
        assert f"Area: {area:.1f} mm2." in segmentation.SegmentSequence[0].SegmentDescription
        # highdicom reads no spacing without a thickness, which ultrasound does not give.
        assert "PixelMeasuresSequence" not in segmentation.SharedFunctionalGroupsSequence[0]
        validated(tmp_path, found.segmentation, found.capture)

    def test_not_of_a_region_that_the_lesion_reaches_out_of(self, tmp_path, mask):
        (found,) = made(written(tmp_path, **self.regions((0, 0, HEIGHT - 1, WIDTH))), mask)
        segmentation, capture = objects(found)
        assert "PixelSpacing" not in capture
        assert "Area" not in segmentation.SegmentSequence[0].SegmentDescription

    def test_not_at_the_detector(self, tmp_path, mask):
        (found,) = made(written(tmp_path, ImagerPixelSpacing=["0.25", "0.75"]), mask)
        assert "PixelSpacing" not in objects(found)[1]

    def test_with_a_thickness(self, tmp_path, mask):
        spacing = {"PixelSpacing": ["0.25", "0.75"], "SliceThickness": "2"}
        (found,) = made(written(tmp_path, **spacing), mask)
        segmentation, _ = objects(found)
        (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert list(measures.PixelSpacing) == [0.25, 0.75]
        assert measures.SliceThickness == 2

    def test_a_picture_that_lies_in_space_stays_there(self, tmp_path, mask):
        import highdicom

        place = {
            "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.9",
            "PositionReferenceIndicator": "",
            "ImagePositionPatient": ["1", "2", "3"],
            "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"],
            "PixelSpacing": ["0.25", "0.75"],
            "SliceThickness": "2",
        }
        (found,) = made(written(tmp_path, **place), mask)
        segmentation, _ = objects(found)
        assert segmentation.FrameOfReferenceUID == place["FrameOfReferenceUID"]
        (position,) = segmentation.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
        assert list(position.ImagePositionPatient) == [1, 2, 3]
        np.testing.assert_array_equal(segmentation.pixel_array.astype(bool), mask)
        assert highdicom.seg.segread(io.BytesIO(found.segmentation)).Rows == HEIGHT
        validated(tmp_path, found.segmentation)

    @pytest.mark.parametrize(
        "known",
        [
            {},
            {"ImagePositionPatient": ["1", "2", "3"], "PixelSpacing": ["0.25", "0.75"]},
            {
                "ImagePositionPatient": ["1", "2", "3"],
                "ImageOrientationPatient": ["1", "0", "0", "0", "0", "-1"],
                "PixelSpacing": ["0.25", "0.75"],
            },
        ],
        ids=["alone", "without orientation", "without thickness"],
    )
    def test_a_frame_of_reference_without_a_place_says_nothing(self, tmp_path, mask, known):
        (found,) = made(written(tmp_path, FrameOfReferenceUID="1.2.3", **known), mask)
        assert "FrameOfReferenceUID" not in objects(found)[0]
        validated(tmp_path, found.segmentation)


class TestClips:
    def test_one_object_of_each_kind_per_frame(self, tmp_path, mask):
        import highdicom

        found = made(written(tmp_path, 12), mask)
        assert len(found) == 12
        numbers, uids = [], set()
        for index, each in enumerate(found):
            segmentation, capture = objects(each)
            for one in (segmentation, capture):
                assert one.SourceImageSequence[0].ReferencedFrameNumber == index + 1
                assert one.SourceImageSequence[0].ReferencedSOPClassUID == CLIP
                assert f"frame {index + 1} of the source" in one.DerivationDescription
                numbers.append(one.InstanceNumber)
                uids.add(one.SOPInstanceUID)
            read = highdicom.seg.segread(io.BytesIO(each.segmentation))
            source = read.SourceImageSequence[0].ReferencedSOPInstanceUID
            pixels = read.get_pixels_by_source_frame(source, [index + 1])
            wanted = np.roll(mask, index, axis=0)
            np.testing.assert_array_equal(pixels[0, ..., 0].astype(bool), wanted)
        assert len(uids) == 24
        assert numbers == [number for number in range(1, 13) for _ in "ab"]
        series = {objects(each)[0].SeriesInstanceUID for each in found}
        assert len(series) == 1
        validated(tmp_path, *(content for each in found for content in each[:2]))

    def test_a_series_of_ours_for_each_of_the_sources(self, tmp_path, mask):
        out = dicom_output.DicomOutput(SOFTWARE)
        (first,) = made(written(tmp_path / "a"), mask, out=out)
        (second,) = made(written(tmp_path / "b", SOPInstanceUID="1.2.3"), mask, out=out)
        elsewhere = {"SOPInstanceUID": "1.2.4", "SeriesInstanceUID": "1.2.5"}
        (other,) = made(written(tmp_path / "c", **elsewhere), mask, out=out)
        series = [objects(each)[0].SeriesInstanceUID for each in (first, second, other)]
        assert series[0] == series[1] != series[2]
        assert [objects(each)[0].InstanceNumber for each in (first, second, other)] == [1, 2, 1]
        assert out.count == 3

    def test_nothing_is_the_same_when_it_is_made_again(self, tmp_path, mask):
        path = written(tmp_path)
        before, after = objects(made(path, mask)[0]), objects(made(path, mask)[0])
        for first, second in zip(before, after, strict=True):
            assert first.SOPInstanceUID != second.SOPInstanceUID
            assert first.SeriesInstanceUID != second.SeriesInstanceUID


class TestNoMask:
    def test_an_empty_one_has_a_capture_only(self, tmp_path, mask):
        empty = np.zeros_like(mask)
        path = written(tmp_path)
        (found,) = made(path, empty, lines=["normal", "no lesion outlined"])
        assert found.segmentation is None
        capture = opened(found.capture)
        source = opened(path.read_bytes()).pixel_array
        np.testing.assert_array_equal(capture.pixel_array[:HEIGHT, :WIDTH, 1], source)
        validated(tmp_path, found.capture)

    def test_so_has_a_run_that_only_classifies(self, tmp_path):
        (found,) = made(written(tmp_path), None)
        assert found.segmentation is None
        assert opened(found.capture).SOPClassUID.name == "Secondary Capture Image Storage"


class TestOddSources:
    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_polarity(self, tmp_path, mask, photometric):
        path = written(tmp_path, PhotometricInterpretation=photometric)
        (found,) = made(path, mask)
        segmentation, capture = objects(found)
        np.testing.assert_array_equal(segmentation.pixel_array.astype(bool), mask)
        source = opened(path.read_bytes()).pixel_array
        shown = source if photometric == "MONOCHROME2" else 255 - source
        inside = ~mask
        np.testing.assert_array_equal(
            capture.pixel_array[:HEIGHT, :WIDTH, 0][inside], shown[inside]
        )

    def test_an_orientation_inside_of_the_jpeg_data_turns_nothing(self, tmp_path, mask, dicom):
        """Viewers of DICOM do not look at EXIF, so the mask must not either."""
        exif = Image.Exif()
        exif[274] = 6  # a quarter turn
        encode = dicom_dummies.pillow_encoder("JPEG", quality=90, exif=exif)
        frames = np.zeros((1, HEIGHT, WIDTH), np.uint8)
        path = tmp_path / "source.dcm"
        syntax = dicom.uid.JPEGBaseline8Bit
        dicom_dummies.write(path, frames, syntax=syntax, encode=encode, **dicom_dummies.study())
        (found,) = made(path, mask)
        segmentation, _ = objects(found)
        np.testing.assert_array_equal(segmentation.pixel_array.astype(bool), mask)

    def test_lossy_sources_are_told_to_be_lossy(self, tmp_path, mask, dicom):
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 256, (1, HEIGHT, WIDTH)).astype(np.uint8)
        path = tmp_path / "source.dcm"
        encode = dicom_dummies.pillow_encoder("JPEG", quality=90)
        elements = dicom_dummies.study(SOPClassUID=ULTRASOUND)
        dicom_dummies.write(
            path, frames, syntax=dicom.uid.JPEGBaseline8Bit, encode=encode, **elements
        )
        (found,) = made(path, mask)
        for each in objects(found):
            assert each.LossyImageCompression == "01"
            assert each.LossyImageCompressionMethod == "ISO_10918_1"
            assert 0.5 < each.LossyImageCompressionRatio < 2  # noise
        validated(tmp_path, found.segmentation, found.capture)
        said = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "17.5",
                "LossyImageCompressionMethod": "ISO_15444_1"}  # fmt: skip
        (found,) = made(written(tmp_path, **said), mask)
        for each in objects(found):
            assert each.LossyImageCompressionRatio == 17.5
            assert each.LossyImageCompressionMethod == "ISO_15444_1"

    @pytest.mark.parametrize(
        ("characters", "name"),
        [
            ("ISO_IR 100", "Äneas^Zoë"),
            ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
            ("ISO_IR 144", "Люкceмбypг"),
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ],
    )
    def test_names_in_any_script(self, tmp_path, mask, characters, name):
        path = written(tmp_path, SpecificCharacterSet=characters, PatientName=name)
        (found,) = made(path, mask)
        source = opened(path.read_bytes())
        for each in objects(found):
            assert str(each.PatientName) == str(source.PatientName)
            assert name.split("=")[0] in str(each.PatientName)
            assert each.SpecificCharacterSet == source.SpecificCharacterSet
        validated(tmp_path, found.segmentation, found.capture)

    @pytest.mark.parametrize(
        ("characters", "said"),
        [
            ("ISO_IR 100", "Läsion"),
            ("ISO_IR 192", "Läsion"),
            ("ISO_IR 144", "Lasion"),  # Cyrillic
            (["", "ISO 2022 IR 87"], "Lasion"),
            (None, "Lasion"),
        ],
    )
    def test_class_names_in_any_script(self, tmp_path, mask, characters, said):
        declared = {} if characters is None else {"SpecificCharacterSet": characters}
        names = ("gutartig", "Läsion", "normal")
        (found,) = made(written(tmp_path, **declared), mask, class_names=names)
        segmentation = objects(found)[0].SegmentSequence[0]
        assert f"Most probable class: {said} (" in segmentation.SegmentDescription

    def test_bytes_of_no_declared_script_stay_what_they_are(self, tmp_path, mask):
        path = written(tmp_path, PatientName="Aeneas^Zoe")
        content = path.read_bytes().replace(b"Aeneas^Zoe", b"\xc4neass^Zo\xeb")
        path.write_bytes(content)
        (found,) = made(path, mask)
        for each in (found.segmentation, found.capture):
            assert b"\xc4neass^Zo\xeb" in each

    def test_values_that_no_device_should_write(self, tmp_path, mask, capfd):
        """They are taken over, and pydicom's warnings, which quote them, are not shown."""
        odd = {
            "PatientSex": "W",
            "PatientBirthDate": "unknown",
            "StudyDate": "06.05.2024",
            "StudyTime": "7 am",
            "SeriesNumber": "-3",
            "PatientName": "no caret, a comma",
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = written(tmp_path, **odd)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (found,) = made(path, mask)
        assert "".join(capfd.readouterr()) == ""
        for each in objects(found):
            assert each.PatientSex == "W"
            assert each.PatientBirthDate == "unknown"
            assert str(each.PatientName) == "no caret, a comma"
            assert each.SeriesNumber in (1, 2)

    def test_private_elements_are_not_taken(self, tmp_path, mask, dicom):
        path = written(tmp_path)
        source = dicom.dcmread(path)
        block = source.private_block(0x0011, "ACME", create=True)
        block.add_new(0x01, "LO", f"{dicom_dummies.SECRET} private")
        source.save_as(path)
        (found,) = made(path, mask)
        for each in (found.segmentation, found.capture):
            assert b"private" not in each
            assert b"ACME" not in each

    @pytest.mark.parametrize("uid", [RETIRED_ULTRASOUND, "1.2.3.4.5.6.7"])
    def test_classes_that_highdicom_does_not_know(self, tmp_path, mask, uid):
        (found,) = made(written(tmp_path, SOPClassUID=uid), mask)
        segmentation, _ = objects(found)
        assert segmentation.SourceImageSequence[0].ReferencedSOPClassUID == uid
        np.testing.assert_array_equal(segmentation.pixel_array.astype(bool), mask)

    @pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
    def test_what_cannot_be_referred_to(self, tmp_path, mask, missing):
        out = dicom_output.DicomOutput(SOFTWARE)
        found = made(written(tmp_path, 3, **{missing: None}), mask, out=out)
        for each in found:
            assert (each.segmentation, each.capture) == (None, None)
            assert each.note == (
                f"no DICOM objects: the file has no {missing}, which a reference needs"
            )
        assert sum(out.without.values()) == 3
        assert out.count == 0

    def test_a_patient_without_a_name_or_number(self, tmp_path, mask, dicom):
        path = written(tmp_path)
        source = dicom.dcmread(path)
        del source.PatientName, source.PatientID, source.StudyDate
        source.save_as(path)
        (found,) = made(path, mask)
        for each in objects(found):
            assert each.PatientID in ("", None)
        validated(tmp_path, found.segmentation, found.capture)

    def test_a_picture_that_is_no_dicom_file(self, tmp_path, mask):
        path = tmp_path / "a.dcm"  # only by name
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path, format="PNG")
        (found,) = made(path, mask)
        assert found.note == "no DICOM objects: the picture is not a DICOM file"

    def test_class_names_that_would_end_a_value(self, tmp_path, mask):
        names = ("gutartig", "bösartig\\?", "normal")
        (found,) = made(written(tmp_path), mask, class_names=names)
        segment = objects(found)[0].SegmentSequence[0]
        assert "bosartig/?" in segment.SegmentDescription


def test_without_highdicom_it_is_said_before_anything_is_done(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "highdicom", None)
    from mtbus_jax.errors import UserError

    with pytest.raises(UserError, match=r"pip install -e '\.\[dicom\]'"):
        dicom_objects.check_installed()


def test_a_segmentation_is_no_picture(tmp_path, mask):
    """Or a study that comes back from the archive would be predicted, masks and all."""
    (found,) = made(written(tmp_path), mask)
    path = pathlib.Path(tmp_path / "mask.dcm")
    path.write_bytes(found.segmentation)
    with pytest.raises(images.ReadError, match="is a segmentation, no picture"):
        list(images.read(path))
