"""Texts of any letters in tables, Markdown and HTML come out as they went in, and do nothing."""

import csv
import html.parser
import io
import json

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from mtbus_jax import escaping, files

# Letters that mean something somewhere, more often than by chance.
TEXTS = st.text(
    st.sampled_from("=+-@\t\r\n\"',;|<>&\\`*[]#/!a1 \u2028\x85é中") | st.characters(codec="utf-8")
)
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


@given(TEXTS)
def test_cells_are_no_formulas_and_lose_nothing(text):
    cell = files.cell(text)
    assert not cell.startswith(FORMULAS)
    assert cell == text or (cell == f"'{text}" and text.startswith(FORMULAS))
    assert files.cell(cell) == cell


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=5))
def test_tables_come_back_as_they_were_written(rows):
    cells = [[files.cell(each) for each in row] for row in rows]
    text = "".join(map(files.csv_line, cells))
    assert list(csv.reader(io.StringIO(text, newline=""))) == cells
    frame = pd.read_csv(
        io.StringIO(text, newline=""), header=None, dtype=str, keep_default_na=False,
        skip_blank_lines=False, names=[0, 1],
    )  # fmt: skip
    assert frame.to_numpy().tolist() == cells


@given(st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans())
def test_numbers_stay_numbers(value):
    assert files.cell(value) is value


@given(st.lists(TEXTS, min_size=3, max_size=3), st.lists(TEXTS, min_size=3, max_size=3))
def test_markdown_tables_keep_their_form(header, row):
    """However the cells are called: as many lines as rows, as many cells as columns."""
    lines = escaping.markdown_table(header, [row])
    assert len("\n".join(lines).splitlines()) == len(lines) == 3
    for line in lines:
        bars = [i for i, letter in enumerate(line) if letter == "|" and _is_bare(line, i)]
        assert len(bars) == 4


def _is_bare(line, index):
    """Whether an even number of backslashes stands before a letter."""
    before = line[:index]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.data = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.data += data


@given(st.dictionaries(TEXTS, st.lists(TEXTS | st.integers(), max_size=3), max_size=3))
def test_data_in_a_page_stays_data(content):
    parser = _Tags()
    parser.feed(escaping.json_element("data", content) + "<p>")
    parser.close()
    assert parser.tags == ["script", "p"]
    assert json.loads(parser.data) == content


@given(TEXTS)
def test_markdown_opens_no_tag(text):
    shown = escaping.markdown(text)
    parser = _Tags()
    parser.feed(shown)
    parser.close()
    assert parser.tags == []
