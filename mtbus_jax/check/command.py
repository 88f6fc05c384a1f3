"""Looks through a folder of your own pictures and says what it holds, without training.

    mtbus check --input=PICTURES --out=checked

prints how the folder is understood, what it holds and what to look at, and writes ``check.html``,
a contact sheet, and ``images.csv``, a row for each picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtbus_jax import commandline, files
from mtbus_jax.check import look, sheet
from mtbus_jax.errors import EXIT_USAGE, UserError

_COLUMNS = (
    *("uid", "file", "class", "group", "fold", "height", "width", "lesion_pixels", "parts"),
    *("touches_border", "spacing_row_mm", "spacing_col_mm", "marks", "notes", "problem"),
)
_SHOWN = 10


def main(argv: Sequence[str], *, program: str = "mtbus check") -> int:
    """Does what the arguments say.

    Args:
      argv: arguments.
      program: the command's name in messages.

    Returns:
      The exit code: 0, or 2 if a picture cannot be used.

    Raises:
      UserError: if the folder is not understood, or the results cannot be written.
    """
    parser = commandline.Parser(program, __doc__)
    parser.add_paths(
        required=True, input="the folder", out="folder for the results; made if missing"
    )
    parser.add_argument(
        "--normal_class", default="", help='the class that means "no lesion"; default: normal'
    )
    parser.switch("--no_duplicates", help="leave out the search for near-duplicates")
    args = parser.parse_args(argv)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder.")
    if out.resolve().is_relative_to(Path(args.input).resolve()):
        raise UserError(f"--out={out} lies in --input={args.input}; give a folder elsewhere.")
    checked = look.check(
        Path(args.input), normal=args.normal_class, duplicates=not args.no_duplicates
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        files.write_text(out / "images.csv", _table(checked))
        files.write_text(out / "check.html", sheet.page_of(checked))
    except OSError as error:
        raise UserError(f"--out={out} cannot be written ({error}).") from None
    print("\n".join(_summary(checked)))
    print(f"\nContact sheet: {out / 'check.html'}; a row for each picture: {out / 'images.csv'}")
    return EXIT_USAGE if len(checked.usable) < len(checked.seen) else 0


def _summary(checked: look.Checked) -> list[str]:
    """The lines to print."""
    usable = checked.usable
    lines = [f"{checked.root}: {checked.layout}", ""]
    for name, count, masks in counts(checked):
        lines.append(f"  {name}: {count} pictures, {masks}")
    if usable:
        sizes = np.array([each.size for each in usable])
        low, high = sizes.min(axis=0), sizes.max(axis=0)
        lines.append(f"  height {low[0]} to {high[0]} pixels, width {low[1]} to {high[1]}")
        border = sum(each.border for each in usable)
        lines.append(f"  masks that touch the border: {border}")
        spaced = sum(each.spacing_mm is not None for each in usable)
        lines.append(f"  pictures with a known pixel size: {spaced}")
    problems = [each for each in checked.seen if each.problem]
    warnings = look.warnings(checked)
    lines += [""] * bool(warnings) + [f"! {warning}" for warning in warnings]
    lines += [f"    {each.problem}" for each in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"    and {len(problems) - _SHOWN} more, see images.csv")
    return lines


def counts(checked: look.Checked) -> list[tuple[str, int, str]]:
    """Per class: its name, the number of its pictures, and a description of their masks."""
    usable = checked.usable
    count = Counter(each.label for each in usable)
    rows = []
    for name in (*checked.classes.names, ""):
        if not count[name]:
            continue
        own = [each for each in usable if each.label == name]
        unknown = sum(each.lesion is None for each in own)
        empty = sum(each.lesion == 0 for each in own)
        masks = [f"{len(own) - unknown - empty} with a lesion drawn", f"{empty} with an empty mask"]
        if unknown:
            masks.append(f"{unknown} without a mask")
        rows.append((name or "without a class", count[name], ", ".join(masks)))
    return rows


def _table(checked: look.Checked) -> str:
    lines = [files.csv_line(_COLUMNS)]
    for each in checked.seen:
        height, width = each.size or ("", "")
        spacing = each.spacing_mm or ("", "")
        marks = "" if each.marks is None else " ".join(each.marks)
        lesion = "" if each.lesion is None else each.lesion
        known = (each.uid, each.file, each.label, each.group, each.fold, height, width, lesion)
        rest = (each.parts, each.border, *spacing, marks, "; ".join(each.notes), each.problem)
        lines.append(files.csv_line([files.cell(value) for value in (*known, *rest)]))
    return "".join(lines)
