"""Trains the jobs that a command still needs, as its flags say, or reports them at its end."""

from __future__ import annotations

import argparse
from pathlib import Path

import jax

from mtbus_jax import crossval
from mtbus_jax.errors import UserError
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce import launch
from mtbus_jax.reproduce.plan import Job

_TOLD = 8  # jobs that a message names


def slurm_of(args: argparse.Namespace) -> launch.Slurm:
    """The resources that the flags request from SLURM.

    Raises:
      UserError: for --slurm_… or --parallel_jobs without --launcher=submitit.
    """
    options = {
        name: getattr(args, f"slurm_{name}")
        for name in ("partition", "account", "time", "gpus", "cpus", "mem_gb")
    }
    slurm = launch.Slurm(**options)
    if args.launcher == "inline" and (slurm.is_wanted or args.parallel_jobs):
        raise UserError("--slurm_… and --parallel_jobs need --launcher=submitit.")
    return slurm


def train(missing: list[Job], args: argparse.Namespace, slurm: launch.Slurm) -> None:
    """Trains and tests jobs; a failure is recorded, not raised.

    Args:
      missing: the jobs, checked.
      args: values of the flags.
      slurm: from `slurm_of`.

    Raises:
      UserError: if the launcher cannot start, or a record cannot be written.
    """
    if args.launcher == "inline":
        launcher = launch.inline
    else:
        folder = Path(args.workdir) / "submitit"
        launcher = launch.through_submitit(folder, slurm=slurm, parallel=args.parallel_jobs)
    if args.retry_failed:
        jobs_lib.forget_failures(missing)
    jobs_lib.attempt_all(missing, launcher, max_attempts=args.max_attempts)
    if args.launcher == "submitit":
        done = {job.workdir: job for job in missing if jobs_lib.is_finished(job)}
        for job in done.values():
            crossval.write_tables(job.config, job.workdir)


def leave_devices_to_jobs(args: argparse.Namespace) -> None:
    """With submitit, leaves the devices to the jobs; this process only computes tables."""
    if args.launcher == "submitit":
        jax.config.update("jax_platforms", "cpu")


def refuse(missing: list[Job], args: argparse.Namespace) -> None:
    """Ends the command with an error that names the missing jobs and why they are missing.

    Raises:
      UserError: if a job is missing.
    """
    if not missing:
        return
    texts = [jobs_lib.state_in_words(job) for job in missing[:_TOLD]]
    if len(missing) > len(texts):
        texts.append(f"and {len(missing) - len(texts)} more")
    if args.no_train:
        mend = "Leave --no_train out to train them."
    elif any(jobs_lib.has_failed(job) for job in missing):
        mend = "Fix that and give the command again with --retry_failed."
    else:
        mend = "Give the command again once no other process trains them."
    raise UserError(f"{len(missing)} jobs are missing: {'; '.join(texts)}. {mend}")
