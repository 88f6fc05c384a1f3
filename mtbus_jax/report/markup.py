"""HTML and SVG from nested calls. Text is escaped unless it was made here, so nothing is forgotten.

Uids and run names are users' data and may hold anything.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

# Elements that end with their opening tag.
_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})

Child = "str | Markup | None | Iterable[Child]"


class Markup(str):
    """Text that is HTML already."""


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One element.

    Args:
      name: name of the element, such as ``p``.
      *children: text (which is escaped), markup, None for nothing, or lists of these.
      **attributes: ``class_`` stands for ``class`` and ``aria_label`` for ``aria-label``; True
        makes a bare attribute, None and False leave it out.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """The children one after the other, escaped as in `element`."""
    return Markup("".join(_render(child) for child in children))


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    # SVG has attributes in camelCase, such as viewBox, but none with an underscore.
    key = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {key}="{html.escape(text)}"'


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return html.escape(child)
    return "".join(_render(each) for each in child)


def table(
    caption: str, header: Sequence[Child], rows: Iterable[Sequence[Child]], *, class_: str = ""
) -> Markup:
    """A table in a box that scrolls sideways if needed; the first cell of a row is its header.

    Args:
      caption: says what the table shows, for readers who jump from table to table.
      header: one cell per column.
      rows: one cell per column in each row.
      class_: CSS class of the box.
    """
    head = [element("th", cell, scope="col") for cell in header]
    body = [
        element("tr", element("th", first, scope="row"), [element("td", cell) for cell in rest])
        for first, *rest in rows
    ]
    content = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", head)),
        element("tbody", body),
    )
    return scrollable(caption, content, class_=class_)


def scrollable(label: str, content: Markup, *, class_: str = "") -> Markup:
    """A box that scrolls sideways; what scrolls must be reachable by keyboard."""
    classes = f"scroll {class_}".strip()
    return element("div", content, class_=classes, tabindex="0", role="region", aria_label=label)


def disclosure(summary: str, *children: Child) -> Markup:
    """Content that is closed until the reader opens it by its summary line."""
    return element("details", element("summary", summary), *children)


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f} %"


def p_value(p: float) -> str:
    """A p-value with as many digits as mean something."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
