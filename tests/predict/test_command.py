"""``python -m mtbus_jax.predict`` on a tiny network: files, tables, exit codes, privacy."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import dicom_dummies
import in_process
import numpy as np
import pandas as pd
import predict_dummies
import pytest
from PIL import Image, ImageFont
from predict_dummies import made, write_run, write_trust

from mtbus_jax import images, types
from mtbus_jax.errors import UserError
from mtbus_jax.predict import Prediction, Predictor, __main__, command, measure, output

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_prediction(mask, *, spacing=None, notes=()):
    """A prediction with nothing but a mask."""
    frame = images.Frame(np.zeros(mask.shape, np.uint8), spacing=spacing, notes=notes)
    return Prediction(
        frame=frame,
        mask=mask,
        probability=None,
        class_names=types.CLASS_NAMES,
        class_id=None,
        class_probability=None,
        prediction_set=None,
        refined="",
        unrefined_class_id=None,
        unrefined_mask=mask,
        uncertainty=None,
        warning="",
    )


class TestMeasures:
    SOURCE = images.Source(pathlib.Path("a.dcm"), "a.dcm", "a")

    @pytest.fixture
    def mask(self):
        mask = np.zeros((30, 50), bool)
        mask[3:7, 10:20] = True
        mask[20, 40] = True
        return mask

    def test_pixels(self, mask):
        row = measure.measure(self.SOURCE, make_prediction(mask, notes=("one", "two")))
        assert (row["area_px"], row["parts"]) == (41, 2)
        box = [row[f"bbox_{side}"] for side in ("top", "left", "bottom", "right")]
        assert box == [3, 10, 21, 41]
        assert mask[box[0] : box[2], box[1] : box[3]].sum() == 41
        assert "area_mm2" not in row
        assert row["notes"] == "one; two"

    def test_millimetres_of_pixels_that_are_not_square(self, mask):
        spacing = images.Spacing(0.2, 0.5)
        row = measure.measure(self.SOURCE, make_prediction(mask, spacing=spacing))
        assert row["area_mm2"] == pytest.approx(41 * 0.1)
        assert row["bbox_height_mm"] == pytest.approx(18 * 0.2)
        assert row["bbox_width_mm"] == pytest.approx(31 * 0.5)
        assert (row["spacing_row_mm"], row["spacing_col_mm"]) == (0.2, 0.5)

    def test_a_lesion_outside_of_the_calibrated_region(self, mask):
        inside = images.Spacing(0.2, 0.5, ((0, 0, 30, 9), (3, 10, 21, 41)))
        row = measure.measure(self.SOURCE, make_prediction(mask, spacing=inside))
        assert row["area_mm2"] == pytest.approx(4.1)
        for box in ((4, 10, 21, 41), (3, 11, 21, 41), (3, 10, 20, 41), (3, 10, 21, 40)):
            outside = images.Spacing(0.2, 0.5, (box,))
            row = measure.measure(self.SOURCE, make_prediction(mask, spacing=outside))
            assert "area_mm2" not in row
            assert "outside of the calibrated region" in row["notes"]

    def test_no_lesion(self):
        empty = np.zeros((30, 50), bool)
        row = measure.measure(self.SOURCE, make_prediction(empty))
        assert (row["area_px"], row["parts"]) == (0, 0)
        assert "bbox_top" not in row
        spacing = images.Spacing(0.2, 0.5)
        row = measure.measure(self.SOURCE, make_prediction(empty, spacing=spacing))
        assert row["area_mm2"] == 0

    def test_names_of_frames_sort(self, mask):
        prediction = make_prediction(mask)
        frame = dataclasses.replace(prediction.frame, number=7, count=120)
        prediction = dataclasses.replace(prediction, frame=frame)
        assert measure.result_name(self.SOURCE, prediction) == "a#007"


def call(workdir, out, *inputs, options=()):
    arguments = [f"--run={workdir}", f"--out={out}", "--input", *map(str, inputs), *options]
    return __main__.main(arguments)


def table(out):
    return pd.read_csv(out / "predictions.csv", keep_default_na=False, dtype=str).set_index("name")


class TestCommand:
    @pytest.fixture
    def archive(self, tmp_path, pictures):
        folder = made(tmp_path / "in" / "sub").parent
        Image.fromarray(pictures[0]).save(folder / "a.png")
        Image.fromarray(pictures[1]).save(folder / "a.bmp")
        Image.fromarray(pictures[2]).save(folder / "sub" / "b.png")
        return folder

    def test_results(self, world, archive, tmp_path, pictures, capsys):
        out = tmp_path / "out"
        assert call(world[0], out, archive, options=["--save_probabilities"]) == 0
        rows = table(out)
        assert list(rows.index) == ["a.bmp", "a.png", "sub/b"]
        assert list(rows.reset_index().columns) == list(measure.columns(types.CLASS_NAMES))
        predictions = Predictor(world[0])([pictures[1], pictures[0], pictures[2]])
        for (name, row), wanted in zip(rows.iterrows(), predictions, strict=True):
            assert row["mask"] == f"masks/{name}.png"
            mask = np.asarray(Image.open(out / row["mask"]))
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, np.where(wanted.mask, 255, 0))
            assert mask.shape == (int(row.height), int(row.width))
            assert int(row.area_px) == (mask > 0).sum()
            assert row["class"] == wanted.class_name
            probabilities = [float(row[f"probability_{name}"]) for name in types.CLASS_NAMES]
            np.testing.assert_allclose(probabilities, wanted.class_probability, atol=1e-6)
            stored = np.load(out / row.probability_map)
            np.testing.assert_allclose(stored, wanted.probability_map(), atol=1e-6)
            assert Image.open(out / row.overlay).mode == "RGB"
            assert row.warning == "not calibrated"
        assert (out / "failures.csv").read_text() == "file,from_frame,reason\n"
        settings = json.loads((out / "settings.json").read_text())
        assert settings["folds"] == [0, 1]
        assert not list(out.rglob("*.partial"))
        said = capsys.readouterr().out
        assert "3 pictures predicted" in said
        assert "on cpu" in said

    @pytest.mark.parametrize(
        ("flag", "said"), [("--tta", "without flipped and turned"), ("--no-tta", "")]
    )
    def test_versions_that_trust_was_not_fitted_with(self, archive, tmp_path, capsys, flag, said):
        write_run(tmp_path / "run", folds=(0,))
        write_trust(tmp_path / "run", (0,))
        assert call(tmp_path / "run", tmp_path / "out", archive, options=[flag]) == 0
        printed = capsys.readouterr().out
        assert (said in printed) if said else ("trust.json" not in printed)

    def test_probability_pictures_keep_the_side_of_one_half(self, world, archive, tmp_path):
        out = tmp_path / "out"
        call(world[0], out, archive, options=["--save_probabilities=png", "--refine=none"])
        for name, row in table(out).iterrows():
            stored = np.asarray(Image.open(out / row.probability_map))
            mask = np.asarray(Image.open(out / f"masks/{name}.png"))
            np.testing.assert_array_equal(stored >= 128, mask > 0)

    def test_bad_files_are_listed_and_do_not_stop_the_others(
        self, world, archive, tmp_path, capsys
    ):
        (archive / "0_empty.png").write_bytes(b"")
        (archive / "0_text.png").write_text("no picture")
        cut = (archive / "a.png").read_bytes()
        (archive / "z_cut.png").write_bytes(cut[: len(cut) // 2])
        Image.new("L", (1, 1)).save(archive / "a_dot.png")
        out = tmp_path / "out"
        assert call(world[0], out, archive) == 2
        assert list(table(out).index) == ["a.bmp", "a.png", "sub/b"]
        failures = pd.read_csv(out / "failures.csv")
        names = [pathlib.Path(path).name for path in failures.file]
        assert names == ["0_empty.png", "0_text.png", "a_dot.png", "z_cut.png"]
        shown = capsys.readouterr().err
        assert "4 could not be read" in shown
        assert "0_empty.png: is empty (0 bytes)" in shown
        assert {p.name for p in (out / "masks").rglob("*.png")} == {
            "a.bmp.png",
            "a.png.png",
            "b.png",
        }

    def test_folds_that_are_left_out_are_named(self, archive, tmp_path, capsys):
        write_run(tmp_path / "run", folds=(0, 1))
        (tmp_path / "run" / "fold_0" / "cases.csv").write_text("uid\n")
        (tmp_path / "run" / "fold_2").mkdir()
        assert call(tmp_path / "run", tmp_path / "out", archive / "a.png") == 0
        said = capsys.readouterr().out
        assert "1 file; fold 0, 1 prediction a picture" in said
        assert "left out: fold 1, not tested yet" in said
        assert "left out: fold 2, which has no finished checkpoint" in said
        assert "1 picture predicted" in said

    def test_only_bad_files(self, world, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        out = tmp_path / "out"
        assert call(world[0], out, tmp_path / "a.png") == 2
        assert len(table(out)) == 0
        assert len(pd.read_csv(out / "failures.csv")) == 1

    def test_more_files_than_a_batch(self, world, tmp_path, pictures):
        folder = made(tmp_path / "in")
        for number in range(7):
            Image.fromarray(np.roll(pictures[0], number, 1)).save(folder / f"{number}.png")
        (folder / "3.png").write_bytes(b"")
        out = tmp_path / "out"
        assert call(world[0], out, folder, options=["--batch_size=2"]) == 2
        rows = table(out)
        assert list(rows.index) == list("012456")
        (wanted,) = Predictor(world[0])([np.roll(pictures[0], 5, 1)])
        mask = np.asarray(Image.open(out / "masks" / "5.png")) > 0
        np.testing.assert_array_equal(mask, wanted.mask)

    def test_wrong_use_writes_nothing(self, world, archive, tmp_path):
        out = tmp_path / "out"
        for workdir, inputs, options, word in (
            (tmp_path / "nowhere", [archive], [], "--run"),
            (world[0], [tmp_path / "nowhere"], [], "no such file"),
            (world[0], [made(tmp_path / "void")], [], "holds no picture"),
            (world[0], [archive], ["--folds=7"], "--folds=7"),
            (world[0], [archive], ["--folds=one"], "--folds=one"),
            (world[0], [archive], ["--batch_size=0"], "batch_size"),
            (world[0], [archive], ["--refine=probable"], "trust.json"),
        ):
            with pytest.raises(UserError, match=word):
                call(workdir, out, *inputs, options=options)
            assert not out.exists()

    def test_out_apart_from_the_inputs(self, world, archive, tmp_path):
        for out in (archive / "out", archive, tmp_path):
            with pytest.raises(UserError, match=r"lie in one another|is not empty"):
                call(world[0], out, archive)
        with pytest.raises(UserError, match="lie in one another"):
            call(world[0], made(tmp_path / "empty"), tmp_path / "empty")

    def test_a_folder_that_holds_results(self, world, archive, tmp_path):
        out = tmp_path / "out"
        call(world[0], out, archive, options=["--save_probabilities"])
        before = {path: path.read_bytes() for path in out.rglob("*.png")}
        with pytest.raises(UserError, match="--overwrite"):
            call(world[0], out, archive)
        assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
        assert call(world[0], out, archive / "sub", options=["--overwrite"]) == 0
        left = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
        assert left == [
            *(".lock", "failures.csv", "masks/b.png", "overlays/b.png", "predictions.csv"),
            *("progress.jsonl", "settings.json"),
        ]

    def test_what_another_prediction_wrote_meanwhile_is_left(
        self, world, archive, tmp_path, monkeypatch
    ):
        """Both began when the folder was empty; the second had to wait for its network."""
        flags = [f"--run={world[0]}", f"--input={archive}", f"--out={tmp_path / 'out'}"]
        real, begun = command.Predictor, []

        def late(*args, **kwargs):
            if not begun:
                begun.append(True)
                command.main(flags)  # the other process
            return real(*args, **kwargs)

        monkeypatch.setattr(command, "Predictor", late)
        with pytest.raises(UserError, match="is not empty"):
            command.main(flags)
        assert (tmp_path / "out" / "predictions.csv").exists()

    def test_overwrite_never_touches_other_files(self, world, archive, tmp_path):
        out = made(tmp_path / "out")
        (made(out / "masks") / "by_hand.png").write_bytes(b"x")
        with pytest.raises(UserError, match="no prediction wrote"):
            call(world[0], out, archive, options=["--overwrite"])
        (out / "settings.json").write_text("{}")
        (out / "thesis.txt").write_text("x")
        with pytest.raises(UserError, match=r"thesis\.txt"):
            call(world[0], out, archive, options=["--overwrite"])
        assert (out / "masks" / "by_hand.png").exists()
        with pytest.raises(UserError, match="is a file"):
            call(world[0], out / "thesis.txt", archive)

    def test_overwrite_never_touches_masks_that_a_person_added(self, world, archive, tmp_path):
        out = tmp_path / "out"
        options = ["--overwrite"]
        call(world[0], out, archive)
        added = made(out / "masks" / "drawn") / "by_hand.png"
        added.write_bytes(b"hours of work")
        with pytest.raises(UserError, match=r"masks/drawn/by_hand\.png, which no prediction wrote"):
            call(world[0], out, archive, options=options)
        assert added.read_bytes() == b"hours of work"
        assert len(table(out)) == 3
        # After a prediction that did not reach its table, too.
        (out / "predictions.csv").unlink()
        with pytest.raises(UserError, match="by_hand"):
            call(world[0], out, archive, options=options)
        added.unlink()
        assert call(world[0], out, archive, options=options) == 0

    def test_out_that_cannot_be_written(self, world, archive, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match="cannot be written"):
            call(world[0], tmp_path / "file" / "out", archive)

    def test_a_name_that_is_no_unicode(self, world, archive, tmp_path):
        name = os.fsdecode(b"caf\xe9")
        try:
            (archive / "a.png").rename(archive / f"{name}.png")
            (archive / f"{name}_2.png").write_bytes(b"")
        except OSError:
            pytest.skip("this file system takes Unicode names only")
        out = tmp_path / "out"
        assert call(world[0], out, archive) == 2
        assert "caf\N{REPLACEMENT CHARACTER}" in table(out).index
        assert "caf\N{REPLACEMENT CHARACTER}_2" in (out / "failures.csv").read_text()

    @pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
    def test_single_tasks(self, tmp_path, archive, tasks):
        write_run(tmp_path / "run", folds=(0,), tasks=tasks)
        out = tmp_path / "out"
        assert call(tmp_path / "run", out, archive) == 0
        assert (out / "masks").exists() == (tasks == ("seg",))
        rows = table(out)
        assert (rows["class"] != "").all() == (tasks == ("cls",))
        assert (rows["area_px"] != "").all() == (tasks == ("seg",))
        assert len(list((out / "overlays").rglob("*.png"))) == 3

    def test_several_inputs(self, world, archive, tmp_path, pictures):
        other = made(tmp_path / "other")
        Image.fromarray(pictures[1]).save(other / "b.png")
        out = tmp_path / "out"
        twice = [archive / "sub", other, archive / "sub" / "b.png"]
        assert call(world[0], out, *twice, options=["--input", str(archive / "a.png")]) == 0
        assert sorted(table(out).index) == ["a", "b.png", "b.png~2"]


class TestDicomCommand:
    @pytest.fixture(autouse=True)
    def needs_pydicom(self):
        pytest.importorskip("pydicom", reason="NOT TESTED without mtbus_jax[dicom]")

    def test_frames_spacing_and_silence_about_the_header(
        self, world, tmp_path, pictures, capfd, monkeypatch
    ):
        """Every result of two DICOM files and a broken one, searched for what their headers say."""
        frames = np.stack([np.roll(pictures[0], 9 * i, axis=1) for i in range(11)])
        folder = made(tmp_path / "in")
        dicom_dummies.write(
            folder / "cine.dcm",
            frames,
            SequenceOfUltrasoundRegions=[dicom_dummies.region((0, 0, 40, 90), 0.02, 0.01)],
        )
        dicom_dummies.write(
            folder / "IM1", frames[:1], PhotometricInterpretation="MONOCHROME1", ImageType="ZYX"
        )
        dicom_dummies.write(folder / "cut.dcm", frames)
        content = (folder / "cut.dcm").read_bytes()
        (folder / "cut.dcm").write_bytes(content[:-5000])
        out = tmp_path / "out"
        assert call(world[0], out, folder, options=["--save_probabilities", "--refine=none"]) == 2
        rows = table(out)
        # What lies before the cut is there.
        assert list(rows.index) == [
            "IM1",
            *(f"cine#{number:02d}" for number in range(1, 12)),
            *(f"cut#{number:02d}" for number in range(1, 10)),
        ]
        assert list(rows.frame) == ["", *map(str, range(1, 12)), *map(str, range(1, 10))]
        predictions = Predictor(world[0], refine="none")(list(frames))
        for number, wanted in enumerate(predictions, 1):
            row = rows.loc[f"cine#{number:02d}"]
            assert row.file == "cine.dcm"
            mask = np.asarray(Image.open(out / row["mask"])) > 0
            np.testing.assert_array_equal(mask, wanted.mask)
            assert float(row.area_mm2) == pytest.approx(mask.sum() * 0.2 * 0.1, abs=1e-3)
        assert "MONOCHROME1 inverted" in rows.loc["IM1"].notes
        assert "no mm" in rows.loc["IM1"].notes
        (failure,) = (out / "failures.csv").read_text().splitlines()[1:]
        assert "cut.dcm,10," in failure

        shown = "".join(capfd.readouterr())
        secret = dicom_dummies.SECRET.lower()
        assert secret not in shown.lower()
        for path in out.rglob("*"):
            assert secret not in str(path).lower()
            if path.is_file():
                assert secret.encode() not in path.read_bytes().lower()
                if path.suffix == ".png":
                    assert not Image.open(path).info, "no metadata is written"

    def test_without_pydicom_the_other_files_go_on(self, world, tmp_path, pictures, monkeypatch):
        folder = made(tmp_path / "in")
        dicom_dummies.write(folder / "a.dcm", pictures[0][None])
        Image.fromarray(pictures[0]).save(folder / "b.png")
        monkeypatch.setitem(sys.modules, "pydicom", None)
        out = tmp_path / "out"
        assert call(world[0], out, folder) == 2
        assert list(table(out).index) == ["b"]
        assert "pip install -e '.[dicom]'" in (out / "failures.csv").read_text()


class TestDicomObjects:
    """``--dicom``; what stands in the objects is tested in test_dicom_objects.py."""

    @pytest.fixture(autouse=True)
    def needs_highdicom(self):
        pytest.importorskip("highdicom", reason="NOT TESTED without mtbus_jax[dicom]")

    @pytest.fixture
    def archive(self, tmp_path, pictures):
        """A clip and a single picture, a file that nothing can refer to, and a PNG file."""
        folder = made(tmp_path / "in" / "sub").parent
        frames = np.stack([np.roll(pictures[0], 9 * i, axis=1) for i in range(3)])
        dicom_dummies.write(folder / "clip.dcm", frames, **dicom_dummies.study())
        single = dicom_dummies.study(
            SOPInstanceUID="1.2.3", PhotometricInterpretation="MONOCHROME1"
        )
        dicom_dummies.write(folder / "sub" / "IM1", pictures[1][None], **single)
        dicom_dummies.write(folder / "lost.dcm", frames[:1])
        Image.fromarray(pictures[2]).save(folder / "plain.png")
        return folder

    def test_one_of_each_kind_per_picture(self, world, archive, tmp_path, capfd):
        import highdicom
        import pydicom

        out = tmp_path / "out"
        assert call(world[0], out, archive, options=["--dicom", "--refine=none"]) == 0
        rows = table(out)
        for name in ("clip#1", "clip#2", "clip#3", "sub/IM1"):
            row = rows.loc[name]
            assert row.dicom_segmentation == f"dicom/{name}.seg.dcm"
            assert row.dicom_capture == f"dicom/{name}.sc.dcm"
            mask = np.asarray(Image.open(out / row["mask"])) > 0
            assert mask.any()
            found = highdicom.seg.segread(out / row.dicom_segmentation)
            np.testing.assert_array_equal(found.pixel_array.astype(bool), mask)
            capture = pydicom.dcmread(out / row.dicom_capture)
            assert capture.PatientID == f"{dicom_dummies.SECRET}-7"
            reference = capture.SourceImageSequence[0]
            assert reference.get("ReferencedFrameNumber") == (int(row.frame) if row.frame else None)
            (algorithm,) = found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
            assert algorithm.AlgorithmName == "mtbus_jax tiny"
            assert "folds=0 1" in algorithm.AlgorithmParameters
            assert Predictor(world[0]).trained.digest() in algorithm.AlgorithmVersion
        for name, reason in (("lost", "has no StudyInstanceUID"), ("plain", "is not a DICOM file")):
            assert rows.loc[name].dicom_segmentation == rows.loc[name].dicom_capture == ""
            assert reason in rows.loc[name].notes
        written = [row[kind] for _, row in rows.iterrows() for kind in measure.DICOM_COLUMNS]
        held = [p.relative_to(out).as_posix() for p in (out / "dicom").rglob("*") if p.is_file()]
        assert sorted(held) == sorted(filter(None, written))
        assert json.loads((out / "settings.json").read_text())["dicom"] is True

        shown = "".join(capfd.readouterr())
        assert "no DICOM objects for 1 picture: the picture is not a DICOM file" in shown
        assert "4 pictures as DICOM" in shown
        secret = dicom_dummies.SECRET.lower()
        assert secret not in shown.lower()
        for path in out.rglob("*"):
            inside = path.is_file() and secret.encode() in path.read_bytes().lower()
            assert inside == (path.is_file() and path.parts[len(out.parts)] == "dicom"), path
            assert secret not in str(path).lower()

    def test_a_picture_without_a_mask_has_a_capture_only(self, world, archive, tmp_path, pictures):
        dark = np.zeros_like(pictures[0])[None]
        path = tmp_path / "dark.dcm"
        dicom_dummies.write(path, dark, **dicom_dummies.study())
        write_run(tmp_path / "run", folds=(0,), tasks=("cls",))
        out = tmp_path / "out"
        assert call(tmp_path / "run", out, path, options=["--dicom"]) == 0
        row = table(out).loc["dark"]
        assert (row.dicom_segmentation, row.dicom_capture) == ("", "dicom/dark.sc.dcm")

    def test_without_the_option_there_are_none(self, world, archive, tmp_path):
        out = tmp_path / "out"
        assert call(world[0], out, archive) == 0
        assert not (out / "dicom").exists()
        assert "no DICOM objects" not in (out / "predictions.csv").read_text()

    def test_overwrite_replaces_objects_and_touches_nothing_else(self, world, archive, tmp_path):
        out = tmp_path / "out"
        options = ["--dicom", "--overwrite"]
        assert call(world[0], out, archive, options=options) == 0
        added = out / "dicom" / "by_hand.dcm"
        added.write_bytes(b"a report")
        with pytest.raises(UserError, match=r"dicom/by_hand\.dcm, which no prediction wrote"):
            call(world[0], out, archive, options=options)
        # After a prediction that did not reach its table, too.
        (out / "predictions.csv").unlink()
        with pytest.raises(UserError, match="by_hand"):
            call(world[0], out, archive, options=options)
        added.unlink()
        before = (out / "dicom" / "clip#1.sc.dcm").read_bytes()
        assert call(world[0], out, archive, options=options) == 0
        assert (out / "dicom" / "clip#1.sc.dcm").read_bytes() != before
        assert call(world[0], out, archive / "plain.png", options=["--overwrite"]) == 0
        assert not (out / "dicom").exists()

    def test_without_highdicom_nothing_is_begun(self, world, archive, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "highdicom", None)
        with pytest.raises(
            UserError, match=r"--dicom needs highdicom: pip install -e '\.\[dicom\]'"
        ):
            call(world[0], tmp_path / "out", archive, options=["--dicom"])
        assert not (tmp_path / "out").exists()


def test_captions():
    row = {
        "class": "benign",
        "probability_benign": 0.7,
        "probability_malignant": 0.2,
        "probability_normal": 0.1,
        "area_px": 12345,
        "area_mm2": 67.891,
        "refined": "class changed from malignant to normal",
        "warning": "uncertain",
        "uncertainty": 0.456,
    }
    lines = output.caption(row, types.CLASS_NAMES)
    assert lines == [
        "benign (benign 0.70, malignant 0.20, normal 0.10)",
        "lesion 12,345 px = 67.9 mm2",
        "refined: class changed from malignant to normal",
        "warning: uncertain (probability of being wrong 0.46)",
    ]
    font = ImageFont.load_default(20)
    missing = bytes(font.getmask("\uffff"))
    for letter in set("".join(lines)) - {" "}:
        assert bytes(font.getmask(letter)) != missing, letter
    row = {"area_px": 0, "refined": "no", "warning": "not calibrated"}
    assert output.caption(row, types.CLASS_NAMES) == ["no lesion outlined"]


def test_caption_of_a_mask_that_was_removed():
    row = {"area_px": 0, "refined": "mask removed", "warning": ""}
    expected = ["no lesion outlined", "refined: mask removed (dashed)"]
    assert output.caption(row, types.CLASS_NAMES) == expected


def run_program(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mtbus_jax.predict", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_the_program_itself(tmp_path, pictures):
    """A real network in a process of its own: results, exit code, and a clear refusal."""
    workdir = tmp_path / "run"
    predict_dummies.write_small_run(workdir)
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    arguments = [f"--run={workdir}", f"--out={tmp_path / 'out'}"]
    arguments += ["--input", tmp_path / "a.png", tmp_path / "b.png"]
    done = run_program(*arguments, **cache)
    assert done.returncode == 2, done.stderr
    assert "1 picture predicted" in done.stdout
    assert "b.png: is not a PNG" in done.stderr
    assert list(table(tmp_path / "out").index) == ["a"]
    done = in_process.run("mtbus_jax.predict", __main__.main, arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("mtbus_jax.predict: --out=")
    assert "Traceback" not in done.stderr
