"""Reproduces a table of Aumente-Maestro et al. 2025: trains what is missing, writes the table.

    mtbus reproduce --table=5 --workdir=runs/tables
    mtbus reproduce --league --workdir=runs/league

writes ``table_5.md``, ``.csv`` and ``.tex`` and the tests of significance. Given again, the command
continues where it stopped. ``--dry_run`` shows what it would train and how long that takes here;
``--epochs``, ``--image_size``, ``--width`` and ``--folds`` scale it down, and the title says so.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline, configuration
from mtbus_jax.errors import UserError

_BASE = "base"  # the configuration that every run of a table starts from
_LEAGUE_BASE = "best"  # the one of the league's runs


def _parser(program: str) -> commandline.Parser:
    parser = commandline.Parser(program, __doc__)
    add, within = parser.add_argument, commandline.within
    add("--table", type=int, help="table to reproduce: 4 to 11; of --paper=acsnet 1, 2, 4 or 5")
    add("--figure", type=int, help="figure to reproduce: 6")
    add(
        "--paper",
        choices=("acsnet", "residual_unet"),
        help="a table of another paper instead, with the runs in --runs; nothing is trained",
    )
    add(
        "--runs",
        type=commandline.names,
        default=(),
        help="paper: run folders by row, as in --runs=acsnet=runs/acsnet,unet=runs/unet",
    )
    parser.switch("--league", help="make the league table of all networks instead")
    add(
        "--workdir",
        type=commandline.file_path,
        help="folder for runs and results; made if missing",
    )
    parser.add_configuration(f"{_BASE}; with --league {_LEAGUE_BASE}")
    add("--epochs", type=int, help="train for this many epochs instead")
    add("--image_size", type=commandline.numbers, help="height,width in pixels instead")
    add("--width", type=int, help="feature maps of the first level instead, for every network")
    add("--folds", type=commandline.numbers, help="do these folds only, as in --folds=0,1")
    add(
        "--cases",
        type=commandline.names,
        default=(),
        help="images of the figure by uid; default: medians",
    )
    add(
        "--seeds",
        type=commandline.numbers,
        help="league: seeds of each network's runs; default: 1993,1994,1995",
    )
    add(
        "--networks",
        type=commandline.names,
        default=(),
        help="league: these rows or networks only; default: all",
    )
    add(
        "--weights",
        type=commandline.names,
        default=(),
        help="league: files of ImageNet weights, as in --weights=resnet18=FILE",
    )
    parser.switch("--no_measure", help="league: do not measure the networks' costs")
    parser.switch("--dry_run", help="show what would be trained, and how long it takes")
    parser.switch("--no_train", help="train nothing; write from finished runs")
    add(
        "--max_attempts",
        type=int,
        default=2,
        help="give up on a job after this many failures; default: %(default)s",
    )
    parser.switch("--retry_failed", help="try such jobs again")
    add(
        "--launcher",
        choices=("inline", "submitit"),
        default="inline",
        help="where jobs run: in this process, or in separate processes, local or (with a "
        "--slurm_… option) on a cluster; default: %(default)s",
    )
    add(
        "--parallel_jobs",
        type=within(int, 0),
        default=0,
        help="submitit: jobs at once; 0 is 1 locally, all on SLURM",
    )
    add("--slurm_partition", help="SLURM: partition")
    add("--slurm_account", help="SLURM: account")
    add("--slurm_time", type=within(int, 1), help="SLURM: minutes a job; default 1440")
    add("--slurm_gpus", type=within(int, 1), help="SLURM: GPUs a job")
    add("--slurm_cpus", type=within(int, 1), help="SLURM: CPU cores a job")
    add("--slurm_mem_gb", type=within(int, 1), help="SLURM: memory a job, GB")
    return parser


def _scale(args: argparse.Namespace):
    from mtbus_jax.reproduce import plan

    if not args.workdir:
        raise UserError("--workdir is missing: the folder for runs and tables.")
    if args.image_size is not None and len(args.image_size) != 2:
        raise UserError(
            f"--image_size={','.join(map(str, args.image_size))}: give height and width in pixels, "
            "such as --image_size=64,64."
        )
    return plan.Scale(
        epochs=args.epochs, image_size=args.image_size, width=args.width, folds=args.folds
    )


def _study(args: argparse.Namespace, given: configuration.Given):
    from mtbus_jax.reproduce import plan

    scale = _scale(args)
    config = configuration.read(given, default=_BASE)
    return plan.Study(Path(args.workdir), config, frozenset(given.changes), scale)


def _choose(kind: str, number: int | None, known: dict):
    if number is not None and number not in known:
        numbers = ", ".join(map(str, known))
        raise UserError(f"--{kind}={number}: there is no such {kind} here. Known: {numbers}.")
    return known.get(number)


def run(args: argparse.Namespace, given: configuration.Given, command: str) -> None:
    """Does what the flags say.

    Args:
      args: values of the flags.
      given: what the command line says about the configuration.
      command: as given, to put into the results.

    Raises:
      UserError: for wrong use or bad input, and at the end if a row is missing.
    """
    # Imported late, so that --help answers at once.
    from mtbus_jax.reproduce import estimate, jobs, missing, plan, rows
    from mtbus_jax.runtime import program_cache

    if args.max_attempts < 1:
        raise UserError(f"--max_attempts={args.max_attempts} must be at least 1.")
    if args.league:
        _refuse_beside(args, "--league", ("paper", "runs"))
        _run_league(args, given, command)
        return
    if args.paper is not None:
        _run_paper(args, given, command)
        return
    if args.runs:
        raise UserError("--runs belongs to --paper.")
    for flag in ("seeds", "networks", "weights", "no_measure"):
        if getattr(args, flag):
            raise UserError(f"--{flag} belongs to --league.")
    table = _choose("table", args.table, rows.TABLES)
    columns = _choose("figure", args.figure, rows.FIGURES)
    if table is None and columns is None:
        numbers = ", ".join(map(str, rows.TABLES))
        raise UserError(f"--table is missing, one of {numbers}; or --figure=6, or --league.")
    study = _study(args, given)
    runs = rows.runs_of((table.rows if table else ()) + (columns or ()))
    study.check_folders(runs)
    wanted = study.jobs(runs)
    program_cache.open_cache()
    if args.dry_run:
        print(estimate.to_text(estimate.estimate(wanted)))
        return
    unfinished = [job for job in wanted if not jobs.is_finished(job)]
    if unfinished and not args.no_train:
        slurm = missing.slurm_of(args)
        missing.leave_devices_to_jobs(args)
        plan.check_jobs(unfinished)
        missing.train(unfinished, args, slurm)
    if table:
        _write_table(study, table, command)
    if columns:
        _write_figure(study, args.figure, columns, args.cases, command)
    missing.refuse([job for job in unfinished if not jobs.is_finished(job)], args)


def _refuse_beside(args: argparse.Namespace, mode: str, names: Sequence[str]) -> None:
    """Refuses flags that ``mode`` ignores, unless they have their default values."""
    defaults = vars(_parser("").parse_args([]))
    for name in names:
        if getattr(args, name) != defaults[name]:
            raise UserError(f"--{name} does not go with {mode}; leave one of the two out.")


def _run_league(args: argparse.Namespace, given: configuration.Given, command: str) -> None:
    from mtbus_jax.reproduce.league import command as league

    if args.table is not None or args.figure is not None or args.cases:
        raise UserError("--league makes a table of its own; leave --table, --figure, --cases out.")
    recipe = configuration.read(given, default=_LEAGUE_BASE)
    league.run(args, recipe, frozenset(given.changes), _scale(args), command)


def _run_paper(args: argparse.Namespace, given: configuration.Given, command: str) -> None:
    from mtbus_jax.reproduce.papers import command as papers

    others = vars(args).keys() - {"paper", "table", "runs", "workdir"}
    _refuse_beside(args, "--paper", sorted(others))
    for field in given.changes:
        if field != "data.manual_dir":
            raise UserError(f"--config.{field} does not go with --paper, which trains nothing.")
    config = configuration.read(given, default=_BASE)
    papers.run(args, config.data.manual_dir, command)


def _write_table(study, table, command: str) -> None:
    from mtbus_jax.reproduce import compare, facts, layout, results, rows, write

    sections = [
        (section, [results.row_result(study, row) for row in section.rows])
        for section in table.sections
    ]
    about = facts.gather(study, rows.runs_of(table.rows), command=command)
    content = layout.Content(table, sections, compare.compare(sections), about)
    paths = write.write_table(content, study.workdir)
    print(paths[0].read_text(encoding="utf-8"))
    print("Written:", *paths)


def _write_figure(study, number: int, columns, uids: tuple[str, ...], command: str) -> None:
    from mtbus_jax.reproduce import facts, gallery, results, rows

    found = [results.row_result(study, row) for row in columns]
    if any(result.missing for result in found):
        return
    about = facts.gather(study, rows.runs_of(columns), command=command)
    print("Written:", *gallery.write_figure(study, found, number, facts=about, uids=uids))


def main(argv: Sequence[str], *, program: str = "mtbus_jax.reproduce") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: see `run`.
    """
    given, rest = configuration.take(argv)
    args = _parser(program).parse_args(rest)
    command = [program] if " " in program else ["python -m", program]
    run(args, given, " ".join([*command, shlex.join(argv)]))
