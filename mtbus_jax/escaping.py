"""Escapes text for Markdown and HTML, so that names of files and classes can do no harm there."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_SPECIAL = re.compile(r"[\\`*\[\]|]")
_TAG = re.compile(r"<(?=\S)")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LINES = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


class Markdown(str):
    """Text that is Markdown already; `markdown_table` leaves it as it is."""

    __slots__ = ()


def markdown(text: Any) -> Markdown:
    """A value as Markdown that shows it literally: no tag, link, emphasis, cell or line break."""
    if isinstance(text, Markdown):
        return text
    text = _SPECIAL.sub(r"\\\g<0>", _LINES.sub(" ", str(text)))
    return Markdown(_TAG.sub("&lt;", _ENTITY.sub("&amp;", text)))


def markdown_table(
    header: Sequence[Any], rows: Sequence[Sequence[Any]], *, labels: int = 1
) -> list[str]:
    """The lines of a Markdown table, with cells escaped by `markdown`.

    Args:
      header: names of the columns.
      rows: cells of each row, texts or `Markdown`.
      labels: number of columns at the left that hold text; the others are right-aligned.
    """
    marks = [Markdown("---")] * labels + [Markdown("---:")] * (len(header) - labels)
    return ["| " + " | ".join(map(markdown, line)) + " |" for line in (header, marks, *rows)]


def json_element(name: str, content: Any) -> str:
    """A script element that holds data and that no browser runs.

    Args:
      name: its id.
      content: for `json.dumps`, without NaN.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Within a script element, "<" could begin its end or a comment.
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'
