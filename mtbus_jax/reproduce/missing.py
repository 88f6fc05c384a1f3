"""The jobs that a command still needs: trained as its flags say, or told at its end."""

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
    """What the flags ask of SLURM.

    Raises:
      UserError: for flags of a launcher that is not chosen.
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
    """With submitit the devices belong to the jobs; here only tables are computed."""
    if args.launcher == "submitit":
        jax.config.update("jax_platforms", "cpu")


def refuse(missing: list[Job], args: argparse.Namespace) -> None:
    """Ends the command as failed if a job is missing, naming it and why.

    Raises:
      UserError: if there is one.
    """
    if not missing:
        return
    texts = [jobs_lib.state_in_words(job) for job in missing[:_TOLD]]
    if len(missing) > len(texts):
        texts.append(f"and {len(missing) - len(texts)} more")
    if args.no_train:
        mend = "Leave --no_train out to train them."
    elif any(jobs_lib.has_failed(job) for job in missing):
        mend = "Mend that and give the command again with --retry_failed."
    else:
        mend = "Give the command again once no other process trains them."
    raise UserError(f"{len(missing)} jobs are missing: {'; '.join(texts)}. {mend}")
