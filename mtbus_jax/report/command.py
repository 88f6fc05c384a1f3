"""Writes a run's report, or puts runs side by side.

    mtbus report --run=runs/mt_unetpp
    mtbus compare runs/mt_unetpp runs/no_oversampling --out=compare.html

The report is ``report.html`` in the run folder; training writes it too. Pictures come from the
dataset: a report made without the dataset has none and says so. The comparison goes to the
terminal as Markdown and to ``--out`` as a page.
"""  # fmt: skip

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax import commandline, data, report, types
from mtbus_jax.data.places import with_places
from mtbus_jax.errors import UserError
from mtbus_jax.report import compare, compare_page
from mtbus_jax.report.run import read
from mtbus_jax.training import fold_access, run_folder

_PAGE = "compare.html"  # of a comparison


def main(argv: Sequence[str], *, program: str = "mtbus_jax.report") -> None:
    """Writes a report or a comparison, as the arguments say.

    Args:
      argv: the command's arguments.
      program: the command's name in messages.

    Raises:
      UserError: for wrong arguments, a folder that is not a tested run, or runs that cannot be
        compared.
    """
    args = _parser(program).parse_args(argv)
    if bool(args.run) == bool(args.compare):
        raise UserError("give --run=DIR for a report, or --compare DIR DIR for a comparison.")
    if args.run and args.out:
        raise UserError("--out goes with --compare; a report is written into its run folder.")
    if args.compare and (args.no_pictures or commandline.places(args)):
        raise UserError("--no_pictures and the folders of the data go with --run, not --compare.")
    if args.compare:
        _compare(args.compare, args.out)
    else:
        _report(args)


def compare_runs(argv: Sequence[str], *, program: str) -> None:
    """Puts run folders side by side, as ``--compare`` does: ``mtbus compare runs/a runs/b``.

    Args:
      argv: the command's arguments.
      program: the command's name in messages.

    Raises:
      UserError: for wrong arguments, a folder that is not a tested run, or runs that cannot be
        compared.
    """
    parser = commandline.Parser(program, "Puts run folders side by side.")
    parser.add_argument(
        "runs", nargs="+", metavar="DIR", type=commandline.file_path, help="run folders to compare"
    )
    _add_out(parser)
    args = parser.parse_args(argv)
    _compare(args.runs, args.out)


def _parser(program: str) -> commandline.Parser:
    parser = commandline.Parser(program, __doc__)
    parser.add_paths(run="run folder (--workdir of main.py) to report on")
    parser.add_places()
    parser.switch("--no_pictures", help="leave out everything that shows patients' images")
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="DIR",
        type=commandline.file_path,
        help="run folders to compare",
    )
    _add_out(parser)
    return parser


def _add_out(parser: commandline.Parser) -> None:
    parser.add_argument(
        "--out",
        type=commandline.file_path,
        help=f"page of the comparison; default: {_PAGE}",
    )


def _report(args: argparse.Namespace) -> None:
    workdir = Path(args.run)
    config = run_folder.load_config(workdir)
    read(workdir)  # a broken run is an error, not a reason to leave out pictures
    cases, reason = _cases(config, args)
    if reason and not args.no_pictures and report.has_pictures(workdir):
        raise UserError(
            f"{workdir / report.REPORT} has pictures, but the report that would replace it has "
            f"none: {reason} Say where the data lie with --data_dir, --manual_dir, --arrays_file "
            "or, for a folder of your own, --data; --no_pictures writes the report without them."
        )
    path = report.write_report(workdir, cases, without_pictures=reason)
    if reason:
        print(f"without pictures: {reason}", file=sys.stderr)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _cases(
    config: config_dict.ConfigDict, args: argparse.Namespace
) -> tuple[types.Cases | None, str]:
    """The run's dataset and "", or None and the reason why there is none."""
    if args.no_pictures:
        return None, "--no_pictures was given."
    given = commandline.places(args)
    try:
        cases = data.load_configured(with_places(config, given))
        fold_access.check_dataset(Path(args.run), cases)
        return cases, ""
    except UserError as error:
        if given:  # places that were given must hold the data
            raise
        return None, str(error)


def _compare(runs: Sequence[str], out: str | None) -> None:
    out = out or _PAGE
    found = compare.compare(runs)
    compare_page.write_comparison(found, Path(out))
    print(compare_page.to_markdown(found))
    print(f"Page: {out}")
