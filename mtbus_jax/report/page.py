"""Puts a page together: one file, with a policy that forbids it to load or run anything else."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

import mtbus_jax
from mtbus_jax.report import markup
from mtbus_jax.report.markup import Child, Markup, element

NOTICE = "Research software, not a medical device"

_STYLE = ("style.css",)


@functools.cache
def asset(name: str) -> str:
    """Text of a file of ``assets/``."""
    return resources.files("mtbus_jax.report").joinpath("assets", name).read_text("utf-8")


def page(
    title: str, *body: Child, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = ()
) -> str:
    """A whole HTML document.

    Args:
      title: of the document.
      *body: its content.
      styles: files of ``assets/`` besides the common one.
      scripts: files of ``assets/``, run in this order after the body is there.
    """
    style = "\n".join(asset(name) for name in (*_STYLE, *styles))
    codes = [asset(name) for name in scripts]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, codes)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(style)),
    )
    made = f"Made by mtbus_jax {mtbus_jax.__version__}."
    footer = element(
        "footer",
        element("p", element("strong", f"{NOTICE}."), " ", made),
        element("p", "This file holds everything it shows. It loads nothing and sends nothing."),
    )
    document = element(
        "html",
        head,
        element(
            "body",
            element("a", "Skip to the content", href="#content", class_="skip"),
            body,
            footer,
            [element("script", Markup(code)) for code in codes],
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{document}\n"


def header(name: str, facts: list[Child], links: list[tuple[str, str]]) -> Markup:
    """The top of a page: name, notice, facts, and links to its sections as (id, text)."""
    items = [element("li", element("a", text, href=f"#{target}")) for target, text in links]
    return markup.join(
        element(
            "header",
            element("p", NOTICE, class_="notice"),
            element("h1", name),
            element("p", markup.join(facts), class_="facts"),
        ),
        element("nav", element("ul", items), aria_label="Sections"),
    )


def _policy(style: str, codes: list[str]) -> str:
    """Nothing but these very texts may style or run; pictures come from inside the file."""
    scripts = " ".join(map(_source, codes)) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
