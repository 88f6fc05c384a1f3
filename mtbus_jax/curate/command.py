"""Finds copies in an archive of ultrasound images, and audits splits for them.

    mtbus curate --input=Dataset_BUSI_with_GT --out=curation

writes ``report.md`` with its plots, the review sheet ``review.html``, and the tables
``groups.csv``, ``pairs.csv``, ``ranking.csv``, ``marks.csv`` and ``problems.csv``. Pass the pairs
that a person ticked on the review sheet to ``--accepted``. The command needs the packages of
``pip install -e '.[curate]'``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline
from mtbus_jax.curate import folder
from mtbus_jax.errors import UserError


def _parser(program: str) -> commandline.Parser:
    parser = commandline.Parser(program, __doc__)
    parser.add_paths(
        input="folder of images, of any layout",
        out="folder for the results; made if missing",
        accepted="accepted pairs, as saved by the review sheet (.json) or with the columns "
        "first,second (.csv); without it the automatic rule decides",
        folds="split to audit: CSV with the columns uid,fold or class,id,fold",
        kept="published list of images without copies, to measure the automatic rule against: CSV "
        "with the column uid or the columns class,id",
    )
    parser.add_argument(
        "--size",
        type=commandline.within(int, 16, 512),
        default=128,
        help="side in pixels of the images that SSIM sees; default: %(default)s",
    )
    parser.add_argument(
        "--threshold",
        type=commandline.within(float, 0, 1),
        default=0.3,
        help="detail correlation from which the rule calls a pair copies; default: %(default)s",
    )
    parser.add_argument(
        "--full_ssim_up_to",
        type=commandline.within(int, 0),
        default=3000,
        help="number of images up to which SSIM is computed for every pair; above it, only for "
        "candidates; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str], *, program: str = "mtbus_jax.curate") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: for wrong use or bad input.
    """
    args = _parser(program).parse_args(argv)
    for flag, value in (("input", args.input), ("out", args.out)):
        if not value:
            raise UserError(f"--{flag} is missing. Usage: --input=DIR --out=DIR [--accepted=FILE].")
    for flag, value in (("folds", args.folds), ("kept", args.kept)):
        if value and not Path(value).is_file():
            raise UserError(f"--{flag}={value} is not a file.")
    root, out = Path(args.input), Path(args.out)
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"--out={out} lies inside --input={root}, where its plots would be taken for images of "
            f"the archive. Give a folder elsewhere."
        )
    # These checks come before the slow imports.
    known = {entry.uid: None for entry in folder.find_entries(root)}
    folder.check_writable(out)
    try:
        import numpy as np

        from mtbus_jax.curate import groups, output, pipeline, review

        output.check_out(out)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name!r} is missing. Curation needs more than training does: "
            "pip install -e '.[curate]' in a checkout of mtbus_jax."
        ) from error
    options = pipeline.Options(
        size=args.size,
        full_ssim_up_to=args.full_ssim_up_to,
        threshold=args.threshold,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    # Errors in these files are reported before the slow work.
    folds = kept = removed = accepted = None
    if args.folds:
        folds = output.read_named(Path(args.folds), "folds", known, "fold")
    if args.kept:
        kept = output.read_named(Path(args.kept), "kept", known, None)
    if args.accepted:
        pairs = review.read_accepted(Path(args.accepted), list(known))
        accepted = Path(args.accepted).name, pairs
    findings = pipeline.curate(root, options, accepted)
    archive = findings.archive
    if kept is not None:
        removed = np.array([uid not in kept for uid in archive.uid], bool)
    output.write_all(findings, out, folds=folds, removed=removed)
    for problem in archive.problems:
        print(f"left out or incomplete: {problem.file}: {problem.reason}", file=sys.stderr)
    kinds = ", ".join(f"{n} {kind}" for kind, n in groups.structure(findings.groups).items())
    print(
        f"{len(archive.uid)} images, {len(findings.groups)} groups of copies"
        f"{' (' + kinds + ')' if kinds else ''}, decided by {findings.decided_by}. "
        f"Read {out / 'report.md'}; look at {out / 'review.html'}."
    )
