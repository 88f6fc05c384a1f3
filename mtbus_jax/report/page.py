"""Builds a page: one file, with a policy that forbids it to load or run anything else."""

from __future__ import annotations

import mtbus_jax
from mtbus_jax import pages
from mtbus_jax.report import markup
from mtbus_jax.report.markup import Child, Markup, element

_HERE = "mtbus_jax.report"


def page(
    title: str, *body: Child, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = ()
) -> str:
    """A whole HTML document.

    Args:
      title: the document's title.
      *body: the document's content.
      styles: files of ``assets/`` besides the common one.
      scripts: files of ``assets/``, run in this order at the end of the body.
    """
    style = pages.style(_HERE, "style.css", *styles)
    codes = [pages.text(_HERE, name) for name in scripts]
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
        element("p", element("strong", f"{pages.NOTICE}."), " ", made),
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
            element("p", pages.NOTICE, class_="notice"),
            element("h1", name),
            element("p", markup.join(facts), class_="facts"),
        ),
        element("nav", element("ul", items), aria_label="Sections"),
    )


def _policy(style: str, codes: list[str]) -> str:
    """Allows only these exact styles and scripts, and only pictures from inside the file."""
    scripts = " ".join(map(pages.source, codes)) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {pages.source(style)}; "
        f"script-src {scripts}; base-uri 'none'; form-action 'none'"
    )
