"""What is left to train: steps by hand, a measured step, and nothing written."""

import dataclasses
import math

import pytest
import tiny

from configs import base
from mtbus_jax import data, models
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.reproduce import estimate as estimate_lib
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.estimate import Estimate, estimate, seconds_per_step, to_text
from mtbus_jax.reproduce.plan import Scale, Study
from mtbus_jax.reproduce.rows import TableRun
from mtbus_jax.training import run_folder

SEG = TableRun("curated_busi", "unetpp", ("seg",))
MT, MT_DO = (
    TableRun("curated_busi", "unetpp", oversample=oversample) for oversample in (False, True)
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "unetpp", tiny.TinyNet)
    cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
    config = base.get_config()
    config.train.batch_size = 5
    size = (tiny.HEIGHT, tiny.WIDTH)
    return Study(tmp_path / "study", config, scale=Scale(epochs=7, image_size=size, folds=(0, 2)))


def finish(study, job):
    folder = job.workdir / f"fold_{job.fold}"
    folder.mkdir(parents=True)
    for name in (run_folder.CASES, *stored_predictions.NAMES.values()):
        (folder / name).write_text("")
    jobs_lib._write(job, jobs_lib.Record("finished", 1, 0, 7, 50))


def test_steps_by_hand_and_one_measurement_for_each_network(study, monkeypatch):
    measured = []

    def stopwatch(config, cases):
        measured.append(tuple(config.tasks))
        return 0.25

    monkeypatch.setattr(estimate_lib, "seconds_per_step", stopwatch)
    finish(study, study.jobs((MT,))[1])
    found = estimate(study.jobs((SEG, MT, MT_DO)))
    assert [e.name for e in found] == [run.name for run in (SEG, MT, MT_DO)]
    assert [(e.finished, e.missing) for e in found] == [(0, 2), (1, 1), (0, 2)]
    # 36 of 48 images are not tested in a fold, 28 of those train (80 %, rounded down), in 9 or 10
    # of each class: round(28/9) = round(28/10) = 3 of each with DO. Batches of 5, 7 epochs.
    assert [e.steps for e in found] == [2 * 6 * 7, 1 * 6 * 7, 2 * 17 * 7]
    assert measured == [("seg",), ("seg", "cls")]
    assert found[2].hours == pytest.approx(2 * 17 * 7 * 0.25 / 3600)


def test_epochs_on_disk_are_not_counted_again(study, monkeypatch):
    monkeypatch.setattr(estimate_lib, "seconds_per_step", lambda *_: 1.0)
    job = study.jobs((MT,))[1]
    (job.workdir / f"fold_{job.fold}" / "checkpoints" / "latest" / "5").mkdir(parents=True)
    (found,) = estimate(study.jobs((MT,)))
    assert found.steps == 6 * 7 + 6 * (7 - 5)


def test_nothing_left_costs_nothing(study, monkeypatch):
    monkeypatch.setattr(estimate_lib, "seconds_per_step", lambda *_: pytest.fail("measured"))
    for job in study.jobs((MT,)):
        finish(study, job)
    (found,) = estimate(study.jobs((MT,)))
    assert (found.finished, found.missing, found.hours) == (2, 0, 0.0)
    assert math.isnan(found.seconds_per_step)


def test_a_step_is_measured_as_training_does_it(study):
    """And without touching the study's folder."""
    config = study.config(MT_DO)
    seconds = seconds_per_step(config, tiny.make_cases())
    assert 0 < seconds < 60
    assert not study.workdir.exists()


def test_the_text():
    found = [Estimate("one", 1, 3, 7200, 0.5), Estimate("another", 4, 0, 0, math.nan)]
    lines = to_text(found).splitlines()
    assert lines[1].split() == ["one", "1", "3", "0.5000", "1.00"]
    assert lines[2].split() == ["another", "4", "0", "0.00"]
    assert lines[3].split() == ["total", "5", "3", "1.00"]
    assert "cpu" in to_text(found) and "Nothing was trained" in to_text(found)
