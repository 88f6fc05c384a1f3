"""Jobs are skipped, resumed, recorded; training itself is a stand-in that writes the files."""

import contextlib
import dataclasses
import json
import os

import pytest
import tiny

from mtbus_jax import crossval, files
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.jobs import Record, attempt_all, is_finished, read_record, run_job
from mtbus_jax.reproduce.plan import Job
from mtbus_jax.training import run_folder

TESTED = ("cases.csv", "predictions.npz", "predictions_validation.npz")


def write_splits(workdir, **changes):
    """Two folds with an image in each part, or as ``changes`` say."""
    fold = {"train": ["a"], "validation": ["b"], "test": ["c"]} | changes
    content = {"dataset": "phantom", "split": "published", "folds": [fold, fold]}
    (workdir / "splits.json").write_text(json.dumps(content))


@pytest.fixture
def trained(monkeypatch):
    """What `train` was asked for; a test may put failures by fold into ``fails``."""
    calls = []
    calls_fails = {}

    def train(config, workdir, *, folds):
        (fold,) = folds
        calls.append(fold)
        failures = calls_fails.get(fold, [])
        if failures:
            raise failures.pop(0)
        directory = run_folder.fold_dir(workdir, fold)
        directory.mkdir(parents=True, exist_ok=True)
        for name in TESTED:
            (directory / name).write_text("")

    monkeypatch.setattr(crossval, "train_and_evaluate", train)
    return calls, calls_fails


def make_jobs(tmp_path, count=2, **train):
    config = tiny.make_config(**train)
    return [Job(tmp_path / "run", config, fold) for fold in range(count)]


def in_turn(jobs):
    for job in jobs:
        run_job(job)
    return [None] * len(jobs)


def checkpoint(job, epoch):
    """Leaves what Orbax leaves of a checkpoint, as far as its name goes."""
    folder = run_folder.fold_dir(job.workdir, job.fold) / "checkpoints" / "latest" / str(epoch)
    folder.mkdir(parents=True)


def test_finished_jobs_are_skipped(tmp_path, trained):
    jobs = make_jobs(tmp_path)
    assert not any(map(is_finished, jobs))
    attempt_all(jobs, in_turn, max_attempts=2)
    assert all(map(is_finished, jobs))
    attempt_all(jobs, in_turn, max_attempts=2)
    assert trained[0] == [0, 1]
    record = read_record(jobs[1])
    assert (record.state, record.starts, record.attempts, record.log) == ("finished", 1, 0, "")


@pytest.mark.parametrize("name", TESTED)
def test_a_job_without_its_results_is_not_finished(tmp_path, trained, name):
    jobs = make_jobs(tmp_path)
    attempt_all(jobs, in_turn, max_attempts=2)
    (tmp_path / "run" / "fold_1" / name).unlink()
    attempt_all(jobs, in_turn, max_attempts=2)
    assert trained[0] == [0, 1, 1]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_without_images_has_no_predictions(tmp_path, trained, part):
    jobs = make_jobs(tmp_path)
    attempt_all(jobs, in_turn, max_attempts=2)
    (tmp_path / "run" / "fold_1" / stored_predictions.NAMES[part]).unlink()
    write_splits(tmp_path / "run", **{part: []})
    assert all(map(is_finished, jobs))


def test_more_epochs_than_before_are_more_work(tmp_path, trained):
    attempt_all(make_jobs(tmp_path, epochs=3), in_turn, max_attempts=2)
    more = make_jobs(tmp_path, epochs=4)
    assert not any(map(is_finished, more))
    attempt_all(more, in_turn, max_attempts=2)
    assert all(map(is_finished, more))
    assert not any(map(is_finished, make_jobs(tmp_path, epochs=4, stop_patience=7)))


