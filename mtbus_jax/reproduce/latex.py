"""A table as LaTeX; the only package it needs is booktabs."""

from __future__ import annotations

import re

from mtbus_jax.pages import NOTICE
from mtbus_jax.reproduce.layout import PUBLISHED, Content, Grid, grids


def to_latex(content: Content) -> str:
    """The content of ``table_<N>.tex``."""
    lines = [
        f"% {NOTICE}.",
        "% Needs \\usepackage{booktabs}.",
        "\\begin{table*}",
        "\\centering",
        f"\\caption{{{_latex(content.title)}. Mean $\\pm$ standard deviation over folds; in "
        "italics the published figures.}",
        f"\\label{{tab:table_{content.table.number}}}",
        "\\scriptsize",
        "\\setlength{\\tabcolsep}{3pt}",
    ]
    for title, grid in grids(content):
        if title:
            lines += ["\\par\\medskip", f"\\textbf{{{_latex(title)}}}\\par\\smallskip"]
        lines += _latex_grid(grid)
    return "\n".join([*lines, "\\end{table*}", ""])


def _latex_grid(grid: Grid) -> list[str]:
    def line(cells):
        return " & ".join(cells) + " \\\\"

    columns = "l" * grid.labels + "r" * (len(grid.heading) - grid.labels)
    body = []
    for cells in grid.lines:
        texts = [_latex(cell) for cell in cells]
        if cells[0] == PUBLISHED:
            texts = [f"\\textit{{{text}}}" if text else "" for text in texts]
        body.append(line(texts))
    return [
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        line([_latex(cell) for cell in grid.heading]),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
    ]


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "−": "$-$",
    "—": "---",
}


def _latex(text: str) -> str:
    return re.sub(".", lambda match: _LATEX.get(match[0], match[0]), text)
