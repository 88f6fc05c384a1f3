"""Tables as files: what stands in them, and that it can be read back."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest

from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.metrics.statistics import Comparison
from mtbus_jax.reproduce import write
from mtbus_jax.reproduce.facts import Facts
from mtbus_jax.reproduce.layout import Content
from mtbus_jax.reproduce.results import RowResult, Statistic
from mtbus_jax.reproduce.rows import TABLES, Row, Section, Table, TableRun

NAN = math.nan
SEG = TableRun("curated_busi", "unetpp", ("seg",))
MT = TableRun("curated_busi", "unetpp", oversample=True)
METRICS = ("dsc_benign", "dsc_average", "hausdorff", "acc")


def make_content(*, missing=(), scale="", warnings=(), comparisons=(), confusion=False):
    seg = RowResult(
        Row("ST(Seg)", "ST(Seg)", SEG, None),
        cases=None,
        figures={
            "dsc_benign": Statistic(0.71239, 0.0451, 4, 222),
            "dsc_average": Statistic(0.65, NAN, 1, 450),
            "hausdorff": Statistic(9.5, 1.25, 4, 386),
        },
    )
    label = np.array(["benign"] * 3 + ["malignant"] * 2)
    predicted = np.array(["benign", "benign", "normal", "malignant", "benign"])
    frame = pd.DataFrame({"label": label, "refined_predicted": predicted})
    mt = RowResult(
        Row("MT+PR+DO", "MT+PR+DO", MT, MT, True),
        tuple(missing),
        None if missing else frame,
        {}
        if missing
        else {
            "dsc_benign": Statistic(NAN, NAN, 0, 0),
            "dsc_average": Statistic(0.75, 0.02, 4, 450),
            "hausdorff": Statistic(8, 1, 4, 400),
            "acc": Statistic(0.8, 0.01, 4, 450),
        },
    )
    sections = [(Section("", METRICS, (seg.row, mt.row)), [seg, mt])]
    if confusion:
        sections.append((Section("UNet++ & more", (), (mt.row,), True), [mt]))
    facts = Facts(
        scale=scale,
        departures=("train.epochs = 3 instead of 200",) if scale else (),
        split="published",
        folds=(0, 1, 2, 3),
        leaks={"curated_busi": (9, 450)},
        hardware=("gpu: NVIDIA H200; 16 CPU cores; Python 3.11, JAX 0.10.2",),
        runs=(SEG.name, MT.name),
        command="python -m mtbus_jax.reproduce --table=5",
    )
    table = Table(5, "ablation of 100 % of_it", tuple(s for s, _ in sections), "A note.")
    return Content(table, sections, list(comparisons), facts)


def markdown_tables(text):
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M)
    return [
        [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        for block in blocks
    ]


def test_markdown_rows_ours_above_the_published():
    (table,) = markdown_tables(write.to_markdown(make_content()))
    heading, marks, *rows = table
    assert heading == ["", "DSC benign", "DSC average", "Hausdorff (px)", "Accuracy"]
    assert marks == ["---", "---:", "---:", "---:", "---:"]
    assert rows == [
        ["ST(Seg)", "0.712 ± 0.045", "0.650", "9.500 ± 1.250 (n = 386)", "—"],
        # 0.045 · √(3/4), of four folds.
        ["± with n", "0.712 ± 0.039", "0.650", "", ""],
        ["*published*", "0.799 ± 0.036", "0.661 ± 0.017", "", ""],
        ["MT+PR+DO", "undefined", "0.750 ± 0.020", "8.000 ± 1.000 (n = 400)", "0.800 ± 0.010"],
        ["± with n", "undefined", "0.750 ± 0.017", "", "0.800 ± 0.009"],
        ["*published*", "0.773 ± 0.050", "0.751 ± 0.018", "", "0.802 ± 0.018"],
    ]


def test_markdown_says_what_a_reader_must_know():
    text = write.to_markdown(make_content(scale="3 of 200 epochs: not the published recipe"))
    assert text.startswith(
        "# Table 5: ablation of 100 % of_it (3 of 200 epochs: not the published recipe)\n"
    )
    assert "Published split, folds 0, 1, 2, 3." in text
    assert "\nA note.\n" in text
    assert "> **Not the published recipe**" in text and "train.epochs = 3 instead of 200" in text
    assert "> **Leak:** 9 of 450" in text
    assert "python -m mtbus_jax.reproduce --table=5" in text
    assert f"- `{MT.name}`" in text
    assert "Trained on gpu: NVIDIA H200" in text
    assert "No two rows to compare." in text
    assert text.rstrip().endswith("Research software, not a medical device.")
    assert "108540" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_without_departures_the_title_is_the_tables():
    assert write.to_markdown(make_content()).startswith("# Table 5: ablation of 100 % of_it\n")


def test_a_missing_row_is_marked_and_its_jobs_named():
    text = write.to_markdown(make_content(missing=["run, fold 1"], confusion=True))
    figures, confusion = markdown_tables(text)
    assert figures[5] == ["MT+PR+DO", *["missing"] * 4]
    assert figures[6][0] == "*published*"
    assert confusion[2] == ["MT+PR+DO", "benign", *["missing"] * 3, ""]
    assert "> **Missing:** run, fold 1." in text


def test_confusion_in_percent_of_the_true_class():
    text = write.to_markdown(make_content(confusion=True))
    assert "\n## UNet++ & more\n" in text
    _, confusion = markdown_tables(text)
    assert confusion[2:] == [
        ["MT+PR+DO", "benign", "66.7", "0.0", "33.3", "3"],
        ["MT+PR+DO", "malignant", "50.0", "50.0", "0.0", "2"],
        ["MT+PR+DO", "normal", "—", "—", "—", "0"],
    ]


COMPARISONS = [
    (
        "",
        Comparison("MT+PR+DO", "MT", "dice", 450, 0.7123, 0.7, -0.004, 0.03, 0.2, 0.0004, 0.0012),
    ),
    (
        "UNet++",
        Comparison("MT+PR+DO", "MT", "correct", 449, 0.7, 0.72, -0.05, 0.01, -0.1, 0.04, 0.08),
    ),
]


def test_significance():
    text = write.to_markdown(make_content(comparisons=COMPARISONS))
    rows = markdown_tables(text)[-1][2:]
    assert rows == [
        ["MT+PR+DO − MT", "Dice", "450", "+0.012", "-0.004 to +0.030", "+0.200", "< 0.001",
         "0.001"],
        ["UNet++: MT+PR+DO − MT", "correct class", "449", "-0.020", "-0.050 to +0.010", "-0.100",
         "0.040", "0.080"],
    ]  # fmt: skip
    assert "for the 2 comparisons of this table by Holm's method" in text


def read_csv(text):
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def test_csv_reads_back():
    table = read_csv(write.to_csv(make_content(confusion=True)))
    figures = table.set_index(["row", "metric"])
    assert len(table) == 3 + 4 + 9
    one = figures.loc[("ST(Seg)", "dsc_benign")]
    assert (one["mean"], one.sd, one.folds, one.images) == (0.71239, 0.0451, 4, 222)
    assert (one.published_mean, one.published_sd) == (0.799, 0.036)
    assert (one.dataset, one.model, one.setting, one.table) == (
        "curated_busi", "unetpp", "ST(Seg)", 5,
    )  # fmt: skip
    assert math.isnan(figures.loc[("ST(Seg)", "dsc_average")].sd)
    assert math.isnan(figures.loc[("MT+PR+DO", "dsc_benign")]["mean"])
    assert ("ST(Seg)", "acc") not in figures.index
    cell = figures.loc[("MT+PR+DO", "percent_benign_as_normal")]
    assert cell["mean"] == pytest.approx(100 / 3)
    assert (cell.images, cell.section) == (3, "UNet++ & more")
    assert math.isnan(figures.loc[("MT+PR+DO", "percent_normal_as_normal")]["mean"])


def test_csv_of_a_missing_row_keeps_its_lines_and_the_published_figures():
    table = read_csv(write.to_csv(make_content(missing=["job"]))).set_index(["row", "metric"])
    line = table.loc[("MT+PR+DO", "acc")]
    assert math.isnan(line["mean"])
    assert line.published_mean == 0.802


def test_significance_csv_reads_back():
    table = read_csv(write.significance_csv(make_content(comparisons=COMPARISONS)))
    assert table.p_holm.tolist() == [0.0012, 0.08]
    assert table.row.tolist() == ["MT", "MT"]
    assert table.reference.tolist() == ["MT+PR+DO"] * 2
    assert table.measure.tolist() == ["dice", "correct"]
    assert table.difference.tolist() == pytest.approx([0.0123, -0.02])
    empty = read_csv(write.significance_csv(make_content()))
    assert empty.columns.tolist() == table.columns.tolist()
    assert len(empty) == 0


def tabulars(text):
    """Column specification and lines of cells of every tabular."""
    found = []
    pattern = r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}"
    for columns, body in re.findall(pattern, text, flags=re.S):
        lines = [line for line in body.splitlines() if line.endswith(" \\\\")]
        cells = [re.split(r"(?<!\\)&", line.removesuffix(" \\\\")) for line in lines]
        found.append((columns, [[cell.strip() for cell in row] for row in cells]))
    return found


def assert_latex_is_sound(text):
    text.encode("ascii")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\\\|\\[&%$#_{}]", "", code)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare and "#" not in bare
    begun = re.findall(r"\\begin\{(\S+?)\}", code)
    assert sorted(begun) == sorted(re.findall(r"\\end\{(\S+?)\}", code))
    for columns, rows in tabulars(text):
        assert {len(row) for row in rows} == {len(columns)}
        assert "_" not in re.sub(r"\\_", "", str(rows))
    for rule in ("toprule", "midrule", "bottomrule"):
        assert code.count(f"\\{rule}") == len(tabulars(text))


def test_latex():
    text = write.to_latex(make_content(scale="64×64 pixels", confusion=True))
    assert_latex_is_sound(text)
    assert "ablation of 100 \\% of\\_it (64$\\times$64 pixels)" in text
    assert "\\textbf{UNet++ \\& more}" in text
    figures, confusion = tabulars(text)
    assert figures[0] == "lrrrr"
    assert figures[1][1] == [
        "ST(Seg)", "0.712 $\\pm$ 0.045", "0.650", "9.500 $\\pm$ 1.250 (n = 386)", "---",
    ]  # fmt: skip
    assert figures[1][2][:2] == ["$\\pm$ with n", "0.712 $\\pm$ 0.039"]
    assert figures[1][3][:2] == ["\\textit{published}", "\\textit{0.799 $\\pm$ 0.036}"]
    assert confusion[0] == "llrrrr"
    assert confusion[1][1] == ["MT+PR+DO", "benign", "66.7", "0.0", "33.3", "3"]


def test_every_table_can_be_written(tmp_path):
    """With all rows missing, which is what a first --no_train gives."""
    for number, table in TABLES.items():
        sections = [(s, [RowResult(row, ("job",)) for row in s.rows]) for s in table.sections]
        content = Content(table, sections, [], make_content().facts)
        paths = write.write_table(content, tmp_path / "new")
        assert [path.name for path in paths] == [
            f"table_{number}{end}" for end in (".md", ".csv", ".tex", "_significance.csv")
        ]
        assert_latex_is_sound(paths[2].read_text())
        for rows in markdown_tables(paths[0].read_text()):
            assert len({len(row) for row in rows}) == 1
        lines = sum(len(section.metrics) * len(section.rows) for section in table.sections)
        assert len(read_csv(paths[1].read_text())) == lines
    assert not list((tmp_path / "new").glob("*.partial"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write.write_table(make_content(), tmp_path / "file")


def test_class_names_are_those_of_the_library():
    text = write.to_markdown(make_content(confusion=True))
    for name in types.CLASS_NAMES:
        assert f"as {name} (%)" in text
