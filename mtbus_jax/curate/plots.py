"""The plots of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mtbus_jax.curate.analysis import SsimComparison
from mtbus_jax.curate.groups import Pair

_COPIES, _OTHERS, _LINE = "#c1440e", "#4a6fa5", "#333333"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def histograms(
    copies: np.ndarray, others: np.ndarray, comparison: SsimComparison, path: Path
) -> None:
    """SSIM of copies and of other pairs, each as a density, with the central 99 % of both."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.4))
        axes = figure.subplots()
        edges = np.linspace(min(0.0, float(others.min(initial=0))), 1, 81)
        for values, colour, name, sample in (
            (others, _OTHERS, "other pairs", comparison.others),
            (copies, _COPIES, "copies", comparison.copies),
        ):
            if not len(values):
                continue
            axes.hist(
                values,
                edges,
                density=True,
                color=colour,
                alpha=0.55,
                linewidth=0,
                label=f"{name}, n = {len(values):,}",
            )
            axes.axvspan(
                sample.low,
                sample.high,
                color=colour,
                alpha=0.09,
                linewidth=0,
                label=f"their central 99 %: {sample.low:.3f} to {sample.high:.3f}",
            )
        axes.axvline(
            comparison.threshold,
            color=_LINE,
            linestyle="--",
            linewidth=1,
            label=f"threshold {comparison.threshold:.3f}",
        )
        axes.set(
            xlabel="SSIM",
            ylabel="density",
            xlim=(edges[0], 1),
            title="SSIM of copies and of all other pairs",
        )
        axes.legend(loc="upper right")
        _save(figure, path)


def evidence(pairs: Sequence[Pair], accepted: Sequence[Pair], threshold: float, path: Path) -> None:
    """SSIM against detail correlation of every candidate pair."""
    chosen = {(p.first, p.second) for p in accepted}
    is_accepted = np.array([(p.first, p.second) in chosen for p in pairs], bool)
    ssim = np.array([p.ssim for p in pairs])
    score = np.array([p.score for p in pairs])
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.8))
        axes = figure.subplots()
        for keep, colour, name in (
            (~is_accepted, _OTHERS, "candidate, not accepted"),
            (is_accepted, _COPIES, "accepted as copies"),
        ):
            axes.scatter(
                ssim[keep],
                score[keep],
                s=9,
                color=colour,
                alpha=0.5,
                linewidths=0,
                label=f"{name}, n = {keep.sum():,}",
            )
        axes.axhline(
            threshold,
            color=_LINE,
            linestyle="--",
            linewidth=1,
            label=f"rule: detail ≥ {threshold:g}",
        )
        axes.set(
            xlabel="SSIM of the whole frames",
            ylabel="detail correlation after registration",
            xlim=(min(0, ssim.min(initial=0)) - 0.02, 1.02),
            title="What SSIM and the geometric check say of each candidate pair",
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
        _save(figure, path)


def precision_recall(
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    chosen: tuple[float, float, float],
    path: Path,
) -> None:
    """Precision against recall.

    Args:
      curves: name → thresholds, precision, recall.
      chosen: threshold, precision and recall of the rule in use.
      path: where to write.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.8))
        axes = figure.subplots()
        for (name, (_, precision, recall)), colour in zip(
            curves.items(), (_COPIES, _OTHERS), strict=False
        ):
            axes.plot(recall, precision, color=colour, linewidth=1.6, label=name)
        axes.plot(
            chosen[2],
            chosen[1],
            "o",
            color=_LINE,
            markersize=5,
            label=f"rule: {chosen[1]:.3f} at recall {chosen[2]:.3f}",
        )
        axes.axhline(0.95, color=_LINE, linewidth=0.6, linestyle=":")
        axes.axvline(0.99, color=_LINE, linewidth=0.6, linestyle=":")
        axes.set(
            xlabel="recall",
            ylabel="precision",
            xlim=(0.8, 1.004),
            ylim=(0.4, 1.01),
            title="Images found against the published list of removed images",
        )
        axes.legend(loc="lower left")
        _save(figure, path)
