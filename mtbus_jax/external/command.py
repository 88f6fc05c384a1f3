"""The command ``mtbus external``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mtbus_jax import commandline
from mtbus_jax.external.elsewhere import SUMMARY_MD, evaluate
from mtbus_jax.predict.command import add_ensemble_flags
from mtbus_jax.runtime import host_memory, program_cache


def main(argv: Sequence[str], *, program: str) -> None:
    """Tests networks on a dataset that they were not trained on: external validation.

    Scores the answers of ``mtbus predict`` at the network's resolution: all trained folds together,
    with the run's test-time augmentation, trust and refining. Give the name of a dataset, or a
    folder of your own pictures with masks or classes. See docs/external.md.
    """
    parser = commandline.Parser(program, main.__doc__)
    parser.add_paths(
        run="run folder of main.py, or a folder of mtbus bundle; default: the network that comes "
        "with the library",
    )
    parser.add_paths(
        required=True,
        data="name of a dataset, or a folder of your own",
        out="folder for the results",
    )
    parser.add_argument(
        "--rename",
        type=_renamed,
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a class of the dataset that has another name in the run, such as cyst=benign; cyst= "
        "leaves its images out of the classification; may be repeated",
    )
    parser.add_argument("--normal_class", default="", help="for a folder: the class without lesion")
    parser.switch(
        "--match_intensity",
        help="match the grey values of all pictures together to the distribution of the run's own "
        "dataset, which must be available",
    )
    parser.switch(
        "--leave_out_known",
        help="leave out pictures that the run was trained on, recognised by their pixels; without "
        "this flag, a dataset that holds some is refused",
    )
    add_ensemble_flags(parser)
    parser.add_argument(
        "--batch_size", type=int, default=8, help="pictures that go through the network together"
    )
    parser.add_paths(
        data_dir="folder of the built datasets",
        manual_dir="folder of the raw downloads",
        cache_dir="folder for resized arrays",
    )
    args = parser.parse_args(argv)
    host_memory.keep_freed_memory()
    program_cache.open_cache()
    places = {name: getattr(args, name) for name in ("data_dir", "manual_dir", "cache_dir")}
    content = evaluate(
        args.data,
        args.out,
        run=args.run,
        rename=dict(args.rename),
        match_intensity=args.match_intensity,
        folds=args.folds,
        tta=args.tta,
        refine=args.refine,
        places={name: value for name, value in places.items() if value},
        normal_class=args.normal_class,
        batch_size=args.batch_size,
        leave_out_known=args.leave_out_known,
    )
    print(f"{content['images']} images tested; {args.out}/{SUMMARY_MD}")


def _renamed(text: str) -> tuple[str, str]:
    theirs, sign, ours = (part.strip() for part in text.partition("="))
    if not theirs or not sign:
        raise argparse.ArgumentTypeError(f"={text}: give THEIRS=OURS, such as cyst=benign")
    return theirs, ours