def test_a_fold_done_by_main_counts_as_finished(tmp_path):
    """No record, but a log of all epochs, or of an early stop, and newer results."""
    (job,) = make_jobs(tmp_path, count=1, epochs=9, stop_patience=4)
    directory = run_folder.fold_dir(job.workdir, 0)
    directory.mkdir(parents=True)

    def log(epoch, best_epoch, *, age=10):
        path = directory / "metrics.jsonl"
        path.write_text(json.dumps({"epoch": epoch, "best_epoch": best_epoch}) + "\n")
        os.utime(path, (1000 - age, 1000 - age))

    log(9, 9)
    assert not is_finished(job)  # not tested
    for name in TESTED:
        (directory / name).write_text("")
        os.utime(directory / name, (1000, 1000))
    assert is_finished(job)
    log(9, 9, age=-10)
    assert not is_finished(job)  # trained on since it was tested
    log(8, 4)
    assert not is_finished(job)
    log(9, 5, age=10)
    assert is_finished(job)  # all epochs
    log(8, 3)
    assert is_finished(job)
    # A record knows better: what failed after the test is to be done again.
    jobs_lib._write(job, Record("failed", 1, 1))
    assert not is_finished(job)


def test_a_failed_job_is_recorded_with_its_log_and_the_others_go_on(tmp_path, trained):
    calls, fails = trained
    fails[0] = [ValueError("a bad\n  thing"), ValueError("again")]
    jobs = make_jobs(tmp_path)
    attempt_all(jobs, in_turn, max_attempts=2)
    assert calls == [0, 1, 0]
    assert is_finished(jobs[1]) and not is_finished(jobs[0])
    record = read_record(jobs[0])
    assert (record.state, record.attempts, record.error) == ("failed", 2, "ValueError: again")
    log = (tmp_path / "run" / "jobs" / "fold_0.log").read_text()
    assert record.log == str(tmp_path / "run" / "jobs" / "fold_0.log")
    assert "Traceback" in log and "ValueError: again" in log
    # Not repeated for ever …
    attempt_all(jobs, in_turn, max_attempts=2)
    assert calls == [0, 1, 0]
    # … unless wanted.
    jobs_lib.forget_failures(jobs)
    attempt_all(jobs, in_turn, max_attempts=2)
    assert calls == [0, 1, 0, 0]
    assert is_finished(jobs[0])
    assert (read_record(jobs[0]).error, read_record(jobs[0]).log) == ("", "")


def test_a_second_attempt_that_succeeds(tmp_path, trained):
    calls, fails = trained
    fails[1] = [RuntimeError("a hiccup")]
    jobs = make_jobs(tmp_path)
    attempt_all(jobs, in_turn, max_attempts=2)
    assert calls == [0, 1, 1]
    assert all(map(is_finished, jobs))


def test_errors_become_one_paragraph(tmp_path, trained):
    trained[1][0] = [UserError("the loss is\n   no longer finite")]
    trained[1][1] = [RuntimeError("word " * 1000)]
    jobs = make_jobs(tmp_path)
    attempt_all(jobs, in_turn, max_attempts=1)
    assert read_record(jobs[0]).error == "the loss is no longer finite"
    assert read_record(jobs[1]).error.startswith("RuntimeError: word word")
    assert len(read_record(jobs[1]).error) < 600
    assert len((tmp_path / "run" / "jobs" / "fold_1.log").read_text()) > 5000


def test_stopping_from_the_keyboard_is_no_failure(tmp_path, trained):
    calls, fails = trained
    jobs = make_jobs(tmp_path)
    for _ in range(3):
        fails[0] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            attempt_all(jobs, in_turn, max_attempts=2)
    assert read_record(jobs[0]).attempts == 0
    attempt_all(jobs, in_turn, max_attempts=2)
    assert calls == [0, 0, 0, 0, 1]


class Killed(BaseException):
    """As if the process ended on the spot: nothing is recorded."""


def test_a_job_killed_without_progress_counts_as_failed(tmp_path, trained):
    calls, fails = trained
    fails[0] = [Killed(), Killed()]
    (job,) = make_jobs(tmp_path, count=1)
    for _ in range(2):
        with pytest.raises(Killed):
            attempt_all([job], in_turn, max_attempts=2)
        assert read_record(job).state == "running"
    attempt_all([job], in_turn, max_attempts=2)
    record = read_record(job)
    assert (record.state, record.attempts) == ("failed", 2)
    assert "killed or ran out of memory" in record.error
    assert calls == [0, 0]


