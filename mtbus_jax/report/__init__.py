"""A run folder as one page that needs neither network nor server: ``report.html``.

`write_report` writes it, `compare.write_comparison` puts runs side by side; the command is
``python -m mtbus_jax.report``.
"""

from __future__ import annotations

from mtbus_jax.report.write import REPORT, has_pictures, write_report

__all__ = ["REPORT", "has_pictures", "write_report"]
