"""Writes all files of a curation. They appear together at the end, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from mtbus_jax.curate import folder, groups, marks, report, review
from mtbus_jax.curate.audit import AuditReport, audit_split
from mtbus_jax.curate.pipeline import Findings
from mtbus_jax.errors import UserError
from mtbus_jax.files import cell, csv_line, parse_table, without_sign

# The files of a curation. Some of them without all of `_ALWAYS` were written by something else.
_ALWAYS = {"review.html", "pairs.csv"}
_FILES = {"report.md", "ranking.csv", "groups.csv", "marks.csv", "problems.csv", "summary.json"}
_FILES |= {"plots", *_ALWAYS}
# Candidates listed for each reference image in ranking.csv.
_RANKED = 10


def read_named(path: Path, flag: str, known: Collection[str], column: str | None) -> dict[str, str]:
    """Reads one value per image from a CSV file.

    Args:
      path: the file, whose images are named by a column ``uid`` (or ``image``) or by the columns
        ``class`` and ``id``.
      flag: name of the flag, for messages.
      known: names of the images in the archive; others are refused.
      column: the column of the value, or None to read the names alone.

    Returns:
      uid → value (``""`` without a column).

    Raises:
      UserError: if the file is missing, lacks a column, has a row that is cut short or too long,
        names an unknown image, or gives one image two values.
    """
    source = f"--{flag}={path}"
    try:
        columns, rows = parse_table(path.read_bytes(), source)
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error}).") from error
    named = next((c for c in ("uid", "image") if c in columns), None)
    if not (named or {"class", "id"} <= set(columns)) or (column and column not in columns):
        wanted = f" and {column}" if column else ""
        raise UserError(
            f"{source} needs the columns uid{wanted} (or class, id{wanted}); it has "
            f"{', '.join(sorted(columns)) or 'none'}."
        )
    values: dict[str, str] = {}
    for line, cells, complete in rows:
        uid = without_sign(cells[named]) if named else f"{cells['class']}_{cells['id']}"
        if not complete or (column and not cells[column]):
            raise UserError(
                f"{source}, line {line}: the row of {uid!r} does not have one cell for each of the "
                f"columns {', '.join(columns)}. Complete it, or take the row out; a number with a "
                "comma in it needs quotation marks, or semicolons between the columns."
            )
        value = cells[column] if column else ""
        if values.setdefault(uid, value) != value:
            raise UserError(
                f"{source}, line {line}: {uid!r} is in {column} {value} and, further up, in "
                f"{column} {values[uid]}. Leave one of the rows."
            )
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(
            f"{source} names {len(unknown)} images that the archive does not hold, such as "
            f"{unknown[0]!r}. Its images are called like {next(iter(known), '')!r}."
        )
    return values


def audits(findings: Findings, folds: dict[str, str]) -> dict[str, AuditReport]:
    """Audits a split for copies and, where patients are known, for patients.

    Args:
      findings: what the recognition found.
      folds: uid → fold; images that it does not name are left out.
    """
    archive = findings.archive
    uid = np.array(archive.uid)
    used = np.array([name in folds for name in archive.uid], bool)
    fold = np.array([folds.get(name, "") for name in archive.uid])
    column = groups.group_column(len(uid), findings.groups)
    result = {"copies across folds": audit_split(uid[used], column[used], fold[used])}
    patient = np.array([entry.patient for entry in archive.entries])
    if (patient != "").any():
        result["patients across folds"] = audit_split(uid[used], patient[used], fold[used])
    return result


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        safe = ([cell(value) for value in row] for row in rows)
        file.writelines(map(csv_line, (header, *safe)))


def _ranking(findings: Findings) -> Iterable[tuple[str, int, str, str]]:
    """Reference image, rank, candidate, SSIM: the ranking of §4.2."""
    uid = findings.archive.uid
    n = len(uid)
    if findings.ssim is not None:
        values = findings.ssim - 2 * np.eye(n, dtype=np.float32)
        order = np.argsort(-values, axis=1, kind="stable")[:, : min(_RANKED, n - 1)]
        for row in range(n):
            for rank, col in enumerate(order[row], 1):
                yield uid[row], rank, uid[col], f"{values[row, col]:.4f}"
        return
    rank = [0] * n
    lists: dict[int, list[tuple[str, int, str, str]]] = {}
    for pair in findings.pairs:  # highest SSIM first
        for a, b in ((pair.first, pair.second), (pair.second, pair.first)):
            if rank[a] < _RANKED:
                rank[a] += 1
                lists.setdefault(a, []).append((uid[a], rank[a], uid[b], f"{pair.ssim:.4f}"))
    for index in sorted(lists):
        yield from lists[index]


def _pair_rows(findings: Findings) -> Iterable[Sequence[object]]:
    uid = findings.archive.uid
    accepted = {(p.first, p.second) for p in findings.accepted}
    known = {(p.first, p.second) for p in findings.pairs}
    added = [p for p in findings.accepted if (p.first, p.second) not in known]
    for p in [*findings.pairs, *added]:
        g = p.geometry
        yield (
            uid[p.first], uid[p.second], f"{p.ssim:.4f}", f"{g.detail:.4f}", f"{g.overlap:.3f}",
            g.inliers, f"{g.scale:.3f}", f"{g.rotation:.2f}", f"{g.shift[0]:.1f}",
            f"{g.shift[1]:.1f}", int(g.mirrored), f"{p.votes:.1f}", int(p.identical),
            int(p.is_copy(findings.options.threshold)), int((p.first, p.second) in accepted),
        )  # fmt: skip


_PAIR_COLUMNS = (
    "first", "second", "ssim", "detail", "overlap", "inliers", "scale", "rotation_degrees",
    "shift_rows", "shift_cols", "mirrored", "votes", "identical", "rule", "accepted",
)  # fmt: skip


def _write_all(
    findings: Findings, work: Path, folds: dict[str, str] | None, removed: np.ndarray | None
) -> None:
    archive = findings.archive
    plots = work / "plots"
    plots.mkdir()
    found = audits(findings, folds) if folds is not None else {}
    text = report.write_report(findings, plots, audits=found, removed=removed)
    (work / "report.md").write_text(text, encoding="utf-8")
    review.write_review(findings, work / "review.html")
    review.write_accepted(work / "accepted_pairs.json", archive.uid, findings.accepted)
    _write_csv(work / "pairs.csv", _PAIR_COLUMNS, _pair_rows(findings))
    _write_csv(work / "ranking.csv", ("reference", "rank", "candidate", "ssim"), _ranking(findings))
    column = groups.group_column(len(archive.uid), findings.groups)
    _write_csv(
        work / "groups.csv",
        ("uid", "class", "patient", "group"),
        (
            (entry.uid, entry.label, entry.patient, name)
            for entry, name in zip(archive.entries, column, strict=True)
            if name
        ),
    )
    marks.write_marks(work / "marks.csv", archive.uid, archive.label, archive.marks)
    _write_csv(
        work / "problems.csv",
        ("file", "reason"),
        ((p.file, p.reason) for p in archive.problems),
    )
    summary = {
        "images": len(archive.uid),
        "problems": len(archive.problems),
        "decided_by": findings.decided_by,
        "threshold": findings.options.threshold,
        "size": findings.options.size,
        "ssim_of_every_pair": findings.ssim is not None,
        "candidate_pairs": len(findings.pairs),
        "accepted_pairs": len(findings.accepted),
        "groups": groups.structure(findings.groups),
        "images_in_groups": int((column != "").sum()),
        "audits": {
            name: {"leaks": len(a.leaks), "touched": a.touched, "images": a.images}
            for name, a in found.items()
        },
    }
    (work / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def check_out(out: Path) -> None:
    """Refuses a folder that cannot be written, or has files of these names from something else.

    Raises:
      UserError: naming one of them.
    """
    folder.check_writable(out)
    ours = {path.name for path in out.iterdir()} & _FILES
    if ours and not ours >= _ALWAYS:
        raise UserError(
            f"--out={out} holds {min(ours)}, which no curation wrote; give an empty or a new "
            "folder."
        )


def write_all(
    findings: Findings,
    out: Path,
    *,
    folds: dict[str, str] | None = None,
    removed: np.ndarray | None = None,
) -> None:
    """Writes the report, the review sheet and the tables.

    Args:
      findings: what the recognition found.
      out: folder, made if missing; files of the same names are replaced.
      folds: uid → fold of a split to audit.
      removed: ``(n,)`` bool, images that a published list removes as copies.
    """
    check_out(out)
    work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        _write_all(findings, work, folds, removed)
        shutil.rmtree(out / "plots", ignore_errors=True)  # of an earlier curation
        (out / "plots").mkdir()
        for path in sorted(work.rglob("*")):
            if path.is_file():
                os.replace(path, out / path.relative_to(work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