def test_a_job_that_a_time_limit_ends_again_and_again_gets_done(tmp_path, monkeypatch, trained):
    (job,) = make_jobs(tmp_path, count=1)
    train, starts = crossval.train_and_evaluate, []

    def with_limit(config, workdir, *, folds):
        starts.append(folds)
        if len(starts) < 5:
            checkpoint(job, 10 * len(starts))
            raise Killed
        train(config, workdir, folds=folds)

    def each_in_its_process(jobs):
        for one in jobs:
            with contextlib.suppress(Killed):
                run_job(one)
        return [None] * len(jobs)

    monkeypatch.setattr(crossval, "train_and_evaluate", with_limit)
    attempt_all([job], each_in_its_process, max_attempts=2)
    assert len(starts) == 5
    assert is_finished(job)
    assert read_record(job).attempts == 0


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_fold_that_was_trained_by_hand_after_a_failure_counts(tmp_path, trained, state):
    (job,) = make_jobs(tmp_path, count=1, epochs=3)
    trained[1][0] = [RuntimeError("no memory")] * 2
    attempt_all([job], in_turn, max_attempts=2)
    jobs_lib._write(job, dataclasses.replace(read_record(job), state=state))
    directory = run_folder.fold_dir(job.workdir, job.fold)
    directory.mkdir()
    row = {"fold": 0, "best_epoch": 2}
    for epoch in (2, 3):
        lines = [json.dumps(row | {"epoch": each}) for each in range(1, epoch + 1)]
        (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        for name in TESTED:
            (directory / name).write_text("")
        later = (directory / "metrics.jsonl").stat().st_mtime + 10
        os.utime(directory / "cases.csv", (later, later))
        assert is_finished(job) == (epoch == 3)


def test_why_a_job_is_missing(tmp_path, trained):
    (job,) = make_jobs(tmp_path, count=1)
    failed = Record("failed", 2, 1, error="no memory")
    for record, words in (
        (failed, "failed once: no memory"),
        (dataclasses.replace(failed, attempts=2), "failed 2 times: no memory"),
        (dataclasses.replace(failed, state="stopped", error=""), "is not finished"),
    ):
        jobs_lib._write(job, record)
        assert jobs_lib.state_in_words(job).endswith(words)
        assert jobs_lib.has_failed(job) == (record.state == "failed")


def test_a_half_written_checkpoint_is_no_progress(tmp_path, trained):
    (job,) = make_jobs(tmp_path, count=1)
    checkpoint(job, "7.orbax-checkpoint-tmp-1")
    assert jobs_lib.epochs_on_disk(job) == 0
    checkpoint(job, 5)
    assert jobs_lib.epochs_on_disk(job) == 5


def test_a_process_that_ends_before_it_begins_is_a_failure_with_its_output(tmp_path, trained):
    jobs = make_jobs(tmp_path, count=1)
    log = tmp_path / "stderr"
    attempt_all(jobs, lambda pending: [log] * len(pending), max_attempts=3)
    record = read_record(jobs[0])
    assert (record.state, record.attempts, record.log) == ("failed", 3, str(log))
    assert "before it began" in record.error


def test_a_job_of_another_process_is_left_alone(tmp_path, trained):
    jobs = make_jobs(tmp_path)
    with jobs_lib._lock(jobs[0]) as free:
        assert free
        jobs_lib._write(jobs[0], Record(state="running", starts=1))
        attempt_all(jobs, in_turn, max_attempts=2)
        run_job(jobs[0])
        assert trained[0] == [1]
        assert read_record(jobs[0]) == Record(state="running", starts=1)
    assert not jobs_lib.is_running(jobs[0])
    attempt_all(jobs, in_turn, max_attempts=3)
    assert trained[0] == [1, 0]


def test_a_folder_that_cannot_be_written(tmp_path, trained):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        attempt_all(make_jobs(tmp_path), in_turn, max_attempts=2)


def test_a_record_survives_the_disk(tmp_path):
    (job,) = make_jobs(tmp_path, count=1)
    assert read_record(job) == Record()
    record = Record("failed", 3, 2, 200, 50, 17, "λ: ±", "log")
    jobs_lib._write(job, record)
    assert read_record(job) == record
    assert (
        dataclasses.asdict(record).keys()
        == files.read_json(tmp_path / "run" / "jobs" / "fold_0.json").keys()
    )
