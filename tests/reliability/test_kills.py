"""Runs of main.py that are killed, stopped or left without room, and go on to the same end."""

import signal
import time

import main_killed
import pytest
import tiny
from processes import PATIENCE, finish, started, training_flags

from mtbus_jax.training.logbook import read_metrics

EPOCHS = 4


@pytest.fixture(scope="module")
def start(world, tmp_path_factory):
    """Starts main.py on a run folder, to be killed or not; see `command`."""
    cache = tmp_path_factory.mktemp("cache")

    def start(workdir, *flags, killed=None):
        script = ["main_with_tiny.py"] if killed is None else ["main_killed.py", *killed]
        arguments = [
            *training_flags(world, workdir),
            "--config.train.learning_rate=1e-2",
            f"--config.train.epochs={EPOCHS}",
            "--config.eval.tta=False",
            *flags,
        ]
        return started(*script, *arguments, cache=cache)

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, _, error = finish(start(workdir))
    assert code == 0, error
    return workdir


def files_of(workdir):
    """What lies in a run folder, without event files and what Orbax names at random."""
    found = set()
    for path in workdir.rglob("*"):
        parts = path.relative_to(workdir).parts
        if "tensorboard" not in parts:
            found.add(parts[: parts.index("checkpoints") + 3] if "checkpoints" in parts else parts)
    return found


def assert_same_end(whole, workdir):
    rows = [tiny.without_times(read_metrics(folder / "fold_0")) for folder in (whole, workdir)]
    assert rows[0] == rows[1]
    for name in ("fold_0/cases.csv", "trust.csv", "summary.json", "splits.json"):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name
    assert files_of(workdir) == files_of(whole)  # nothing half-written is left, either


def killed_and_finished(start, workdir, kills):
    """Kills a run at one moment after the other, then lets it end."""
    for moment, count in kills:
        code, _, error = finish(start(workdir, killed=(moment, count)))
        assert code == -signal.SIGKILL, (moment, count, error)
    code, out, error = finish(start(workdir))
    assert (code, error) == (0, ""), error
    return out


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not(start, whole, tmp_path):
    kills = [
        ("half_a_file", 2),  # environment.json
        ("during_checkpoint", 1),  # the first best weights
        ("after_line", 2),  # an epoch that is in the log and not on disk
        ("during_checkpoint", 4),
        ("between_tables", 1),
    ]
    out = killed_and_finished(start, tmp_path / "run", kills)
    assert "| DSC average |" in out
    assert_same_end(whole, tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("moment", main_killed.MOMENTS)
def test_a_run_that_is_killed_at_any_moment(start, whole, tmp_path, moment, count):
    workdir = tmp_path / "run"
    code, _, error = finish(start(workdir, killed=(moment, count)))
    if code != 0:  # 0: there are not so many such moments
        assert code == -signal.SIGKILL, error
        killed_and_finished(start, workdir, [])
    assert_same_end(whole, workdir)


def wait_for_an_epoch(process, workdir):
    metrics = workdir / "fold_0" / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_saves_and_says_how_to_go_on(start, whole, tmp_path):
    workdir = tmp_path / "run"
    # Rare checkpoints: the one that is there afterwards is SIGTERM's.
    flags = ("--config.train.epochs=4000", "--config.train.checkpoint_seconds=1e9")
    process = start(workdir, *flags)
    wait_for_an_epoch(process, workdir)
    # Meanwhile a second process on the same fold is refused, and says who has it.
    second = finish(start(workdir, *flags))
    process.send_signal(signal.SIGTERM)
    code, _, error = finish(process)
    assert code == 128 + signal.SIGTERM, error
    epochs = len(read_metrics(workdir / "fold_0"))
    assert f"stopped by SIGTERM. Saved in {workdir}: fold 0 up to epoch {epochs}." in error
    assert "The same command goes on from there." in error
    assert "Traceback" not in error
    assert second[0] == 2, second[2]
    assert f"fold 0 of {workdir} is in use by process {process.pid} on " in second[2]
    assert "Traceback" not in second[2]


def test_ctrl_c_says_how_to_go_on(start, whole, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir, "--config.train.epochs=4000")
    wait_for_an_epoch(process, workdir)
    process.send_signal(signal.SIGINT)
    code, _, error = finish(process)
    assert code == 128 + signal.SIGINT, error
    assert f"stopped. Saved in {workdir}: " in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("kilobytes", "words"),
    [(1, "cannot be written: File too large."), (20, "a checkpoint cannot be written to")],
)
def test_without_room_there_is_one_paragraph(start, whole, tmp_path, kilobytes, words):
    """No file may grow beyond a size, as good as a full disk to whoever writes."""
    process = start(
        tmp_path / "run",
        "--config.model.width=256",  # 0.1 MB of weights
        "--config.log.tensorboard=False",
        killed=("no_room", kilobytes),
    )
    code, _, error = finish(process)
    assert code == 2, error
    assert words in error
    assert "Traceback" not in error
    assert not list((tmp_path / "run").rglob("*.partial"))
