"""The report in Markdown: what was found, on what evidence, and how copies differ from others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtbus_jax.curate import analysis, groups, marks, plots
from mtbus_jax.curate.audit import AuditReport
from mtbus_jax.curate.pipeline import Findings
from mtbus_jax.escaping import markdown, markdown_table

# Groups listed one by one; the rest are in groups.csv.
_LISTED = 400


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table of texts."""
    return "\n".join(markdown_table(header, rows, labels=len(header)))


def _p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"


def write_report(
    findings: Findings,
    folder: Path,
    *,
    audits: dict[str, AuditReport],
    removed: np.ndarray | None,
) -> str:
    """Writes the plots into a folder and returns the report that shows them.

    Args:
      findings: what the recognition found.
      folder: existing folder for the plots.
      audits: results of the audits, by what was audited.
      removed: ``(n,)`` bool, images that a published list removes as copies; None without a list.
    """
    sections = [
        _overview(findings),
        _ssim_section(findings, folder),
        _group_section(findings),
        _mask_section(findings),
        _class_section(findings),
        _mark_section(findings),
    ]
    if removed is not None:
        sections.append(_rule_section(findings, removed, folder))
    sections += [_audit_section(name, audit) for name, audit in audits.items()]
    sections.append(_problem_section(findings))
    return "\n\n".join(section for section in sections if section) + "\n"


def _overview(findings: Findings) -> str:
    archive = findings.archive
    n = len(archive.entries)
    grouped = sum(len(g.members) for g in findings.groups)
    kinds = ", ".join(
        f"{count} {name}{'s' if count > 1 else ''}"
        for name, count in groups.structure(findings.groups).items()
    )
    if findings.decided_by == "automatic rule":
        who = (
            f"**No person has looked at these pairs**: the automatic rule decided (detail "
            f"correlation ≥ {findings.options.threshold:g} over at least "
            f"{groups.LEAST_OVERLAP:.0%} of the smaller frame, or identical pictures). Tick the "
            f"pairs in `review.html` and give its file to `--accepted` to decide yourself."
        )
    else:
        rule = {
            (p.first, p.second) for p in findings.pairs if p.is_copy(findings.options.threshold)
        }
        person = {(p.first, p.second) for p in findings.accepted}
        who = (
            f"A person decided, by the accepted pairs in {markdown(findings.decided_by)}. The "
            f"automatic rule agrees on {len(rule & person)} of them, lacks {len(person - rule)} "
            f"and would add {len(rule - person)}."
        )
    return (
        f"# Duplicate recognition\n\n{n} images, {grouped} of them in {len(findings.groups)} "
        f"groups of copies{': ' + kinds if kinds else ''}. {who}"
    )


def _ssim_section(findings: Findings, folder: Path) -> str:
    copies, others = analysis.split_ssim(findings)
    result = analysis.compare_ssim(copies, others)
    plots.histograms(copies, others, result, folder / "ssim_histograms.png")
    plots.evidence(
        findings.pairs, findings.accepted, findings.options.threshold, folder / "evidence.png"
    )
    rows = []
    for name, s in (("pairs inside groups", result.copies), ("other pairs", result.others)):
        sign = "≤" if s.lilliefors[1] <= 0.001 else "="
        normal = f"D = {s.lilliefors[0]:.3f}, p {sign} {s.lilliefors[1]:.3f}"
        rows.append(
            (
                name,
                f"{s.n:,}",
                f"{s.mean:.3f} ± {s.sd:.3f}",
                f"{s.low:.3f} to {s.high:.3f}",
                normal if s.n >= 4 else "–",
            )
        )
    text = table(("", "n", "mean ± sd", "central 99 %", "Lilliefors"), rows)
    if findings.ssim is None:
        text += (
            "\n\nThe archive is large: SSIM was computed for candidate pairs only, so the *other "
            "pairs* are not all pairs but the likelier ones."
        )
    if np.isfinite(result.mann_whitney[1]):
        u, p = result.mann_whitney
        text += f"\n\nMann–Whitney: U = {u:.4g}, {_p_value(p)}."
    size = findings.options.size
    return (
        f"## SSIM\n\nAt {size}×{size} pixels (7×7 window). The threshold is the upper end of the "
        f"other pairs' central 99 %: **{result.threshold:.3f}**.\n\n{text}\n\n"
        f"![SSIM of copies and other pairs](plots/ssim_histograms.png)\n\n"
        f"![SSIM and detail correlation of the candidates](plots/evidence.png)"
    )


def _evidence(group: groups.Group) -> tuple[str, str, str]:
    weakest = min(p.score for p in group.pairs)
    ssim = [p.ssim for p in group.pairs]
    notes = []
    if all(p.identical for p in group.pairs):
        notes.append("identical pictures")
    if any(p.geometry.mirrored for p in group.pairs):
        notes.append("mirrored")
    if any(p.geometry.overlap < 0.9 for p in group.pairs):
        notes.append("cropped")
    return f"{weakest:.3f}", f"{min(ssim):.3f} to {max(ssim):.3f}", ", ".join(notes)


