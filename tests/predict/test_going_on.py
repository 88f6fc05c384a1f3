"""``--continue``: what of an earlier prediction is kept, done again, or refused."""

import json
import os
import pathlib
import sys

import dicom_dummies
import numpy as np
import pandas as pd
import predict_dummies
import pytest
import tiny
from PIL import Image
from predict_dummies import made, write_run

from mtbus_jax import images, models
from mtbus_jax.errors import UserError
from mtbus_jax.predict import Predictor, __main__, batches, output


@pytest.fixture(scope="module")
def run(world):
    return world[0]


@pytest.fixture
def archive(tmp_path):
    """Five pictures and a clip of three pages."""
    folder = made(tmp_path / "in")
    shown = predict_dummies.pictures()
    for number in range(5):
        Image.fromarray(np.roll(shown[number % 3], 9 * number, 1)).save(folder / f"{number}.png")
    pages = [Image.fromarray(np.roll(shown[1], 7 * i, axis=1)) for i in range(3)]
    pages[0].save(folder / "1_clip.tif", save_all=True, append_images=pages[1:])
    return folder


NAMES = ["0", "1", "1_clip#1", "1_clip#2", "1_clip#3", "2", "3", "4"]


def call(run, out, archive, *options):
    flags = [f"--run={run}", f"--out={out}", f"--input={archive}", "--batch_size=2", *options]
    return __main__.main(flags)


def names(out):
    table = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False)
    return list(table["name"])


