"""Where jobs run: in this process, or through submitit as local processes or on a SLURM cluster."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax

from mtbus_jax.errors import UserError
from mtbus_jax.reproduce.jobs import Launcher, read_record, run_job
from mtbus_jax.reproduce.plan import Job

_POLL_SECONDS = 0.5
_ALL = 10_000  # jobs at once
# Limits of a job if none is given; submitit's own are 2 minutes locally and 5 on a cluster.
_LOCAL_MINUTES, _SLURM_MINUTES = 365 * 24 * 60, 24 * 60


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Resources for a SLURM job; None means the cluster's default, all None no cluster.

    Attributes:
      partition: where to queue.
      account: whom to charge.
      time: limit in minutes; default 24 hours.
      gpus: GPUs per job.
      cpus: CPU cores per job.
      mem_gb: memory per job, GB.
    """

    partition: str | None = None
    account: str | None = None
    time: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    mem_gb: int | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether any option was given."""
        return any(value is not None for value in dataclasses.astuple(self))


def inline(jobs: list[Job]) -> list[Path | None]:
    """Runs the jobs one after the other in this process; a `Launcher`."""
    for number, job in enumerate(jobs, start=1):
        _say(f"[{number}/{len(jobs)}] {job.name}")
        run_job(job)
        _say_failure(job)
        # Otherwise the programs of finished networks would stay in memory.
        jax.clear_caches()
    return [None] * len(jobs)


def through_submitit(
    folder: Path,
    *,
    slurm: Slurm,
    parallel: int = 0,
    work: Callable[[Job], None] = run_job,
) -> Launcher:
    """Makes a launcher that runs each job in a separate process.

    Args:
      folder: for submitit's files and the processes' output.
      slurm: resources to request; with no option set the processes are local.
      parallel: number of jobs at once; 0 means one locally and all on a cluster.
      work: what to do with a job.

    Raises:
      UserError: if submitit is missing, or SLURM is wanted and missing.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError(
            "--launcher=submitit needs the package submitit: pip install -e '.[launch]' in a "
            "checkout of mtbus_jax."
        ) from None
    cluster = "slurm" if slurm.is_wanted else "local"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise UserError(
            f"--slurm_…: this machine has no SLURM ({error}). Without these options "
            "--launcher=submitit starts local processes."
        ) from None
    except OSError as error:
        raise UserError(f"--workdir: {folder} cannot be written: {error}.") from None
    executor.update_parameters(
        name="mtbus_jax",
        timeout_min=_LOCAL_MINUTES if cluster == "local" else slurm.time or _SLURM_MINUTES,
        gpus_per_node=slurm.gpus,
        cpus_per_task=slurm.cpus,
        mem_gb=slurm.mem_gb,
        slurm_partition=slurm.partition,
        slurm_account=slurm.account,
    )
    parallel = parallel or (1 if cluster == "local" else _ALL)
    shares = _shares_of_devices(parallel) if cluster == "local" else None
    return functools.partial(_run_pool, executor, work, parallel, shares)


def _shares_of_devices(parallel: int) -> list[str | None]:
    """``CUDA_VISIBLE_DEVICES`` of each slot: the devices that this process sees, dealt out in turn.

    submitit hides all GPUs from a local job, so each job must set the variable again.
    """
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not seen or parallel == 1:
        return [seen] * parallel
    ids = seen.split(",")
    return [",".join(ids[slot % len(ids) :: parallel]) for slot in range(parallel)]


def _run_pool(executor, work, parallel, shares, jobs: list[Job]) -> list[Path | None]:
    """Submits jobs as slots become free; waits for all."""
    logs: list[Path | None] = [None] * len(jobs)
    waiting = list(enumerate(jobs))[::-1]
    running: dict[int, tuple] = {}  # by slot: number of the job, submitted job
    try:
        while waiting or running:
            for slot in range(min(parallel, len(jobs))):
                if waiting and slot not in running:
                    number, job = waiting.pop()
                    task = work
                    if shares is not None:
                        task = functools.partial(_with_devices, work, shares[slot])
                    handle = _submit(executor, task, job)
                    logs[number] = Path(handle.paths.stderr)
                    running[slot] = number, handle
                    _say(f"[{number + 1}/{len(jobs)}] {job.name}: {logs[number]}")
            for slot, (number, handle) in list(running.items()):
                if handle.done():
                    del running[slot]
                    _say_failure(jobs[number])
            time.sleep(_POLL_SECONDS)
    finally:
        for _, handle in running.values():
            handle.cancel()
    return logs


def _submit(executor, task: Callable[[Job], None], job: Job):
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return executor.submit(task, job)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"--slurm_…: SLURM does not take the job: {error}") from None


def _with_devices(work, devices: str | None, job: Job) -> None:
    """Runs in the new process, before JAX has looked for devices."""
    if devices is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    work(job)


def _say_failure(job: Job) -> None:
    record = read_record(job)
    if record.state == "failed":
        _say(f"{job.name} failed ({record.log}): {record.error}")


def _say(text: str) -> None:
    print(text, flush=True)
