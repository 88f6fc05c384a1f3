"""Writes the reference of all configuration fields, from ``configs/base.py`` and `fields`.

    python -m mtbus_jax.training.reference > docs/configuration.md

A field's meaning is the comment on its line, or the lines of comment above it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from mtbus_jax import configuration
from mtbus_jax.escaping import Markdown, markdown, markdown_table
from mtbus_jax.training import fields

_ASSIGNED = re.compile(r"(?P<owner>\w+)\.(?P<field>\w+) = (?P<value>.*?)(?:  # (?P<comment>.*))?$")
_SECTION = re.compile(r"(?P<variable>\w+) = config\.(?P<section>\w+) = ")
_PLACEHOLDER = re.compile(r"config_dict\.placeholder\((\w+)\)")


class Field(NamedTuple):
    """One field.

    Attributes:
      name: with its section, such as ``train.epochs``.
      default: as written in the file; ``None`` for a network's own.
      meaning: the comment on it.
    """

    name: str
    default: str
    meaning: str


def read(text: str) -> list[Field]:
    """The fields that the source of a base configuration sets, in its order."""
    sections, comment, found = {"config": ""}, [], []
    for line in map(str.strip, text.splitlines()):
        if section := _SECTION.match(line):
            sections[section["variable"]] = f"{section['section']}."
            comment = []
        elif line.startswith("# "):
            comment.append(line[2:])
        elif (match := _ASSIGNED.match(line)) and match["owner"] in sections:
            default = _PLACEHOLDER.sub("None", match["value"])
            meaning = " ".join([*comment, *filter(None, [match["comment"]])])
            found.append(Field(sections[match["owner"]] + match["field"], default, meaning))
            comment = []
        else:
            comment = []
    return found


def _allowed(name: str) -> str:
    if name in fields.RANGES:
        return str(fields.RANGES[name])
    if name == "data.image_size":
        return str(fields.IMAGE_SIDES)
    return ", ".join(fields.CHOICES.get(name, ()))


def _meaning(field: Field) -> Markdown:
    """The comment, which marks code as Markdown does."""
    return Markdown(markdown(field.meaning).replace("\\`", "`"))


def page() -> str:
    """The text of ``docs/configuration.md``."""
    rows = [
        (Markdown(f"`{f.name}`"), Markdown(f"`{f.default}`"), _allowed(f.name), _meaning(f))
        for f in read((Path(configuration.SHIPPED) / "base.py").read_text(encoding="utf-8"))
    ]
    lines = [
        "# All fields of a configuration",
        "",
        "For looking up a field. The defaults are the published recipe of MT UNet++ on Curated "
        "BUSI. A value that is not "
        "allowed is refused before anything is read or compiled. `None` stands for a network's own "
        "default. Made by `python -m mtbus_jax.training.reference` from "
        "[`configs/base.py`](../configs/base.py); a test compares the two.",
        "",
        *markdown_table(["field", "default", "allowed", "meaning"], rows, labels=4),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
