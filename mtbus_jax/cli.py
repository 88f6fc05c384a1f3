"""The command ``mtbus``: one subcommand for each thing the library does.

    mtbus train --config=mt_unetpp --workdir=runs/mt_unetpp

``mtbus --help`` lists them. The flags of each are defined beside its function. Those of the main
job, which trains and evaluates, are defined here, also for ``main.py``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline
from mtbus_jax.errors import UserError

# Subcommand: where its function is, and what it does. Imported when called, so --help is fast.
VERBS = {
    "train": ("mtbus_jax.cli:train", "train the folds of a configuration and test them"),
    "evaluate": ("mtbus_jax.cli:evaluate", "test the trained folds of a run folder again"),
    "predict": ("mtbus_jax.predict.command:main", "masks and classes for your own pictures"),
    "external": ("mtbus_jax.external.command:main", "test a network on data it was not trained on"),
    "serve": ("mtbus_jax.serve.command:main", "answer to pictures that are sent over HTTP"),
    "report": ("mtbus_jax.report.command:main", "write the report of a run folder"),
    "compare": ("mtbus_jax.report.command:compare_runs", "put run folders side by side"),
    "ensemble": ("mtbus_jax.ensemble:main", "join runs that differ in their seed"),
    "export": ("mtbus_jax.export.command:main", "StableHLO and ONNX files, or a page for browsers"),
    "check": ("mtbus_jax.check.command:main", "look through a folder of your own pictures"),
    "curate": ("mtbus_jax.curate.command:main", "find copies in an archive of images"),
    "reproduce": ("mtbus_jax.reproduce.command:main", "train and write a table of the paper"),
    "bundle": ("mtbus_jax.bundle:main", "pack a trained network to pass it on"),
    "pack": ("mtbus_jax.pack:main", "write a dataset, resized, into one small file"),
}

_TRAIN, _EVALUATE = "train_and_evaluate", "evaluate"


def main(argv: Sequence[str] | None = None) -> None:
    """The console command: runs one subcommand and ends the process with its exit code.

    Args:
      argv: arguments, the subcommand first; default: the process's own.

    Raises:
      SystemExit: always; with code 2 for wrong use.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in VERBS:
        commandline.run("mtbus", _without_verb, argv)
    verb, *rest = argv
    commandline.run(f"mtbus {verb}", _imported(verb), rest)


def _imported(verb: str) -> commandline.Command:
    module, _, function = VERBS[verb][0].partition(":")
    return getattr(importlib.import_module(module), function)


def _without_verb(argv: Sequence[str], *, program: str) -> None:
    """Lists the subcommands, or refuses an unknown one."""
    if argv and argv[0] not in ("-h", "--help", "help"):
        near = commandline.nearest(argv[0], VERBS)
        raise UserError(
            f"{argv[0]!r} is not a subcommand.{near} Known: {', '.join(VERBS)}; "
            f"{program} --help says what they do."
        )
    width = max(map(len, VERBS))
    print(f"usage: {program} SUBCOMMAND --flag=value …\n")
    for verb, (_, line) in VERBS.items():
        print(f"  {verb:{width}}  {line}")
    print(f"\n{program} SUBCOMMAND --help lists its flags.")
    if not argv:
        raise UserError("the subcommand is missing.")


def train(argv: Sequence[str], *, program: str) -> None:
    """Trains and evaluates a configuration.

    Any field of the configuration can be changed, as in --config.data.folds=0,1
    --config.train.epochs=50. A stopped run continues where it was when the same command is run
    again. Several processes, on one machine or many, can train one run together; see
    docs/cluster.md.
    """
    parser = _main_parser(program, train.__doc__)
    parser.add_argument(
        "--mode",
        choices=(_TRAIN, _EVALUATE),
        default=_TRAIN,
        help="train_and_evaluate: train the folds, or continue them, and test them; evaluate: "
        "test the trained folds of --workdir again (--config is not needed); default: %(default)s",
    )
    _main_job(parser, argv)


def evaluate(argv: Sequence[str], *, program: str) -> None:
    """Tests the trained folds of a run folder again and rewrites its tables.

    Folders of the data and fields of eval can be changed, as in --config.eval.average=True. With
    --config=FILE its data folders and its whole eval section are used instead of the run's own.
    """
    parser = _main_parser(program, evaluate.__doc__, workdir="run folder with trained folds")
    parser.set_defaults(mode=_EVALUATE)
    _main_job(parser, argv)


def _main_parser(
    program: str, description: str | None, *, workdir: str = "run folder; made if it does not exist"
) -> commandline.Parser:
    parser = commandline.Parser(program, description)
    parser.add_configuration()
    parser.add_argument("--workdir", type=commandline.file_path, help=workdir)
    parser.switch(
        "--distributed", help="one of several processes that SLURM (srun) or Kubernetes has started"
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="several processes started by hand: address of the one with --process=0",
    )
    parser.add_argument("--processes", type=int, help="with --coordinator: how many there are")
    parser.add_argument("--process", type=int, help="with --coordinator: number of this, from 0")
    parser.add_argument(
        "--peer_timeout",
        type=commandline.within(int, 1),
        default=300,
        metavar="SECONDS",
        help="how long to wait for the other processes: at the start until all are there, later "
        "until one that gives no sign of life counts as lost; default: %(default)s",
    )
    return parser


def _main_job(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Runs the main job as its flags say."""
    from mtbus_jax import configuration
    from mtbus_jax.runtime import cluster

    given, rest = configuration.take(argv)
    args = parser.parse_args(rest)
    config = None
    if args.mode == _TRAIN or given.file:
        config = configuration.read(given)
    if not args.workdir:
        raise UserError("--workdir is missing: the folder for results, such as --workdir=runs/.")
    found = cluster.find_cluster(
        coordinator=args.coordinator,
        processes=args.processes,
        process=args.process,
        from_environment=args.distributed,
    )
    # Imported late, so that --help and the errors above appear at once.
    from mtbus_jax import crossval, report
    from mtbus_jax.evaluation import markdown
    from mtbus_jax.runtime import backend, parallel
    from mtbus_jax.training import unread

    if args.mode == _EVALUATE:
        unread.check_tested_again(given.changes)
    else:
        unread.check(config, given.changes)
    backend.prepare_for_training()
    if found is not None:
        parallel.start(found, timeout=args.peer_timeout)
    backend.check()
    if args.mode == _EVALUATE:
        result = crossval.evaluate(args.workdir, overrides=config, changes=given.changes)
    else:
        result = crossval.train_and_evaluate(config, args.workdir)
    if parallel.is_primary():
        print(markdown.to_markdown(result))
        page = Path(args.workdir, report.REPORT)
        print(f"Run folder: {args.workdir}")
        if page.exists():
            print(f"To look at it, open {page} in a browser.")
