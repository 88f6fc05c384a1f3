"""The page of `mtbus export --web` without a browser: runtime, text, policy, refusals."""

import base64
import gzip
import hashlib
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib import resources

import numpy as np
import pytest
import tiny
import web_pages

from mtbus_jax import augment
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.export import command, to_onnx, web
from mtbus_jax.export.web import card_text, contents, page, runtime
from mtbus_jax.training import trained_folds

CODE, WASM = b"export const code = 1;", b"\0asm and more"


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """A small stand-in for the npm package, with the digests to match; returns its archive."""
    archive = tmp_path / "made" / runtime.ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        for name, content in ((runtime.CODE, CODE), (runtime.WASM, WASM), ("other.js", b"")):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    names = {runtime.ARCHIVE: archive.read_bytes(), runtime.CODE: CODE, runtime.WASM: WASM}
    digests = {
        name: base64.b64encode(hashlib.sha512(content).digest()).decode("ascii")
        for name, content in names.items()
    }
    monkeypatch.setattr(runtime, "INTEGRITY", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return archive


def make_npm(tmp_path, script):
    program = tmp_path / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


# The runtime.


def test_an_archive_and_its_folders_are_taken(pinned, tmp_path):
    wanted = runtime.Runtime(CODE, WASM)
    assert runtime.load(pinned) == wanted
    shutil.unpack_archive(pinned, tmp_path / "unpacked", "gztar")
    for folder in ("", "package", "package/dist"):
        assert runtime.load(tmp_path / "unpacked" / folder) == wanted
    assert not (tmp_path / "cache").exists()


def test_npm_fetches_once_and_the_cache_keeps(pinned, tmp_path):
    npm = make_npm(tmp_path, f'echo "$@" >> "{tmp_path}/asked"; cp "{pinned}" .')
    for _ in range(2):
        assert runtime.load(npm=npm) == runtime.Runtime(CODE, WASM)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["pack onnxruntime-web@1.30.0 --ignore-scripts --silent"]
    assert runtime.load(npm="no-such-npm") == runtime.Runtime(CODE, WASM)
    # What has been damaged there is fetched again.
    kept = tmp_path / "cache" / "mtbus_jax" / "onnxruntime-web-1.30.0" / runtime.WASM
    kept.write_bytes(b"damaged")
    assert runtime.load(npm=npm) == runtime.Runtime(CODE, WASM)
    assert kept.read_bytes() == WASM
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


def test_bytes_that_were_not_tested_are_refused(pinned, tmp_path):
    shutil.unpack_archive(pinned, tmp_path / "unpacked", "gztar")
    (tmp_path / "unpacked" / "package" / "dist" / runtime.CODE).write_bytes(CODE + b" ")
    with pytest.raises(UserError, match=r"ort\.wasm\.bundle\.min\.mjs is damaged or of another"):
        runtime.load(tmp_path / "unpacked")
    other = tmp_path / "other.tgz"
    other.write_bytes(pinned.read_bytes() + b"\0")
    npm = make_npm(tmp_path, f'cp "{other}" {runtime.ARCHIVE}')
    with pytest.raises(UserError, match=r"onnxruntime-web-1\.30\.0\.tgz is damaged"):
        runtime.load(npm=npm)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no archive")],
    ids=["empty", "text", "gzip of a text"],
)
def test_no_archive(pinned, tmp_path, content):
    path = tmp_path / "some.tgz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as onnxruntime-web"):
        runtime.load(path)
    with pytest.raises(UserError, match="neither onnxruntime-web"):
        runtime.load(tmp_path / "nowhere")


def test_without_npm_both_ways_out_are_told(pinned):
    with pytest.raises(UserError) as raised:
        runtime.load(npm="no-such-npm")
    for words in ("there is no npm on the PATH", "Install Node.js", "--runtime=FILE"):
        assert words in str(raised.value)


def test_an_npm_that_fails_is_quoted(pinned, tmp_path):
    npm = make_npm(tmp_path, "echo 'npm error network' >&2; exit 1")
    with pytest.raises(UserError, match=r"npm could not fetch .*\(npm error network\)"):
        runtime.load(npm=npm)


