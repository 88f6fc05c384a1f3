"""Finds copies in an archive of ultrasound images, and audits splits for them.

    python -m mtbus_jax.curate --input=Dataset_BUSI_with_GT --out=curation

writes ``report.md`` with its plots, ``review.html`` to decide by eye, and the tables
``groups.csv``, ``pairs.csv``, ``ranking.csv``, ``marks.csv`` and ``problems.csv``. The pairs that a
person ticked on the review sheet come back through ``--accepted``. It needs the packages of
``pip install '.[curate]'``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags, logging

from mtbus_jax.curate import folder
from mtbus_jax.errors import UserError, exit_on_user_error

_INPUT = flags.DEFINE_string("input", None, "Folder of images, of any layout.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; made if missing.")
_ACCEPTED = flags.DEFINE_string(
    "accepted", None, "Accepted pairs, as saved by the review sheet (.json) or with the columns "
    "first,second (.csv). Without it the automatic rule decides.",
)  # fmt: skip
_FOLDS = flags.DEFINE_string(
    "folds", None, "Split to audit: CSV with the columns uid,fold or class,id,fold."
)
_KEPT = flags.DEFINE_string(
    "kept", None, "Published list of images without copies, to measure the automatic rule "
    "against: CSV with the column uid or the columns class,id.",
)  # fmt: skip
_SIZE = flags.DEFINE_integer("size", 128, "Side in pixels of the images that SSIM sees.", 16, 512)
_THRESHOLD = flags.DEFINE_float(
    "threshold", 0.3, "Detail correlation from which the rule calls a pair copies.", 0, 1
)
_FULL_SSIM_UP_TO = flags.DEFINE_integer(
    "full_ssim_up_to", 3000, "Number of images up to which SSIM is computed for every pair; "
    "above it, for candidates.", 0,
)  # fmt: skip


def run() -> None:
    """Does what the flags say.

    Raises:
      UserError: for wrong use or bad input.
    """
    for flag, value in (("input", _INPUT.value), ("out", _OUT.value)):
        if not value:
            raise UserError(f"--{flag} is missing. Usage: --input=DIR --out=DIR [--accepted=FILE].")
    for flag, value in (("folds", _FOLDS.value), ("kept", _KEPT.value)):
        if value and not Path(value).is_file():
            raise UserError(f"--{flag}={value} is no file.")
    root, out = Path(_INPUT.value), Path(_OUT.value)
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"--out={out} lies inside --input={root}, where its plots would be taken for images of "
            f"the archive. Give a folder elsewhere."
        )
    # Both refuse before the slow imports.
    folder.find_entries(root)
    folder.check_writable(out)
    try:
        import numpy as np

        from mtbus_jax.curate import groups, output, pipeline, review
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name!r} is missing. Curation needs more than training does: "
            "pip install '.[curate]' in a checkout of mtbus_jax."
        ) from error
    options = pipeline.Options(
        size=_SIZE.value,
        full_ssim_up_to=_FULL_SSIM_UP_TO.value,
        threshold=_THRESHOLD.value,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    accepted = None
    if _ACCEPTED.value:
        accepted = Path(_ACCEPTED.value).name, review.read_accepted(Path(_ACCEPTED.value))
    findings = pipeline.curate(root, options, accepted)
    archive = findings.archive
    folds = removed = None
    if _FOLDS.value:
        folds = output.read_named(Path(_FOLDS.value), "folds", archive, "fold")
    if _KEPT.value:
        kept = output.read_named(Path(_KEPT.value), "kept", archive, None)
        removed = np.array([uid not in kept for uid in archive.uid], bool)
    output.write_all(findings, out, folds=folds, removed=removed)
    for problem in archive.problems:
        print(f"left out or incomplete: {problem.path}: {problem.reason}", file=sys.stderr)
    kinds = ", ".join(f"{n} {kind}" for kind, n in groups.structure(findings.groups).items())
    print(
        f"{len(archive.uid)} images, {len(findings.groups)} groups of copies"
        f"{' (' + kinds + ')' if kinds else ''}, decided by {findings.decided_by}. "
        f"Read {out / 'report.md'}; look at {out / 'review.html'}."
    )


def main(argv: list[str]) -> None:
    """Entry point for absl."""
    logging.set_verbosity(logging.WARNING)
    with exit_on_user_error("mtbus_jax.curate"):
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is no flag; flags are written --name=value.")
        run()
