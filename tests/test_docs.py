"""The pages of docs/: links, anchors, the index, and the commands that they show."""

import pathlib
import re
import shlex

import pytest

from mtbus_jax import cli, configuration

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, ROOT / "tfds_busi" / "README.md"]
# The module that is the same as a subcommand, where the names differ.
MODULES = {"mtbus_jax." + verb: verb for verb in cli.VERBS}


def text(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)


def anchors(page: pathlib.Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them; a second one alike ends in -1."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(text(page)), flags=re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def broken(page: pathlib.Path) -> list[str]:
    """Relative links of a page that lead to no file or to no heading."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text(page))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_or_anchor_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Über `a`: b, c\n\n# Twice\n\n# Twice\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#über-a-b-c) [b](other.md#twice-1) [c](#here)\n\n# Here\n")
    assert broken(page) == []
    page.write_text("[a](other.md#twice-2) [b](none.md) [c](#here)\n\n```\n# Here\n```\n")
    assert broken(page) == ["other.md#twice-2", "none.md", "#here"]


def test_the_index_lists_every_page():
    listed = re.findall(r"^\| \[[^\]]*\]\(([^)]*)\)", text(ROOT / "docs" / "README.md"), flags=re.M)
    pages = {page.name for page in DOCS} - {"README.md"}
    assert sorted(name for name in listed if "/" not in name) == sorted(pages)


def commands(page: pathlib.Path) -> list[list[str]]:
    """Subcommand and arguments of each whole command in a page's code blocks."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", text(page), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(r"^\s*#|…", line):
                continue
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "main.py"]:
                found.append(["train", *words[2:]])
            elif words[:1] == ["mtbus"]:
                found.append(words[1:])
            elif words[:2] == ["python", "-m"] and words[2] in MODULES:
                found.append([MODULES[words[2]], *words[3:]])
    return found


@pytest.fixture(scope="module")
def flags_of():
    """Subcommand → the flags that its help names."""
    known: dict[str, set[str]] = {}

    def look_up(verb: str, capsys) -> set[str]:
        if verb not in known:
            with pytest.raises(SystemExit):
                cli.main([verb, "--help"])
            known[verb] = set(re.findall(r"--\w+", capsys.readouterr().out))
        return known[verb]

    return look_up


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_subcommands_flags_and_fields_that_exist(page, flags_of, capsys):
    for verb, *arguments in commands(page):
        assert verb in cli.VERBS, verb
        given, rest = configuration.take(arguments)
        if given.file and given.file != "CONFIG":
            configuration.read(given)
        flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
        # The two doors to a comparison: a subcommand, and a flag of the report's module.
        unknown = flags - flags_of(verb, capsys) - {"--compare"}
        assert not unknown, (verb, unknown)


def test_there_are_commands_to_check():
    assert {verb for page in PAGES for verb, *_ in commands(page)} >= {
        "train", "predict", "serve", "report", "compare", "ensemble", "export", "check", "curate",
        "reproduce", "bundle",
    }  # fmt: skip


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_overrides_named_in_a_sentence_parse(page):
    named = set(re.findall(r"`(--config\.[a-z][\w.]*=[^`…\s]+)`", text(page)))
    words = [shlex.split(override)[0] for override in sorted(named)]
    for word in words:
        given, rest = configuration.take(["--config=base", word])
        assert not rest
        configuration.read(given)
