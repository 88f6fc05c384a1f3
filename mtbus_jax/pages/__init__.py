"""What the HTML pages share: their looks, their notice, and how a policy names what may run."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

NOTICE = "Research software, not a medical device"


@functools.cache
def text(package: str, name: str) -> str:
    """The content of ``assets/<name>`` of a package such as ``mtbus_jax.report``."""
    return resources.files(package).joinpath("assets", name).read_text("utf-8")


def style(package: str, *names: str) -> str:
    """The rules that all pages share, then those of ``assets/<name>`` of a package."""
    return "\n".join([text(__name__, "base.css"), *(text(package, name) for name in names)])


def source(content: str) -> str:
    """A style or script element's content as a Content-Security-Policy names it, by SHA-256."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
