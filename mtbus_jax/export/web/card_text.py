"""The card's text as HTML. It can hold names that users chose, so all of it is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")


def to_html(lines: Sequence[str]) -> str:
    """Converts a card's Markdown: level-2 headings, paragraphs, lists, tables, code, bold.

    Args:
      lines: lines of Markdown, each without line breaks.

    Returns:
      HTML with headings of level 4.
    """
    parts: list[str] = []
    for block in _blocks(lines):
        if block[0].startswith("## "):
            parts.append(f"<h4>{_inline(block[0][3:])}</h4>")
        elif block[0] == block[-1] == "```":
            parts.append(f"<pre>{html.escape(chr(10).join(block[1:-1]))}</pre>")
        elif block[0].startswith("| "):
            parts.append(_table(block))
        elif block[0].startswith("- "):
            items = "".join(f"<li>{_inline(line[2:])}</li>" for line in block)
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(f"<p>{_inline(' '.join(block))}</p>")
    return "\n".join(parts)


def _blocks(lines: Sequence[str]) -> list[list[str]]:
    """The lines between empty ones."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<strong>\1</strong>", html.escape(text)))


def _table(block: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    head, _, *body = rows
    cells = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{_inline(first)}</th>'
        + "".join(f"<td>{_inline(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in body
    ]
    label = html.escape(head[0]) or "Figures"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
