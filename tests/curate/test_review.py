"""The review sheet in a real browser: it shows, ticks and saves what the tool reads back."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mtbus_jax.curate import folder, groups, pipeline, review
from mtbus_jax.curate.geometry import Geometry

NASTY = "</script><b>&\"'超.png"


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    root = tmp_path_factory.mktemp("sheet")
    rng = np.random.default_rng(0)
    entries = []
    for k, (uid, label) in enumerate(
        (("benign_1", "benign"), ("malignant_2", "malignant"), (NASTY, ""), ("d", "benign"))
    ):
        path, mask = root / f"{k}.png", root / f"{k}_mask.png"
        Image.fromarray(rng.integers(0, 255, (60, 90)).astype(np.uint8)).save(path)
        drawn = np.zeros((60, 90), bool)
        drawn[20:40, 30:60] = k == 0
        Image.fromarray(drawn).save(mask)
        entries.append(folder.Entry(uid, path, label, "", (mask,)))
    n = len(entries)
    archive = pipeline.Archive(
        entries, np.zeros((n, 8, 8), np.uint8), np.zeros((n, 8, 8), bool), np.ones(n, bool),
        [], [], [], [],
    )  # fmt: skip
    pairs = [
        groups.Pair(0, 1, 0.9, 5.0, Geometry(0.95, 1.0)),
        groups.Pair(0, 2, 0.4, 5.0, Geometry(0.8, 0.9, mirrored=True)),
        groups.Pair(2, 3, 0.2, 5.0, Geometry(0.0, 0.9)),
    ]
    accepted = pairs[:2]
    findings = pipeline.Findings(
        archive, None, pairs, accepted, groups.form_groups(n, accepted), "automatic rule",
        pipeline.Options(),
    )  # fmt: skip
    path = root / "review.html"
    review.write_review(findings, path)
    return path, findings


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    program = program or shutil.which("google-chrome")
    if program is None:
        pytest.skip("NOT TESTED in a browser: no chromium on this machine")
    return program


def show(chromium, page, script, tmp_path):
    """The page's document after a script ran in it."""
    path = tmp_path / "page.html"
    # The script runs after the page's own; what it wants to tell, it puts into an element.
    text = page.read_text(encoding="utf-8").replace(
        "</body>", f'<pre id="told"></pre><script>{script}</script></body>'
    )
    path.write_text(text, encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user",
        "--virtual-time-budget=4000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)[1]
    return done.stdout, html.unescape(told)


TELL = "const tell = value => { document.getElementById('told').textContent = value; };"
CATCH = (
    "URL.createObjectURL = blob => { blob.text().then(tell); return '#'; };"
    "document.addEventListener('click', event => {"
    " if (event.target.tagName === 'A') event.preventDefault(); }, true);"
)


def test_the_sheet_needs_nothing_from_outside(sheet):
    text = sheet[0].read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert text.count("</script>") == 2  # a name cannot end the data early


def test_it_shows_the_pairs_highest_ssim_first(sheet, chromium, tmp_path):
    document, told = show(
        chromium, sheet[0],
        TELL + "tell(JSON.stringify([...document.querySelectorAll('article')].map(a => ["
        "[...a.querySelectorAll('figcaption span:first-child')].map(s => s.textContent),"
        "a.querySelector('input').checked, a.className, a.querySelectorAll('img').length])));",
        tmp_path,
    )  # fmt: skip
    assert json.loads(told) == [
        [["benign_1", "malignant_2"], True, "accepted conflict", 3],
        [["benign_1", NASTY], True, "accepted", 3],
        [[NASTY, "d"], False, "", 2],
    ]
    assert "2 of 3 pairs ticked" in document and "mirrored" in document


def test_ticks_are_saved_in_the_form_that_the_tool_reads(sheet, chromium, tmp_path):
    path, findings = sheet
    _, told = show(
        chromium, path,
        TELL + CATCH + "const boxes = [...document.querySelectorAll('article input')];"
        "boxes[0].click(); boxes[2].click(); document.getElementById('save').click();",
        tmp_path,
    )  # fmt: skip
    saved = tmp_path / "accepted_pairs.json"
    saved.write_text(told, encoding="utf-8")
    assert review.read_accepted(saved) == [("benign_1", NASTY), (NASTY, "d")]
    assert json.loads(told)["archive"] == review.fingerprint(findings.archive.uid)


def test_views_search_and_keys(sheet, chromium, tmp_path):
    _, told = show(
        chromium, sheet[0],
        TELL + """
        const pick = (id, value, kind) => { const e = document.getElementById(id); e.value = value;
          e.dispatchEvent(new Event(kind)); return document.querySelectorAll('article').length; };
        const seen = [pick('show', 'open', 'change'), pick('show', 'conflict', 'change'),
          pick('show', 'differs', 'change'), pick('show', 'all', 'change'),
          pick('find', 'MALIGNANT', 'input'), pick('find', '', 'input')];
        document.getElementById('clear').click();
        seen.push(document.querySelectorAll('article.accepted').length);
        for (const key of ['j', 'j', ' ']) document.activeElement.dispatchEvent(
          new KeyboardEvent('keydown', {key, bubbles: true}));
        seen.push([...document.querySelectorAll('article input')].map(box => box.checked));
        document.getElementById('rule').click();
        seen.push(document.querySelectorAll('article.accepted').length);
        tell(JSON.stringify(seen));""",
        tmp_path,
    )  # fmt: skip
    assert json.loads(told) == [1, 1, 0, 3, 1, 3, 0, [False, True, False], 2]
