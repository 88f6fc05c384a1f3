"""Launchers: in this process, local processes for real, SLURM with stand-ins for its commands."""

import os
import pathlib
import re
import stat
import sys

import pandas as pd
import pytest
import tiny

from mtbus_jax import crossval, data, models
from mtbus_jax.errors import UserError
from mtbus_jax.reproduce import launch
from mtbus_jax.reproduce.jobs import attempt_all, is_finished, read_record, run_job
from mtbus_jax.reproduce.launch import Slurm, through_submitit
from mtbus_jax.reproduce.plan import Job

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def importable(monkeypatch):
    """A new process finds this file and the configurations."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]))


def stand_in(job):
    """`run_job` with a training that writes the files, or fails in fold 1."""

    def train(config, workdir, *, folds):
        (fold,) = folds
        if fold == 1:
            raise RuntimeError("fold 1 will not do")
        directory = workdir / f"fold_{fold}"
        directory.mkdir(parents=True)
        for name in ("cases.csv", "predictions.npz", "predictions_validation.npz"):
            (directory / name).write_text("")

    crossval.train_and_evaluate = train
    run_job(job)


def make_jobs(tmp_path, count=2):
    return [Job(tmp_path / "run", tiny.make_config(epochs=1), fold) for fold in range(count)]


def test_inline_goes_on_after_a_failure_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crossval, "train_and_evaluate", crossval.train_and_evaluate)
    monkeypatch.setattr(launch, "run_job", stand_in)
    jobs = make_jobs(tmp_path, count=3)
    attempt_all(jobs, launch.inline, max_attempts=1)
    assert [is_finished(job) for job in jobs] == [True, False, True]
    shown = capsys.readouterr().out
    assert "[1/3] tiny, fold 0" in shown
    assert "tiny, fold 1 failed" in shown and "fold_1.log): RuntimeError: fold 1" in shown


def train_tiny(job):
    """`run_job` where the tiny network and dataset are known."""
    models.REGISTRY["tiny"] = tiny.TinyNet
    data.arrays.load_cases = lambda name, **kwargs: tiny.make_cases()
    run_job(job)


@pytest.mark.long
def test_local_processes_train_for_real(tmp_path, importable, monkeypatch):
    """Three at once, two of them in one run folder; the loss of the third explodes."""
    good, bad = tiny.make_config(epochs=1), tiny.make_config(epochs=2, learning_rate=1e38)
    bad.log.tensorboard = good.log.tensorboard = False
    good.data.folds = (0, 2)
    jobs = [Job(tmp_path / "good", good, fold) for fold in good.data.folds]
    jobs.append(Job(tmp_path / "bad", bad, 3))
    launcher = through_submitit(tmp_path / "submitit", slurm=Slurm(), parallel=3, work=train_tiny)
    attempt_all(jobs, launcher, max_attempts=1)
    assert [is_finished(job) for job in jobs] == [True, True, False]
    record = read_record(jobs[2])
    assert (record.attempts, record.starts) == (1, 1)
    assert "no longer finite" in record.error
    assert "no longer finite" in pathlib.Path(record.log).read_text()
    for fold in good.data.folds:
        rows = pd.read_csv(tmp_path / "good" / f"fold_{fold}" / "cases.csv")
        assert rows.uid.tolist() == tiny.make_cases().uid[fold::4].tolist()
    assert not list((tmp_path / "good").glob("*.partial"))
    # Both folds may have written the run's tables without the other; this mends it.
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
    assert crossval.write_tables(good, tmp_path / "good")["folds"] == [0, 2]
    assert set(pd.read_csv(tmp_path / "good" / "trust.csv").fold) == {0, 2}


def die(job):
    """As a process that the kernel ends for want of memory."""
    os.kill(os.getpid(), 9)


def test_a_local_process_that_dies_is_a_failure_that_names_its_output(tmp_path, importable):
    jobs = make_jobs(tmp_path, count=1)
    launcher = through_submitit(tmp_path / "submitit", slurm=Slurm(), work=die)
    attempt_all(jobs, launcher, max_attempts=1)
    record = read_record(jobs[0])
    assert (record.state, record.attempts) == ("failed", 1)
    assert pathlib.Path(record.log).parent == tmp_path / "submitit"
    assert pathlib.Path(record.log).exists()


@pytest.mark.parametrize(
    ("seen", "parallel", "expected"),
    [
        (None, 2, [None, None]),
        ("", 2, ["", ""]),
        ("0,1", 1, ["0,1"]),
        ("0,1", 2, ["0", "1"]),
        ("3,5,7,9", 2, ["3,7", "5,9"]),
        ("3,5", 3, ["3", "5", "3"]),
    ],
)
def test_local_jobs_share_the_gpus(monkeypatch, seen, parallel, expected):
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert launch._shares_of_devices(parallel) == expected


def test_devices_are_set_or_unset_in_the_new_process(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as submitit leaves it")
    seen = []
    for devices in (None, "1"):
        launch._with_devices(
            lambda job: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")), devices, None
        )
    assert seen == [None, "1"]


def test_without_submitit_the_error_names_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"\.\[launch\]"):
        through_submitit(tmp_path, slurm=Slurm())


def test_without_slurm_its_options_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM"):
        through_submitit(tmp_path, slurm=Slurm(partition="gpu"))


# Stand-ins for SLURM's commands on one machine: a job runs at once, in the background.
_SBATCH = """#!/bin/bash
export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0
export SLURM_LOCALID=0 SLURM_JOB_NODELIST=here
cp "$1" {folder}/script_$$
bash "$1" > /dev/null 2> {folder}/trouble_$$ &
echo "Submitted batch job $$"
"""
_SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do [[ "$1" == *=* || "$1" == --unbuffered ]] && shift || shift 2; done
exec "$@"
"""
_SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch, importable):
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", _SBATCH), ("srun", _SRUN), ("sacct", _SACCT)):
        path = folder / name
        path.write_text(text.replace("{folder}", str(folder)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_slurm_gets_what_was_asked_for_and_runs_the_jobs(tmp_path, slurm):
    everything = Slurm(partition="gpu", account="us", time=90, gpus=1, cpus=4, mem_gb=16)
    for fold, options in ((0, everything), (2, Slurm(partition="cpu"))):
        (job,) = [job for job in make_jobs(tmp_path, count=3) if job.fold == fold]
        launcher = through_submitit(tmp_path / "submitit", slurm=options, work=stand_in)
        attempt_all([job], launcher, max_attempts=1)
        assert read_record(job).error == ""
        assert is_finished(job)
    asked = {}
    for path in slurm.glob("script_*"):
        fields = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", path.read_text(), flags=re.M))
        asked[fields["partition"]] = fields
    expected = {"account": "us", "time": "90", "gpus-per-node": "1", "cpus-per-task": "4",
                "mem": "16GB", "job-name": "mtbus_jax"}  # fmt: skip
    assert asked["gpu"].items() >= expected.items()
    # A day unless said otherwise; the rest is the cluster's.
    assert asked["cpu"]["time"] == "1440"
    assert not {"account", "gpus-per-node", "cpus-per-task", "mem"} & asked["cpu"].keys()


def test_what_slurm_does_not_take_is_the_users_to_mend(tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'invalid partition specified' >&2\nexit 1\n")
    launcher = through_submitit(tmp_path / "submitit", slurm=Slurm(partition="gpuu"))
    with pytest.raises(UserError, match=r"SLURM does not take the job.*invalid partition"):
        launcher(make_jobs(tmp_path, count=1))
