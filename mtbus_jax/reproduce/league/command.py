"""What ``mtbus reproduce --league`` does."""

from __future__ import annotations

import argparse
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax.errors import UserError
from mtbus_jax.reproduce import estimate, missing
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.league import costs, entries, write
from mtbus_jax.reproduce.league.plan import SEEDS, League
from mtbus_jax.reproduce.plan import Scale
from mtbus_jax.runtime import program_cache


def run(
    args: argparse.Namespace,
    recipe: config_dict.ConfigDict,
    explicit: frozenset[str],
    scale: Scale,
    command: str,
) -> None:
    """Trains what is missing, measures costs, writes the table.

    Args:
      args: values of the flags.
      recipe: configuration of all runs.
      explicit: fields of ``recipe`` that the user set one by one.
      scale: see `Scale`.
      command: as given, to put into the table.

    Raises:
      UserError: for wrong use or bad input, and at the end if a run is missing.
    """
    found = entries.all_entries(entries.read_files(args.weights))
    seeds = args.seeds or SEEDS
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds={','.join(map(str, seeds))}: give each seed once.")
    league = League(
        Path(args.workdir), recipe, explicit, scale, seeds, entries.choose(found, args.networks)
    )
    slurm = missing.slurm_of(args)
    if not (args.dry_run or args.no_train):
        missing.leave_devices_to_jobs(args)  # before anything starts JAX's backend
    program_cache.open_cache()
    league.check_folders()
    for entry, why in league.left_out.items():
        print(f"left out: {entry.name}: {why}", flush=True)
    wanted = league.jobs(league.trainable)
    if args.dry_run:
        print(estimate.to_text(estimate.estimate(wanted)))
        return
    unfinished = [job for job in wanted if not jobs_lib.is_finished(job)]
    if unfinished and not args.no_train:
        league.load()  # before anything is trained
        missing.train(unfinished, args, slurm)
    not_measured = {}
    # With submitit, this process does not see the devices that train.
    wants_costs = not args.no_measure and args.launcher == "inline"
    if wants_costs and any(costs.read(league, entry) is None for entry in league.trainable):
        not_measured = costs.measure_missing(league, league.load())
    paths = write.write(league, command=command, not_measured=not_measured)
    print(paths[0].read_text(encoding="utf-8"))
    print("Written:", *paths)
    missing.refuse([job for job in unfinished if not jobs_lib.is_finished(job)], args)