def results(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def written(monkeypatch):
    """The names of the pictures that are predicted, one call after the other."""
    found = []
    write = output.Output.write

    def noted(self, source, prediction):
        found.append(output.result_name(source, prediction))
        write(self, source, prediction)

    monkeypatch.setattr(output.Output, "write", noted)
    return found


class TestWhatIsKept:
    def test_a_finished_prediction_is_left_as_it_is(self, run, archive, tmp_path, written, capsys):
        out = tmp_path / "out"
        assert call(run, out, archive, "--continue") == 0  # nothing there: it begins
        assert written == NAMES
        before = results(out)
        assert call(run, out, archive, "--continue") == 0
        assert written == NAMES
        assert results(out) == before
        assert "going on: 6 files done before" in capsys.readouterr().out

    def test_new_files_are_added_in_their_place(self, run, archive, tmp_path, written):
        picture = np.asarray(Image.open(archive / "4.png"))
        (archive / "4.png").rename(tmp_path / "kept.png")
        out = tmp_path / "out"
        call(run, out, archive)
        Image.fromarray(picture).save(archive / "2_new.png")
        (tmp_path / "kept.png").rename(archive / "4.png")
        written.clear()
        assert call(run, out, archive, "--continue") == 0
        assert written == ["2_new", "4"]
        assert names(out) == [*NAMES[:6], "2_new", *NAMES[6:]]
        # As if all had been there from the beginning.
        wanted = tmp_path / "whole"
        call(run, wanted, archive)
        assert results(out)["predictions.csv"] == results(wanted)["predictions.csv"]

    @pytest.mark.parametrize("damage", ["removed", "empty"])
    @pytest.mark.parametrize("folder", ["masks", "overlays", "probabilities"])
    def test_results_that_are_not_there(self, run, archive, tmp_path, written, folder, damage):
        out = tmp_path / "out"
        call(run, out, archive, "--save_probabilities")
        before = results(out)
        (lost,) = (out / folder).glob("1_clip#2.*")
        lost.unlink() if damage == "removed" else lost.write_bytes(b"")
        written.clear()
        assert call(run, out, archive, "--save_probabilities", "--continue") == 0
        assert written == ["1_clip#1", "1_clip#2", "1_clip#3"]  # a file is done as a whole
        after = results(out)
        del before["progress.jsonl"], after["progress.jsonl"]
        assert after == before

    def test_pictures_that_have_changed(self, run, archive, tmp_path, written, capsys):
        out = tmp_path / "out"
        call(run, out, archive)
        mask = np.asarray(Image.open(out / "masks" / "3.png"))
        changed = np.asarray(Image.open(archive / "3.png"))[:-3, ::-1]
        Image.fromarray(changed).save(archive / "3.png")
        written.clear()
        assert call(run, out, archive, "--continue") == 0
        assert written == ["3"]
        assert "5 files done before; changed since, or without all results, so done again: 3" in (
            capsys.readouterr().out
        )
        (wanted,) = Predictor(run)([changed])
        found = np.asarray(Image.open(out / "masks" / "3.png")) > 0
        np.testing.assert_array_equal(found, wanted.mask)
        assert found.shape != mask.shape
        assert names(out) == NAMES

    def test_a_clip_that_has_become_shorter_leaves_no_results(self, run, archive, tmp_path):
        out = tmp_path / "out"
        call(run, out, archive)
        with Image.open(archive / "1_clip.tif") as image:
            first = Image.fromarray(np.asarray(image))
        first.save(archive / "1_clip.tif")
        assert call(run, out, archive, "--continue") == 0
        assert not list(out.rglob("1_clip#*"))
        assert (out / "masks" / "1_clip.png").exists()
        assert names(out) == ["0", "1", "1_clip", "2", "3", "4"]

    def test_files_that_failed_are_tried_again(self, run, archive, tmp_path, written):
        picture = (archive / "2.png").read_bytes()
        (archive / "2.png").write_bytes(picture[: len(picture) // 2])
        out = tmp_path / "out"
        assert call(run, out, archive) == 2
        assert call(run, out, archive, "--continue") == 2
        assert len(pd.read_csv(out / "failures.csv")) == 1
        (archive / "2.png").write_bytes(picture)
        written.clear()
        assert call(run, out, archive, "--continue") == 0
        assert (written, names(out)) == (["2"], NAMES)
        assert len(pd.read_csv(out / "failures.csv")) == 0

    @pytest.mark.parametrize("keep", [0, 1, 30, -1, -200])
    def test_cut_tables(self, run, archive, tmp_path, keep):
        """Whatever a crash leaves of the tables: rows are never doubled, lost or halved."""
        out = tmp_path / "out"
        call(run, out, archive)
        before = results(out)
        for name in ("predictions.csv", "progress.jsonl"):
            path = out / name
            path.write_bytes(path.read_bytes()[:keep])
            assert call(run, out, archive, "--continue") == 0
            assert results(out)["predictions.csv"] == before["predictions.csv"], name

    def test_names_that_a_spreadsheet_would_take_for_formulas(self, run, tmp_path, written):
        folder = made(tmp_path / "in")
        for name in ('=1+1"\n,', "-a", "b", "c\rd"):
            Image.fromarray(predict_dummies.pictures()[0]).save(folder / f"{name}.png")
        out = tmp_path / "out"
        call(run, out, folder)
        before = results(out)
        assert call(run, out, folder, "--continue") == 0
        assert len(written) == 4
        assert results(out) == before
        (out / "masks" / "-a.png").unlink()
        assert call(run, out, folder, "--continue") == 0
        assert written[4:] == ["-a"]
        assert results(out)["predictions.csv"] == before["predictions.csv"]


class TestWhatIsRefused:
    @pytest.fixture
    def out(self, run, archive, tmp_path):
        call(run, tmp_path / "out", archive)
        return tmp_path / "out"

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (["--folds=1"], r"folds was \[0, 1\] and is \[1\]"),
            (["--tta"], "test_time_augmentation was false and is true"),
            (["--refine=none"], 'refine was "hard" and is "none"'),
            (["--save_probabilities"], 'save_probabilities was null and is "npy"'),
            (["--overwrite"], "give one of them"),
        ],
    )
    def test_other_options(self, run, archive, out, options, word):
        before = results(out)
        with pytest.raises(UserError, match=word):
            call(run, out, archive, "--continue", *options)
        assert results(out) == before

    def test_other_weights(self, run, archive, tmp_path, out, monkeypatch):
        """The same folder, trained again."""
        write_run(tmp_path / "other", folds=(1, 0))
        other = Predictor(tmp_path / "other", folds=(1, 0)).trained.digest()
        settings = json.loads((out / "settings.json").read_text())
        assert settings["weights"] == Predictor(run).trained.digest() != other
        (out / "settings.json").write_text(json.dumps(settings | {"weights": other}))
        with pytest.raises(UserError, match=f'weights was "{other}" and is'):
            call(run, out, archive, "--continue")

    def test_another_calibration(self, archive, tmp_path):
        write_run(tmp_path / "run")
        predict_dummies.write_trust(tmp_path / "run", (0, 1))
        out = tmp_path / "out"
        call(tmp_path / "run", out, archive)
        assert call(tmp_path / "run", out, archive, "--continue") == 0
        predict_dummies.write_trust(tmp_path / "run", (0, 1), temperature=1.5)
        with pytest.raises(UserError, match="calibration was"):
            call(tmp_path / "run", out, archive, "--continue")

    def test_inputs_that_are_missing(self, run, archive, out):
        before = results(out)
        (archive / "3.png").unlink()
        with pytest.raises(
            UserError, match=r"holds results of 3\.png, which --input does not name"
        ):
            call(run, out, archive, "--continue")
        assert results(out) == before

    def test_folders_that_are_no_prediction(self, run, archive, tmp_path, out):
        (out / "thesis.txt").write_text("x")
        with pytest.raises(UserError, match=r"thesis\.txt, which no .* so --continue does not"):
            call(run, out, archive, "--continue")
        (out / "thesis.txt").unlink()
        (out / "progress.jsonl").unlink()
        with pytest.raises(UserError, match="a version before there was --continue"):
            call(run, out, archive, "--continue")

    @pytest.mark.parametrize(
        ("name", "content", "word"),
        [
            ("settings.json", b"[]", "settings.json is damaged"),
            ("settings.json", b"{", "settings.json is not valid JSON"),
            ("progress.jsonl", b"{\n", "line 1 is not JSON"),
            ("progress.jsonl", b'{"done": "a"}\n', "line 1: file is missing"),
            ("predictions.csv", b"\xff\n", "predictions.csv is damaged"),
            ("predictions.csv", b"of,another\nprogram,1\n", "it has no column name"),
        ],
    )
    def test_damaged_files(self, run, archive, out, name, content, word):
        (out / name).write_bytes(content)
        with pytest.raises(UserError, match=word):
            call(run, out, archive, "--continue")
        assert (out / name).read_bytes() == content
        assert len(list((out / "masks").iterdir())) == len(NAMES)


class TestBatches:
    """Which pictures are read, for every choice of files that are done."""

    FRAMES = (1, 3, 1, 2, 5, 1, 1)

    @pytest.fixture
    def sources(self, monkeypatch):
        """Files of so many pictures, each with its number as its size."""
        starts = np.concatenate([[0], np.cumsum(self.FRAMES)])

        def read(path):
            index = int(path.name)
            for number in range(starts[index], starts[index + 1]):
                yield images.Frame(np.zeros((1, number), np.uint8))

        monkeypatch.setattr(images, "read", read)
        return [
            images.Source(pathlib.Path(str(index)), str(index), str(index))
            for index in range(len(self.FRAMES))
        ]

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 20])
    def test_batches_are_those_of_a_whole_prediction(self, sources, batch_size):
        whole = list(range(sum(self.FRAMES)))
        wanted = [whole[at : at + batch_size] for at in range(0, len(whole), batch_size)]
        for choice in range(2 ** len(sources)):
            done = {
                source.name: self.FRAMES[index]
                for index, source in enumerate(sources)
                if choice >> index & 1
            }
            items = list(batches.items(sources, done, batch_size))
            pictures = [item for item in items if item.frame is not None]
            numbers = [item.frame.grey.shape[1] for item in pictures]
            found = [numbers[at : at + batch_size] for at in range(0, len(numbers), batch_size)]
            assert all(batch in wanted for batch in found)
            fresh = [n for n, item in zip(numbers, pictures, strict=True) if not item.done]
            starts = np.cumsum([0, *self.FRAMES])
            assert fresh == [
                n
                for index, source in enumerate(sources)
                if source.name not in done
                for n in range(starts[index], starts[index + 1])
            ]
            # No batch is computed in vain.
            assert len(found) == sum(bool(set(batch) & set(fresh)) for batch in wanted)
            ends = [item.source.name for item in items if item.frame is None]
            assert ends == [source.name for source in sources if source.name not in done]


