"""Names that would do something else than be shown."""

import html.parser
import json

import pytest

from mtbus_jax.escaping import Markdown, json_element, markdown, markdown_table

HOSTILE = [
    "<!--<script>.png",
    "</script><script>alert(1)</script>",
    "![x](http://example.org/p.png)",
    "[a](javascript:alert(1))",
    "a|b",
    "a\nb\r\nc\u2028d",
    "**bold** `code` \\n",
    "&lt;b&gt; & c",
    "]]>",
]


class Reader(html.parser.HTMLParser):
    """Tags in order, and the text within the first script element."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.tags == ["script"]:
            self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_json_comes_back_as_it_was_and_opens_nothing(text):
    page = json_element("data", {text: [text, 1.5, None]}) + "<p>after</p>"
    read = Reader(page)
    assert read.tags == ["script", "p"]
    assert json.loads(read.text.removesuffix("after")) == {text: [text, 1.5, None]}
    assert "<!--" not in page


def test_nan_is_no_json():
    with pytest.raises(ValueError):
        json_element("data", float("nan"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell_of_one_line(text):
    lines = markdown_table(["name", "n"], [[text, 3]])
    assert len(lines) == 3 and all("\n" not in line for line in lines)
    unescaped = lines[2].replace("\\\\", "").replace("\\|", "")
    assert unescaped.count("|") == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bus_0001-l", "bus_0001-l"),
        ("p < 0.001", "p < 0.001"),
        ("a <b>", "a &lt;b>"),
        ("![x](y)", "!\\[x\\](y)"),
        ("*a* `b` \\", "\\*a\\* \\`b\\` \\\\"),
        ("A&B &amp;", "A&B &amp;amp;"),
        (0.5, "0.5"),
        (Markdown("*published*"), "*published*"),
    ],
)
def test_what_is_escaped_and_what_is_not(text, shown):
    assert markdown(text) == shown


def test_columns_of_numbers_are_aligned_to_the_right():
    lines = markdown_table(["a", "b", "c"], [["x", "y", 1]], labels=2)
    assert lines == ["| a | b | c |", "| --- | --- | ---: |", "| x | y | 1 |"]