@pytest.mark.long  # asks the registry
def test_the_digests_are_those_of_the_package(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("NOT TESTED against npm: there is no npm on the PATH")
    asked = [shutil.which("npm"), "view", f"{runtime.PACKAGE}@{runtime.VERSION}", "dist.integrity"]
    environment = os.environ | {"npm_config_cache": str(tmp_path)}
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, env=environment)
    if done.returncode:
        pytest.skip("NOT TESTED against npm: the registry cannot be reached")
    assert done.stdout.strip() == f"sha512-{runtime.INTEGRITY[runtime.ARCHIVE]}"


# The text.

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)> & "quoted" {{data}}'


class Elements(html.parser.HTMLParser):
    """Counts elements and keeps their text."""

    def __init__(self, text):
        super().__init__()
        self.counts, self.texts, self.inside = {}, {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.inside.append((tag, dict(attrs).get("id")))

    def handle_data(self, data):
        if self.inside:
            key = self.inside[-1]
            self.texts[key] = self.texts.get(key, "") + data


def test_hostile_names_stay_text(tmp_path):
    harmless = Elements(web_pages.bare_page(tmp_path / "a.html", "").read_text("utf-8"))
    path = web_pages.bare_page(
        tmp_path / "b.html",
        card_text.to_html([f"## {HOSTILE}", "", f"- {HOSTILE}", "", f"| {HOSTILE} |", "| --- |"]),
        name=HOSTILE,
        classNames=[HOSTILE, "b", "c"],
    )
    found = Elements(path.read_text("utf-8"))
    for tag in ("script", "img"):
        assert found.counts.get(tag, 0) == harmless.counts.get(tag, 0)
    facts = json.loads(found.texts["script", "facts"])
    assert facts["name"] == facts["classNames"][0] == HOSTILE
    assert found.texts["title", None].startswith(HOSTILE)


def test_a_card_becomes_headings_lists_and_tables():
    lines = ["## Data", "", "a **bold** `code`", "", "- one", "- two", "", "| x | y |",
             "| --- | ---: |", "| 1 | 2 |", ""]  # fmt: skip
    text = card_text.to_html(lines)
    assert text.splitlines()[:3] == [
        "<h4>Data</h4>",
        "<p>a <strong>bold</strong> <code>code</code></p>",
        "<ul><li>one</li><li>two</li></ul>",
    ]
    assert '<th scope="row">1</th><td>2</td>' in text
    assert "---" not in text


def test_a_block_of_code_keeps_its_lines_and_escapes_them():
    text = card_text.to_html(["```", "mtbus a <b> `c`", "mtbus d", "```", "", "end"])
    assert text == "<pre>mtbus a &lt;b&gt; `c`\nmtbus d</pre>\n<p>end</p>"


def test_the_policy_names_every_script_and_nothing_from_elsewhere(tmp_path):
    text = web_pages.bare_page(tmp_path / "page.html").read_text("utf-8")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert directives["default-src"] == directives["connect-src"] == "'none'"
    allowed = set(directives["script-src"].split()) - {"blob:", "'wasm-unsafe-eval'"}
    codes = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digests = {
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
        for code in codes
    }
    assert allowed == digests
    assert len(codes) == len(page.SCRIPTS)
    assert not re.findall(r"(?:src|href)=[\"']?(?!data:|#)\w", text)


def test_every_script_is_in_the_page_and_short_enough_to_read():
    folder = resources.files("mtbus_jax.export.web") / "assets"
    scripts = [path for path in folder.iterdir() if path.name.endswith(".js")]
    assert {path.name for path in scripts} == set(page.SCRIPTS)
    for path in scripts:
        assert len(path.read_text("utf-8").splitlines()) <= 350, path.name


def test_planes_are_bytes_of_even_then_odd_places():
    assert page.planes(bytes(range(7))) == bytes([0, 2, 4, 6, 1, 3, 5])


def test_facts_are_what_predict_goes_by():
    config = tiny.make_config()
    config.eval.tta = True
    members = tuple(trained_folds.Member(fold, {}) for fold in (1, 2))
    trained = trained_folds.Trained(config, tiny.TinyNet(), members)
    logistic = trust.Logistic(0.5, (1.0,) * 5)
    presence = trust.Presence(trust.Logistic(0.1, (1.0, 2.0)), 0.8)
    fitted = {k: trust.FoldTrust(1.5, 0.2, presence, logistic, logistic, 0.3, 9) for k in range(3)}
    facts = json.loads(json.dumps(contents.facts_of(trained, fitted)))
    versions = augment.symmetries(config.train, *config.data.image_size)
    assert facts["versions"] == list(versions)
    assert len(versions) > 1
    assert facts["imageSize"] == [tiny.HEIGHT, tiny.WIDTH]
    assert facts["members"] == [{"fold": 1}, {"fold": 2}]
    assert facts["trust"].keys() == {"1", "2"}
    assert facts["trust"]["2"]["presence"] == [[0.1, [1.0, 2.0]], 0.8]
    assert facts["normal"] == 2
    assert facts["enhancement"] == "none"
    config.eval.tta = False
    facts = contents.facts_of(trained, {1: fitted[1]})
    assert facts["versions"] == [0]
    assert facts["trust"] is None  # fold 2 is not in it


# Weights in 16 bits.


def test_integers_are_scaled_by_channel():
    rng = np.random.default_rng(0)
    scale = np.array([1e-3, 1.0, 300.0], np.float32)
    values = rng.normal(size=(40, 5, 3)).astype(np.float32) * scale
    integers, scales = to_onnx._integers(values, 2)
    assert integers.dtype == np.int16
    largest = np.abs(values).max(axis=(0, 1), keepdims=True)
    assert np.abs(integers * scales - values).max(axis=(0, 1)) == pytest.approx(
        largest[0, 0] / 65534, rel=0.05
    )
    # The other axis mixes large and small channels, which takes most digits from the small ones.
    mixed, mixed_scales = to_onnx._integers(values, 0)
    assert np.log(mixed_scales).mean() > np.log(scales).mean() + 1
    error = np.abs(mixed * mixed_scales - values)[..., 0].max()
    assert error > 100 * np.abs(integers * scales - values)[..., 0].max()


def test_a_channel_of_zeros_stays_zero():
    integers, scales = to_onnx._integers(np.zeros((4, 6), np.float32), 0)
    assert not (integers * scales).any()


# Refusals.


@pytest.mark.parametrize("out", ["page", "page.txt", "folder.html", "nowhere/page.html"])
def test_only_a_file_called_html_is_written(tmp_path, out):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match=r"give a file NAME\.html"):
        web.export_page(tmp_path / "run", tmp_path / out)


def test_weights_are_of_a_kind_that_is_known(tmp_path):
    with pytest.raises(UserError, match="int16 or float32"):
        web.export_page(tmp_path, tmp_path / "page.html", weights="float16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--web", "--formats=onnx"], "--formats goes without --web"),
        (["--weights=float32"], "--weights goes with --web"),
        (["--runtime=x.tgz"], "--runtime goes with --web"),
        (["--web"], "NAME.html"),
        (["--web", "--weights=half"], "invalid choice"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, arguments, words):
    with pytest.raises(UserError, match=re.escape(words)):
        command.main([f"--run={tmp_path}", f"--out={tmp_path}/out", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_without_a_converter_nothing_is_fetched_or_written(pinned, tmp_path):
    with pytest.raises(UserError, match="cannot be started"):
        web.export_page(
            tmp_path,
            tmp_path / "page.html",
            onnx_python=str(tmp_path / "python"),
            runtime_from=None,
        )
    assert not (tmp_path / "page.html").exists()
    assert not (tmp_path / "cache").exists()


def test_importing_the_page_needs_no_more_than_the_library():
    program = "import sys, mtbus_jax.export.web; sys.exit('playwright' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=os.getcwd(), capture_output=True)
    assert done.returncode == 0, done.stderr