class TestDicom:
    @pytest.fixture(autouse=True)
    def needs_highdicom(self):
        pytest.importorskip("highdicom", reason="NOT TESTED without mtbus_jax[dicom]")

    def test_series_are_taken_up(self, run, tmp_path, written, capsys):
        """Objects made later stand in the series of those made before, numbered on."""
        import pydicom

        folder = made(tmp_path / "in")
        shown = predict_dummies.pictures()[0]
        for number in range(4):
            picture = np.roll(shown, 9 * number, axis=1)[None]
            header = dicom_dummies.study(SOPInstanceUID=f"1.2.{number}")
            dicom_dummies.write(folder / f"{number}.dcm", picture, **header)
        dicom_dummies.write(folder / "lost.dcm", shown[None])
        (folder / "3.dcm").rename(tmp_path / "3.dcm")
        out = tmp_path / "out"
        call(run, out, folder, "--dicom")
        (tmp_path / "3.dcm").rename(folder / "3.dcm")
        (out / "dicom" / "1.sc.dcm").write_bytes(b"damaged")
        written.clear()
        capsys.readouterr()
        assert call(run, out, folder, "--dicom", "--continue") == 0
        assert written == ["1", "3"]
        said = capsys.readouterr().out
        assert "4 pictures as DICOM" in said
        assert "no DICOM objects for 1 picture: the file has no" in said
        captures = [pydicom.dcmread(path) for path in sorted((out / "dicom").glob("*.sc.dcm"))]
        assert len({capture.SeriesInstanceUID for capture in captures}) == 1
        assert len({int(capture.InstanceNumber) for capture in captures}) == 4
        before = results(out)
        assert call(run, out, folder, "--dicom", "--continue") == 0
        assert written == ["1", "3"]
        after = results(out)
        del before["progress.jsonl"], after["progress.jsonl"]  # in another order
        assert after == before