def _group_section(findings: Findings) -> str:
    archive = findings.archive
    if not findings.groups:
        return "## Groups\n\nNo copies were found."
    rows = [
        (g.name, ", ".join(archive.uid[m] for m in g.members), *_evidence(g))
        for g in findings.groups[:_LISTED]
    ]
    conflicts = groups.conflicts(findings.groups, archive.label)
    text = f"{len(conflicts)} groups carry more than one class label" + (
        ":\n\n"
        + table(
            ("group", "images"),
            [(g.name, ", ".join(archive.uid[m] for m in g.members)) for g in conflicts],
        )
        if conflicts
        else "."
    )
    more = len(findings.groups) - len(rows)
    return (
        f"## Groups\n\n{text}\n\n"
        + table(("group", "images", "weakest detail correlation", "SSIM", "notes"), rows)
        + (f"\n\n… and {more} more in `groups.csv`." if more else "")
    )


def _mask_section(findings: Findings) -> str:
    iou, counts = analysis.mask_agreement(findings)
    if not len(iou):
        return ""
    rows = [(name, count, f"{100 * count / len(iou):.1f} %") for name, count in counts.items()]
    return (
        f"## Agreement of the masks inside groups\n\n{len(iou)} pairs whose images both have a "
        f"mask; IoU at the network's input size, two empty masks agree. {int((iou == 1).sum())} "
        f"pairs agree in every pixel.\n\n" + table(("IoU", "pairs", "share"), rows)
    )


def _class_section(findings: Findings) -> str:
    grouped = groups.group_column(len(findings.archive.entries), findings.groups) != ""
    rows = analysis.class_counts(findings.archive.label, grouped)
    rows.append(("all", *(sum(row[k] for row in rows) for k in (1, 2, 3))))
    return "## Classes before and after\n\n" + table(
        ("class", "images", "in groups", "left without them"), rows
    )


def _mark_section(findings: Findings) -> str:
    archive = findings.archive
    rows = marks.count_by_class(archive.marks, archive.label)
    return (
        "## Marks, text and colour\n\nFound automatically; `marks.csv` lists them by image. A "
        "network can learn them as a short cut where they are commoner in one class.\n\n"
        + table(("class", "images", "calipers", "text", "colour", "any"), rows)
        + "\n\n"
        + marks.association(archive.marks, archive.label)
    )


def _rule_section(findings: Findings, removed: np.ndarray, folder: Path) -> str:
    n = len(findings.archive.entries)
    score = analysis.best_score(n, findings)
    ssim = analysis.best_score(n, findings, "ssim")
    curve = analysis.precision_recall(score, removed)
    found = score >= findings.options.threshold
    precision = (found & removed).sum() / max(1, found.sum())
    recall = (found & removed).sum() / max(1, removed.sum())
    plots.precision_recall(
        {
            "geometric check": curve,
            "SSIM alone": analysis.precision_recall(ssim, removed),
        },
        (findings.options.threshold, precision, recall),
        folder / "precision_recall.png",
    )
    rows = []
    for name, values, thresholds in (
        ("detail correlation", score, (0.2, 0.3, 0.5, 0.7, 0.8, 0.9)),
        ("SSIM alone", ssim, (0.23, 0.3, 0.4, 0.5)),
    ):
        for threshold in thresholds:
            hit = values >= threshold
            rows.append(
                (
                    f"{name} ≥ {threshold}",
                    int(hit.sum()),
                    f"{(hit & removed).sum() / max(1, hit.sum()):.4f}",
                    f"{(hit & removed).sum() / max(1, removed.sum()):.4f}",
                )
            )
    uid = np.array(findings.archive.uid)
    more, less = uid[found & ~removed], uid[~found & removed]
    return (
        f"## The automatic rule against the published list\n\nThe list says which images have a "
        f"copy, not which pairs are copies; so an image counts as found if any of its pairs "
        f"passes. {int(removed.sum())} images are listed.\n\n"
        + table(("rule", "images found", "precision", "recall"), rows)
        + f"\n\nFound but not listed: {markdown(', '.join(more) or 'none')}.\n\nListed but not "
        f"found: {markdown(', '.join(less) or 'none')}."
        + "\n\n![Precision and recall](plots/precision_recall.png)"
    )


def _audit_section(name: str, audit: AuditReport) -> str:
    text = f"## Audit: {markdown(name)}\n\n{markdown(audit.summary())}"
    if audit.leaks:
        shown = [(leak.group, leak.where()) for leak in audit.leaks]
        rows = [(f, audit.tested[f], audit.touched_in[f]) for f in audit.tested]
        text += "\n\n" + table(("fold", "test images", "with a relative in training"), rows)
        text += "\n\n" + table(("group", "where"), shown)
    return text


def _problem_section(findings: Findings) -> str:
    problems = findings.archive.problems
    if not problems:
        return ""
    rows = [(p.file.rpartition("/")[2], p.reason) for p in problems]
    return f"## Files with a problem\n\n{len(problems)} in all.\n\n" + table(("file", "why"), rows)
