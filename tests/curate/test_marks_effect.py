"""Figures with and without marks, by hand."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from mtbus_jax.curate import marks_effect
from mtbus_jax.errors import UserError

CASES = pd.DataFrame(
    {
        "uid": ["a", "b", "c", "d", "e"],
        "label": ["benign", "benign", "benign", "benign", "normal"],
        "dice": [0.9, 0.7, 0.4, 0.2, 1.0],
        "predicted": ["benign", "benign", "normal", "benign", "benign"],
    }
)
MARKED = {"a": True, "b": True, "c": False, "d": False, "e": False}


def test_means_counts_and_p_by_hand():
    table = marks_effect.compare(CASES, MARKED).set_index(["class", "measure"])
    dice = table.loc[("benign", "Dice")]
    assert (dice.marked, dice.unmarked) == pytest.approx((0.8, 0.3))
    assert (dice.marked_n, dice.unmarked_n) == (2, 2)
    # Exact: of the 6 ways to rank 2 of 4 images, the two extreme ones are this far apart.
    assert dice.p == pytest.approx(2 / 6)
    accuracy = table.loc[("benign", "accuracy")]
    assert (accuracy.marked, accuracy.unmarked) == (1.0, 0.5)
    assert accuracy.p == pytest.approx(1.0)
    normal = table.loc[("normal", "accuracy")]
    assert (normal.marked_n, normal.unmarked_n, normal.unmarked) == (0, 1, 0.0)
    assert math.isnan(normal.p)


def test_the_command_reads_both_files(tmp_path):
    (tmp_path / "fold_0").mkdir()
    CASES.to_csv(tmp_path / "fold_0" / "cases.csv", index=False)
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "uid,class,calipers,text,colour\na,benign,2,0,0.0\nb,benign,0,3,0.0\nc,benign,0,0,0.0\n"
        "d,benign,0,0,0.0\ne,normal,0,0,0.0\n"
    )
    command = [sys.executable, "-m", "mtbus_jax.curate.marks_effect", f"--marks={marks}"]
    done = subprocess.run([*command, f"--run={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| benign | Dice | 0.800 (2) | 0.300 (2) | 0.333 |" in done.stdout
    done = subprocess.run([*command, f"--run={marks.parent / 'x'}"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04\xff\xfe", b"uid,calipers,text,colour\na,two,0,0.0\n"]
)
def test_what_is_no_table_of_marks_is_refused(tmp_path, content):
    (tmp_path / "marks.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"marks\.csv cannot be read"):
        marks_effect.read_marked(tmp_path / "marks.csv")


def test_another_archive_is_refused():
    with pytest.raises(UserError, match="'e'"):
        marks_effect.compare(CASES, {k: v for k, v in MARKED.items() if k != "e"})
