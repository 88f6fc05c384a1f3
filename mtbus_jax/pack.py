"""Packs a dataset, resized, into one small file for machines without it.

    python -m mtbus_jax.pack --name=curated_busi --out=curated_busi.npz

``python main.py … --config.data.arrays_file=curated_busi.npz`` reads it, without the dataset and
without tensorflow-datasets. The file holds images of the dataset: its licence applies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import data
from mtbus_jax.errors import exit_on_user_error


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the arguments say.

    Args:
      argv: arguments; default: the process's own.

    Raises:
      UserError: if the dataset is not to be had or the file cannot be written.
    """
    parser = argparse.ArgumentParser("mtbus_jax.pack", description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help=", ".join(data.DATASETS))
    parser.add_argument("--out", required=True, help="file to write (.npz)")
    parser.add_argument("--height", type=int, default=128, help="pixels after resizing")
    parser.add_argument("--width", type=int, default=128, help="pixels after resizing")
    parser.add_argument("--data_dir", default="", help="where built datasets lie")
    parser.add_argument("--manual_dir", default="", help="raw downloads, to build from if needed")
    args = parser.parse_args(argv)
    size = (args.height, args.width)
    cases = data.load_cases(
        args.name, image_size=size, data_dir=args.data_dir, manual_dir=args.manual_dir
    )
    data.save_arrays(cases, args.out)
    megabytes = Path(args.out).stat().st_size / 1e6
    print(f"{len(cases)} images of {cases.name} at {size}: {args.out}, {megabytes:.1f} MB")


if __name__ == "__main__":
    with exit_on_user_error("mtbus_jax.pack"):
        main()
