"""The whole of `python -m mtbus_jax.curate` on an archive with planted copies, and on bad input."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import pytest
from curation_phantoms import COPIES, phantoms, write_archive
from PIL import Image, TiffImagePlugin

from mtbus_jax.curate import command, folder, groups, output, pipeline, review
from mtbus_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    return root, write_archive(root)


@pytest.fixture(scope="module")
def findings(archive):
    return pipeline.curate(archive[0])


@pytest.fixture(scope="module")
def written(archive, findings, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "curation"
    folds = {uid: str(k % 3) for k, uid in enumerate(findings.archive.uid)}
    planted = set().union(*archive[1])
    removed = np.array([uid in planted for uid in findings.archive.uid])
    output.write_all(findings, out, folds=folds, removed=removed)
    return out


def test_every_planted_copy_is_found_and_nothing_else(archive, findings):
    uid = findings.archive.uid
    found = {frozenset(uid[m] for m in group.members) for group in findings.groups}
    assert found == {frozenset(pair) for pair in archive[1]}
    assert groups.structure(findings.groups) == {"duplet": len(COPIES)}


def test_the_geometry_says_what_was_done(archive, findings):
    uid = findings.archive.uid
    of_kind = dict(zip(COPIES, archive[1], strict=True))
    by_names = {frozenset((uid[p.first], uid[p.second])): p for p in findings.accepted}
    assert [k for k in COPIES if by_names[frozenset(of_kind[k])].identical] == ["identical"]
    assert [k for k in COPIES if by_names[frozenset(of_kind[k])].geometry.mirrored] == ["mirrored"]
    # These are the copies that SSIM of the whole frames does not see.
    unseen = {k for k in COPIES if by_names[frozenset(of_kind[k])].ssim < 0.23}
    assert {"cropped", "shifted", "mirrored"} <= unseen


def test_large_archives_take_a_short_cut_to_the_same_groups(archive, findings, monkeypatch):
    monkeypatch.setattr(pipeline, "read_archive", lambda *_, **__: findings.archive)
    quick = pipeline.curate(archive[0], pipeline.Options(full_ssim_up_to=10))
    assert quick.ssim is None
    assert [g.members for g in quick.groups] == [g.members for g in findings.groups]
    full = {(p.first, p.second): p.ssim for p in findings.accepted}
    for pair in quick.accepted:
        assert pair.ssim == pytest.approx(full[pair.first, pair.second], abs=1e-4)


def test_tables(archive, findings, written):
    names = {row["uid"]: row["group"] for row in rows(written / "groups.csv")}
    assert set(names) == set().union(*archive[1])
    assert all(len({names[uid] for uid in pair}) == 1 for pair in archive[1])
    pairs = rows(written / "pairs.csv")
    ssim = [float(row["ssim"]) for row in pairs]
    assert ssim == sorted(ssim, reverse=True)
    assert sum(int(row["accepted"]) for row in pairs) == len(COPIES)
    ranking = rows(written / "ranking.csv")
    assert len(ranking) == 10 * len(findings.archive.uid)
    first = ranking[:10]
    assert [row["rank"] for row in first] == [str(k) for k in range(1, 11)]
    number = findings.archive.uid.index(first[0]["reference"])
    expected = np.sort(np.delete(findings.ssim[number], number))[::-1][:10]
    np.testing.assert_allclose([float(row["ssim"]) for row in first], expected, atol=1e-4)
    assert rows(written / "problems.csv") == []
    assert len(rows(written / "marks.csv")) == len(findings.archive.uid)


def test_report(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "No person has looked at these pairs" in text and f"{len(COPIES)} duplets" in text
    assert "| detail correlation ≥ 0.3 | 16 | 1.0000 | 1.0000 |" in text
    for plot in ("ssim_histograms", "evidence", "precision_recall"):
        assert f"plots/{plot}.png" in text
        assert Image.open(written / "plots" / f"{plot}.png").width > 300
    assert "## Audit: copies across folds" in text
    summary = json.loads((written / "summary.json").read_text())
    assert summary["groups"] == {"duplet": len(COPIES)}
    audit = summary["audits"]["copies across folds"]
    assert audit["touched"] == 2 * audit["leaks"] > 0


def test_nothing_unfinished_stays_behind(written, findings, tmp_path, monkeypatch):
    assert not list(written.glob(".unfinished*"))

    def fail(*args, **options):
        raise RuntimeError("disk full")

    monkeypatch.setattr(review, "write_review", fail)
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        output.write_all(findings, out)
    assert list(out.iterdir()) == []


def test_a_persons_pairs_replace_the_rule(archive, findings, tmp_path):
    uid = findings.archive.uid
    chosen = [findings.accepted[0], findings.accepted[2]]
    path = tmp_path / "accepted_pairs.json"
    review.write_accepted(path, uid, chosen)
    names = review.read_accepted(path)
    assert names == [(uid[p.first], uid[p.second]) for p in chosen]
    by_hand = [*names, (phantoms()[20].uid, phantoms()[23].uid)]  # was no candidate
    accepted = pipeline.accept(findings.archive, findings.pairs, by_hand)
    assert len(accepted) == 3
    (added,) = [p for p in accepted if p not in chosen]
    assert added.score < 0.15 and added.ssim < 0.5
    csv_path = tmp_path / "accepted.csv"
    csv_path.write_text("first,second\n" + "\n".join(",".join(n) for n in names), encoding="utf-8")
    assert review.read_accepted(csv_path) == names
    with pytest.raises(UserError, match="stranger"):
        pipeline.accept(findings.archive, findings.pairs, [(uid[0], "stranger")])


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{}"), ("a.json", "nonsense"), ("a.json", '{"format": "other", "pairs": []}'),
     ("a.csv", "left,right\na,b\n"), ("missing.json", None)],
)  # fmt: skip
def test_other_files_are_no_accepted_pairs(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        review.read_accepted(tmp_path / name)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mtbus_jax.curate", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def test_the_command_on_a_folder_of_mixed_quality(tmp_path):
    """Unreadable, single-coloured, tiny, identical and non-ASCII files of several sizes."""
    root, out = tmp_path / "in", tmp_path / "out"
    for k, phantom in enumerate(phantoms()[:4]):
        path = root / "höher" / f"Aufnahme {k} äöü 超.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(phantom.image).save(path)
    shutil.copy(path, root / "same again.png")
    (root / "broken.png").write_bytes(b"\x89PNG but no more")
    odd = Image.Exif()
    odd[0x9204] = TiffImagePlugin.IFDRational(-1, 1)
    Image.fromarray(phantoms()[5].image).save(root / "3².png", exif=odd)
    (root / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no picture")
    Image.new("L", (80, 60), 90).save(root / "grey.png")
    Image.new("L", (80, 60), 90).save(root / "grey too.png")
    Image.new("L", (9, 9)).save(root / "tiny.png")
    done = run(f"--input={root}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "6 images, 1 groups of copies (1 duplet)" in done.stdout
    problems = {Path(row["file"]).name: row["reason"] for row in rows(out / "problems.csv")}
    assert set(problems) == {
        "broken.png",
        "caf\N{REPLACEMENT CHARACTER}.png",
        "grey.png",
        "grey too.png",
        "tiny.png",
    }
    assert "cannot be decoded" in problems["broken.png"] or "not a PNG" in problems["broken.png"]
    assert "single colour" in problems["grey.png"]
    assert all(name in done.stderr for name in problems)
    assert {row["uid"] for row in rows(out / "groups.csv")} == {
        "höher/Aufnahme 3 äöü 超", "same again",
    }  # fmt: skip
    again = [f"--input={root}", f"--out={out}", f"--accepted={out / 'accepted_pairs.json'}"]
    again = in_process.run("mtbus_jax.curate", command.main, again)
    assert again.returncode == 0, again.stderr
    assert "decided by accepted_pairs.json" in again.stdout
    assert "A person decided" in (out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "case", ["one", "none", "flag", "folds", "two folds", "missing", "word", "outfile", "inside"]
)
def test_the_command_ends_on_bad_input_with_one_paragraph_and_exit_code_2(tmp_path, case):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    arguments = {"input": f"--input={root}", "out": f"--out={out}"}
    expected = {"one": "at least two", "none": "holds no image", "flag": "nonsense",
                "folds": "folds.csv", "two folds": "line 3: 'a' is in fold 1",
                "missing": "--input is missing", "word": "unexpected argument 'word'",
                "outfile": "is a file", "inside": "lies inside"}[case]  # fmt: skip
    if case != "none":
        Image.fromarray(phantoms()[0].image).save(root / "a.png")
    if case == "flag":
        arguments["extra"] = "--nonsense=3"
    if case == "folds":
        arguments["extra"] = f"--folds={tmp_path / 'folds.csv'}"
    if case == "two folds":
        (tmp_path / "folds.csv").write_text("uid,fold\na,0\na,1\n")
        arguments["extra"] = f"--folds={tmp_path / 'folds.csv'}"
    if case == "missing":
        del arguments["input"]
    if case == "word":
        arguments["extra"] = "word"
    if case == "inside":
        arguments["out"] = f"--out={root / 'curation'}"
    if case == "outfile":
        out.write_text("here already")
    done = in_process.run("mtbus_jax.curate", command.main, arguments.values())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and expected in " ".join(done.stderr.split())
    assert case != "two folds" or "reading" not in done.stderr  # said before the slow work
    assert "mtbus_jax.curate: " in " ".join(done.stderr.split())
    if case != "outfile":
        assert not out.exists() or list(out.iterdir()) == []


def test_the_columns_of_a_split_are_checked(tmp_path):
    known = ["benign_1", "benign_2", "normal_3"]
    path = tmp_path / "split.csv"
    path.write_text("class,id,fold\nbenign,1,2\nnormal,3,0\n", encoding="utf-8")
    folds = output.read_named(path, "folds", known, "fold")
    assert folds == {"benign_1": "2", "normal_3": "0"}
    path.write_text("uid;fold\nbenign_1;1,0\nbenign_2;0,0\n;\n", encoding="utf-8")
    folds = output.read_named(path, "folds", known, "fold")
    assert folds == {"benign_1": "1,0", "benign_2": "0,0"}
    path.write_text("uid\nbenign_1\n")
    assert output.read_named(path, "kept", known, None) == {"benign_1": ""}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("uid,part\nbenign_1,0\n", "uid and fold"),
        ("uid,fold\nbenign_12345,0\n", "benign_12345"),
        ("uid,fold\nbenign_1,0\nbenign_2\n", "line 3: the row of 'benign_2'"),
        ("uid,fold\nbenign_1,0\nbenign_2,\n", "line 3: the row of 'benign_2'"),
        ("uid,fold\nbenign_1,0,5\n", "line 2: the row of 'benign_1'"),
        ("uid,fold\nbenign_1,0\nbenign_2,0\nbenign_1,1\n", "line 4: 'benign_1' is in fold 1"),
        ("", "needs the columns"),
        ("\udcff", "not a table"),
    ],
)
def test_a_split_that_says_less_or_more_than_it_should_is_refused(tmp_path, text, complaint):
    path = tmp_path / "split.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=complaint):
        output.read_named(path, "folds", ["benign_1", "benign_2"], "fold")


def test_patients_are_audited_where_they_are_known(findings):
    archive = findings.archive
    entries = [
        folder.Entry(e.uid, e.path, e.label, f"P{k // 4}", e.masks)
        for k, e in enumerate(archive.entries)
    ]
    with_patients = pipeline.dataclasses.replace(
        findings, archive=pipeline.dataclasses.replace(archive, entries=entries)
    )
    folds = {uid: str(k // 4 % 2) for k, uid in enumerate(archive.uid)}
    result = output.audits(with_patients, folds)
    assert result["patients across folds"].clean
    folds[archive.uid[0]] = "1"
    assert output.audits(with_patients, folds)["patients across folds"].touched == 4


def test_a_folder_of_something_else_is_left_alone(findings, written, tmp_path):
    for name in ("summary.json", "report.md", "notes.txt"):
        (tmp_path / name).write_text("of a run")
    with pytest.raises(UserError, match=r"holds report.md, which no curation wrote"):
        output.write_all(findings, tmp_path)
    assert (tmp_path / "report.md").read_text() == "of a run"
    again = shutil.copytree(written, tmp_path / "again")
    (again / "plots" / "of_before.png").touch()
    output.write_all(findings, again)  # an earlier curation is replaced
    assert not (again / "plots" / "of_before.png").exists()


def test_accepted_images_that_are_not_there_are_refused_at_once(archive, tmp_path, monkeypatch):
    path = tmp_path / "pairs.csv"
    path.write_text("first,second\nbenign_1,nowhere\n")
    monkeypatch.setattr(pipeline, "curate", lambda *_: pytest.fail("the slow work has begun"))
    with pytest.raises(UserError, match=r"names .*, which the archive does not hold"):
        command.main([f"--input={archive[0]}", f"--out={tmp_path / 'out'}", f"--accepted={path}"])


def test_names_are_no_formulas_in_any_table(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for name in ("=a", "=b", "-c"):
        Image.fromarray(phantoms(1)[0].image).save(root / f"{name}.png")
    found = pipeline.curate(root)
    output.write_all(found, tmp_path / "out")
    for table in ("groups", "pairs", "ranking", "marks"):
        text = (tmp_path / "out" / f"{table}.csv").read_text()
        assert "'=a" in text and "\n=" not in text and ",=" not in text
    names = list(found.archive.uid)
    read = output.read_named(tmp_path / "out" / "groups.csv", "folds", names, "group")
    assert set(read) == set(names)