def test_a_table_can_be_read_at_every_moment(run, archive, tmp_path, monkeypatch):
    """After each picture the table has a row more, and each row all its files."""
    out = tmp_path / "out"
    lengths = []
    write = output.Output.write

    def checked(self, source, prediction):
        write(self, source, prediction)
        table = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False)
        assert all((out / path).stat().st_size for path in [*table["mask"], *table["overlay"]])
        lengths.append(len(table))

    monkeypatch.setattr(output.Output, "write", checked)
    call(run, out, archive)
    assert lengths == list(range(1, len(NAMES) + 1))


def test_a_picture_that_cannot_be_written_leaves_a_table_of_whole_rows(
    run, archive, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    real, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if "masks/2.png" in str(target):
            raise OSError(28, os.strerror(28), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"2\.png cannot be written: No space .* 5 pictures done"):
        call(run, out, archive)
    assert names(out) == NAMES[:5]
    monkeypatch.undo()
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    assert call(run, out, archive, "--continue") == 0
    assert names(out) == NAMES


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_sigterm_in_the_middle(run, archive, tmp_path, monkeypatch):
    import signal

    from mtbus_jax.errors import Stopped

    out = tmp_path / "out"
    write = output.Output.write

    def asked(self, source, prediction):
        write(self, source, prediction)
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(output.Output, "write", asked)
    with pytest.raises(Stopped, match=r"stopped\. 3 pictures done so far.* --continue") as caught:
        call(run, out, archive)
    assert caught.value.number == signal.SIGTERM
    assert names(out) == NAMES[:3]
