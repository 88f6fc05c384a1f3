"""A trained run as one HTML file that runs in a browser; see `export_page`."""

from __future__ import annotations

from mtbus_jax.export.web.command import export_page

__all__ = ["export_page"]
