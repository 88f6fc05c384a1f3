"""Tables as spreadsheets save them."""

import pytest

from mtbus_jax.errors import UserError
from mtbus_jax.files import cell, parse_table


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_encodings_and_line_ends(separator, encoding, end):
    lines = ["uid;fold", "Zürich 超;0", ";", " b ; 1 "]
    text = end.join(lines).replace(";", separator)
    columns, rows = parse_table(text.encode(encoding), "a.csv")
    assert columns == ["uid", "fold"]
    assert [row.cells for row in rows] == [
        {"uid": "Zürich 超", "fold": "0"}, {"uid": "b", "fold": "1"}
    ]  # fmt: skip
    assert [row.line for row in rows] == [2, 4]
    assert all(row.complete for row in rows)


def test_rows_that_are_too_short_or_too_long():
    _, rows = parse_table(b"uid,fold\na\nb,1,\nc,1,5\nd,\n", "a.csv")
    assert [row.complete for row in rows] == [False, True, False, True]
    assert rows[0].cells == {"uid": "a", "fold": ""}


def test_quotation_marks_hold_separators_and_line_ends():
    _, rows = parse_table(b'uid,fold\n"a,b","1\n2"\nc,3\n', "a.csv")
    assert [(row.line, *row.cells.values()) for row in rows] == [
        (3, "a,b", "1\n2"), (4, "c", "3")
    ]  # fmt: skip


def test_nothing_in_it():
    assert parse_table(b"", "a.csv") == parse_table(b"\n;;\n", "a.csv") == ([], [])


def test_no_text():
    with pytest.raises(UserError, match=r"a\.csv is not a table in UTF-8 or UTF-16"):
        parse_table(b"uid\n\xff\xfa", "a.csv")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_text_is_no_formula_to_a_spreadsheet(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, -0.5, "", "a=1", "b-1", None, "'x"])
def test_everything_else_stays_as_it_is(value):
    assert cell(value) is value
