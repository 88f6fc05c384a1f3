"""The contact sheet of `mtbus check`: one page, pictures inside."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from mtbus_jax.check import look
from mtbus_jax.report.markup import Markup, element, table
from mtbus_jax.report.page import header, page

# Pictures shown at most, so that a browser opens the page quickly; images.csv has all.
_MOST = 1500


def page_of(checked: look.Checked) -> str:
    """The page as HTML."""
    facts = [checked.layout + ". ", f"{len(checked.usable)} of {len(checked.seen)} can be used."]
    links = [("look", "To look at"), ("pictures", "Pictures")]
    return page(
        f"Check of {checked.root.name}",
        header(f"Check of {checked.root.name}", facts, links),
        element("main", _warnings(checked), _problems(checked), _pictures(checked), id="content"),
        styles=("check.css",),
    )


def _warnings(checked: look.Checked) -> Markup:
    found = look.warnings(checked)
    content = element("ul", [element("li", each) for each in found]) if found else None
    nothing = None if found else element("p", "Nothing stands out.")
    return element("section", element("h2", "To look at"), content, nothing, id="look")


def _problems(checked: look.Checked) -> Markup | None:
    rows = [[each.uid, each.problem] for each in checked.seen if each.problem]
    return table("Pictures that cannot be used", ["picture", "why"], rows) if rows else None


def _pictures(checked: look.Checked) -> Markup:
    names = (*checked.classes.names, "")
    # If there are too many, an even selection over the whole folder.
    usable = checked.usable
    step = max(1, -(-len(usable) // _MOST))
    shown = usable[::step]
    parts = []
    for name in names:
        own = [each for each in shown if each.label == name]
        if own:
            title = f"{name or 'without a class'} ({len(own)})"
            parts.append(element("h3", title))
            parts.append(element("div", [_card(each) for each in own], class_="sheet"))
    note = None
    if step > 1:
        note = element("p", f"{len(shown)} of {len(usable)} pictures, every {step}th.")
    return element("section", element("h2", "Pictures"), note, parts, id="pictures")


def _card(seen: look.Seen) -> Markup:
    words = []
    if seen.lesion is None:
        words.append("no mask")
    elif seen.lesion == 0:
        words.append("empty mask")
    if seen.border:
        words.append("touches the border")
    words += [*(seen.marks or ()), *seen.notes]
    height, width = seen.size or (0, 0)
    return element(
        "figure",
        element("img", src=_jpeg(seen.thumbnail), alt=f"{seen.uid}, mask outlined", loading="lazy"),
        element("figcaption", element("b", seen.uid), f" {height}×{width}", _said(words)),
    )


def _said(words: list[str]) -> Markup | None:
    return element("span", "; ".join(words)) if words else None


def _jpeg(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
