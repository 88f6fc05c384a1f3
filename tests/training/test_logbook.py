"""The record of a training: lines, resuming, event files, and what shows on screen."""

import json
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from mtbus_jax.errors import UserError
from mtbus_jax.training.logbook import Logbook, TrainingProgress, read_metrics
from mtbus_jax.training.totals import Totals


def row(epoch, loss=0.5):
    return {"epoch": epoch, "train_loss": loss, "validation_loss": loss + 1, "learning_rate": 1e-4}


def write(directory, epochs, *, resume_epoch=0, tensorboard=False, loss=0.5):
    with Logbook(directory, resume_epoch=resume_epoch, tensorboard=tensorboard) as logbook:
        for epoch in epochs:
            logbook.write(row(epoch, loss))


def test_one_line_per_epoch(tmp_path):
    write(tmp_path, [1, 2, 3])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(1), row(2), row(3)]
    assert read_metrics(tmp_path) == [row(1), row(2), row(3)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_each_line_is_on_disk_before_the_next(tmp_path):
    with Logbook(tmp_path, resume_epoch=0, tensorboard=False) as logbook:
        logbook.write(row(1))
        assert read_metrics(tmp_path) == [row(1)]


def test_no_file_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_resuming_drops_the_lines_that_are_computed_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4], resume_epoch=3, loss=0.1)
    assert read_metrics(tmp_path) == [row(1), row(2), row(3), row(4, 0.1)]


def test_resuming_at_the_last_line_keeps_all(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [3], resume_epoch=2)
    assert [r["epoch"] for r in read_metrics(tmp_path)] == [1, 2, 3]


def test_starting_afresh_drops_everything(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [], resume_epoch=0)
    assert read_metrics(tmp_path) == []


def test_a_last_line_cut_short_survives(tmp_path):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-25])
    assert read_metrics(tmp_path) == [row(1), row(2)]
    # A line added after it must be a line of its own.
    write(tmp_path, [3], resume_epoch=2, loss=0.2)
    assert read_metrics(tmp_path) == [row(1), row(2), row(3, 0.2)]
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ('{"epoch": 2, "train_lo', "line 2, is broken: it is not valid JSON"),
        ("", "line 2, is broken"),
        ('{"epoch": "2"}', "epoch is not a whole number"),
        ('{"epoch": 2, "train_loss": "low"}', "train_loss is not a number"),
        ("[2]", "has no fields"),
        ('{"epoch": 1, "train_loss": 0.5}', "epoch 1 comes after epoch 1"),
    ],
)
def test_a_broken_line_with_others_behind_it_is_refused(tmp_path, second, words):
    """Whoever reads on would lose the good lines, or count an epoch twice."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(row(1))}\n{second}\n{json.dumps(row(3))}\n")
    before = path.read_bytes()
    for read in (read_metrics, lambda folder: write(folder, [4], resume_epoch=3)):
        with pytest.raises(UserError, match=words):
            read(tmp_path)
    assert path.read_bytes() == before


def test_a_loss_that_is_no_number_is_recorded(tmp_path):
    write(tmp_path, [1], loss=float("nan"))
    write(tmp_path, [2], resume_epoch=1)
    first, second = read_metrics(tmp_path)
    assert first["train_loss"] != first["train_loss"]
    assert second == row(2)


def events(directory):
    """Events of all files, in order: an event file is length, checksum, message, checksum …"""
    found = []
    for path in sorted((directory / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def scalars(directory):
    return [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for event in events(directory)
        for value in event.summary.value
    ]


def test_tensorboard_events_hold_the_scalars_by_group(tmp_path):
    write(tmp_path, [1, 2], tensorboard=True)
    assert sorted(scalars(tmp_path), key=lambda s: s[:2]) == [
        (1, "learning_rate", 1e-4),
        (1, "train/loss", 0.5),
        (1, "validation/loss", 1.5),
        (2, "learning_rate", 1e-4),
        (2, "train/loss", 0.5),
        (2, "validation/loss", 1.5),
    ]


def test_tensorboard_is_told_what_a_resumed_run_computes_again(tmp_path):
    write(tmp_path, [1, 2, 3], tensorboard=True)
    # Of its own process in real life; event files are named by second.
    first = next((tmp_path / "tensorboard").iterdir())
    first.rename(first.with_name("events.out.tfevents.0000000000.first"))
    write(tmp_path, [2], resume_epoch=1, tensorboard=True)
    starts = [
        event.step
        for event in events(tmp_path)
        if event.session_log.status == event_pb2.SessionLog.START
    ]
    assert starts[-1] == 2
    assert [s[0] for s in scalars(tmp_path) if s[1] == "train/loss"] == [1, 2, 3, 2]


def test_without_tensorboard_there_is_no_event_folder(tmp_path):
    write(tmp_path, [1], tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()


def test_event_files_are_written_without_tensorflow(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from mtbus_jax.training.logbook import Logbook\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with Logbook(folder, resume_epoch=0, tensorboard=True) as logbook:\n"
        "    logbook.write({'epoch': 1, 'train_loss': 0.25})\n"
        "print('tensorflow' in sys.modules, 'tensorboardX' in sys.modules)\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "True"]
    assert scalars(tmp_path) == [(1, "train/loss", 0.25)]


EPOCH_ROW = {
    "epoch": 3,
    "train_loss": 0.51234,
    "train_dice": 0.7,
    "train_accuracy": 0.8,
    "validation_loss": 0.6,
    "validation_dice": 0.65,
    "validation_accuracy": 0.75,
    "learning_rate": 5e-5,
    "seconds": 12.4,
}


class Unread:
    """Sums that nobody may read: reading a device value waits for the device."""

    def means(self):
        raise AssertionError("read")


def progress(shown):
    return TrainingProgress(fold=2, epochs=200, steps=10, first_epoch=1, shown=shown)


def test_away_from_a_terminal_there_is_one_line_per_epoch(capsys):
    with progress(shown=True) as bar:
        bar.advance(5, 3, Unread())
        bar.epoch_line(EPOCH_ROW)
        bar.note("a note")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "fold 2 epoch   3/200  train loss 0.512 Dice 0.700 acc 0.800"
        "  validation loss 0.600 Dice 0.650 acc 0.750  lr 5.0e-05  12 s",
        "a note",
    ]


def test_nothing_shows_where_nothing_is_wanted(capsys):
    with progress(shown=False) as bar:
        bar.advance(5, 3, Unread())
        bar.epoch_line(EPOCH_ROW)
        bar.note("a note")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_means_are_of_the_images_whose_truth_is_known():
    values = {"loss": 8, "segmentation": 6, "classification": 4, "reconstruction": 2, "dice": 1.5}
    counts = {"correct": 1, "count": 4, "masks": 3, "labels": 2}
    found = Totals(**{k: np.float32(v) for k, v in (values | counts).items()}).means()
    assert found == {
        "loss": 2,
        "segmentation": 2,
        "classification": 2,
        "reconstruction": 0.5,
        "dice": 0.5,
        "accuracy": 0.5,
    }
