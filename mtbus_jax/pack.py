"""Packs a dataset, resized, into one small file for machines without it.

    mtbus pack --name=curated_busi --out=curated_busi.npz

``python main.py … --config.data.arrays_file=curated_busi.npz`` reads it, without the dataset and
without tensorflow-datasets. The file holds images of the dataset: its licence applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtbus_jax import commandline, data
from mtbus_jax.images import enhancement, preprocess


def main(argv: Sequence[str], *, program: str = "mtbus_jax.pack") -> None:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Raises:
      UserError: if the dataset cannot be found or the file cannot be written.
    """
    parser = commandline.Parser(program, __doc__)
    parser.add_argument("--name", required=True, help=f"{', '.join(data.DATASETS)}, or a folder")
    parser.add_argument(
        "--out", required=True, type=commandline.file_path, help="file to write (.npz)"
    )
    parser.add_argument("--height", type=int, default=128, help="pixels; default: %(default)s")
    parser.add_argument("--width", type=int, default=128, help="pixels; default: %(default)s")
    parser.add_argument(
        "--resize",
        default=preprocess.NEAREST,
        choices=preprocess.RESIZES,
        help="how images become smaller, as data.resize",
    )
    parser.add_argument(
        "--enhancement",
        default=enhancement.NONE,
        choices=enhancement.ENHANCEMENTS,
        help="enhancement of images before resizing, as data.enhancement",
    )
    for flag, what in (
        ("--data_dir", "where built datasets are"),
        ("--manual_dir", "raw downloads, to build from if needed"),
    ):
        parser.add_argument(flag, default="", type=commandline.file_path, help=what)
    parser.add_argument(
        "--normal_class", default="", help="in a folder: the class without a lesion"
    )
    args = parser.parse_args(argv)
    size = (args.height, args.width)
    cases = data.load_cases(
        args.name,
        image_size=size,
        resize=args.resize,
        enhancement=args.enhancement,
        data_dir=args.data_dir,
        manual_dir=args.manual_dir,
        normal_class=args.normal_class,
    )
    data.save_arrays(cases, args.out, resize=args.resize, enhancement=args.enhancement)
    megabytes = Path(args.out).stat().st_size / 1e6
    print(f"{len(cases)} images of {cases.name} at {size}: {args.out}, {megabytes:.1f} MB")


if __name__ == "__main__":
    commandline.run("mtbus_jax.pack", main)
