"""Predictions that are killed, stopped or left without room, and go on to the same end."""

import os
import signal
import time

import numpy as np
import predict_dummies
import predict_killed
import pytest
from PIL import Image
from processes import PATIENCE, finish, started

from mtbus_jax.predict import out_folder

BATCH = 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Pictures, a clip of three pages, and a file that is none: 16 pictures in 15 files."""
    folder = tmp_path_factory.mktemp("in")
    shown = predict_dummies.pictures()
    for number in range(13):
        picture = np.roll(shown[number % 3], 5 * number, axis=1)
        Image.fromarray(picture).save(folder / f"{number}.png")
    pages = [Image.fromarray(np.roll(shown[1], 7 * i, axis=1)) for i in range(3)]
    pages[0].save(folder / "5_clip.tif", save_all=True, append_images=pages[1:])
    (folder / "6_broken.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def start(archive, tmp_path_factory):
    """Starts a prediction, to be killed or not."""
    run, cache = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("cache")
    predict_dummies.write_run(run)

    def start(out, *options, killed=("after_row", 0)):
        arguments = [f"--run={run}", f"--out={out}", f"--input={archive}"]
        arguments += [f"--batch_size={BATCH}", "--save_probabilities", *options]
        return started("predict_killed.py", *killed, *arguments, cache=cache)

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The results of a prediction that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, said, error = finish(start(out))
    assert (code, "16 pictures predicted" in said) == (2, True), error  # 2: the broken file
    return out


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


def assert_same_end(whole, out):
    """Each file has the same bytes: tables, masks, overlays and probabilities."""
    wanted, found = contents(whole), contents(out)
    assert found.keys() == wanted.keys()
    progress = "progress.jsonl"  # lines of begun and done sources, in the order they came in
    assert sorted(set(found.pop(progress).splitlines())) == sorted(
        set(wanted.pop(progress).splitlines())
    )
    assert [name for name in wanted if found[name] != wanted[name]] == []


def table_lines(out):
    return (out / "predictions.csv").read_bytes().splitlines(keepends=True)


@pytest.mark.long
def test_a_prediction_that_is_killed_again_and_again_ends_as_if_it_had_not(start, whole, tmp_path):
    out = tmp_path / "out"
    kills = [("half_a_row", 3), ("half_a_file", 23), ("after_row", 4)]
    for number, kill in enumerate(kills):
        code, _, error = finish(start(out, *["--continue"] * (number > 0), killed=kill))
        assert code == -signal.SIGKILL, (kill, error)
        # At every moment the table is that of the whole prediction, cut somewhere.
        wanted = b"".join(table_lines(whole))
        assert wanted.startswith(b"".join(table_lines(out)))
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").glob("[01].png")}
    assert before
    code, said, error = finish(start(out, "--continue"))
    assert code == 2, error
    assert "files done before" in said
    assert_same_end(whole, out)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # left as they were


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 5, 7, 10])
@pytest.mark.parametrize("moment", [each for each in predict_killed.MOMENTS if each != "no_room"])
def test_a_prediction_that_is_killed_at_any_moment(start, whole, tmp_path, moment, count):
    out = tmp_path / "out"
    code, _, error = finish(start(out, killed=(moment, count)))
    assert code == -signal.SIGKILL, error
    code, _, error = finish(start(out, "--continue"))
    assert code == 2, error
    assert_same_end(whole, out)


@pytest.mark.long
def test_a_prediction_that_is_killed_at_random_times(start, whole, tmp_path):
    rng = np.random.default_rng(0)
    out = tmp_path / "out"
    for _ in range(8):
        process = start(out, "--continue")
        wait_for_rows(process, out, 0)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        finish(process)
    code, _, error = finish(start(out, "--continue"))
    assert code == 2, error
    assert_same_end(whole, out)


@pytest.mark.long
def test_a_killed_prediction_can_be_overwritten(start, whole, tmp_path):
    out = tmp_path / "out"
    assert finish(start(out, killed=("before_row", 6)))[0] == -signal.SIGKILL
    code, _, error = finish(start(out, "--overwrite"))
    assert code == 2, error
    assert_same_end(whole, out)


def wait_for_rows(process, out, count):
    deadline = time.monotonic() + PATIENCE
    table = out / "predictions.csv"
    while process.poll() is None and not (table.exists() and len(table_lines(out)) > count):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_with_a_line_that_says_how_to_go_on(start, whole, tmp_path, number):
    out = tmp_path / "out"
    process = start(out)
    wait_for_rows(process, out, 2)
    process.send_signal(number)
    code, _, error = finish(process)
    assert code == 128 + number, error
    assert "stopped." in error
    assert "give the same command with --continue" in error
    assert "Traceback" not in error
    assert finish(start(out, "--continue"))[0] == 2
    assert_same_end(whole, out)


@pytest.mark.long
def test_no_room(start, whole, tmp_path):
    """A file that cannot grow: a paragraph, a table of whole rows, and the mended one goes on."""
    out = tmp_path / "out"
    room = max(len(each) for name, each in contents(whole).items() if name.endswith(".png")) - 1
    code, _, error = finish(start(out, killed=("no_room", room)))
    assert code == 2, error
    assert "cannot be written: File too large. Make room there" in error
    assert "--continue" in error
    assert all(line.endswith(b"\n") for line in table_lines(out))
    code, _, error = finish(start(out, "--continue"))
    assert code == 2, error
    assert_same_end(whole, out)


def test_a_folder_that_another_process_writes_is_refused(start, tmp_path):
    out = tmp_path / "out"
    with out_folder.held(out):
        code, _, error = finish(start(out, "--continue"))
        assert code == 2
        assert f"is being written by process {os.getpid()} on" in error
        assert [path.name for path in out.iterdir()] == [".lock"]
