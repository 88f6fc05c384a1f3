"""Runs side by side, against scipy and by hand."""

import dataclasses
import html
import shutil

import numpy as np
import pandas as pd
import pytest
import report_runs
from scipy import stats

from mtbus_jax import files
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.metrics import statistics
from mtbus_jax.report import command, compare, compare_page
from mtbus_jax.report import run as report_run
from mtbus_jax.report import write as report_write


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs on the same images: two of both tasks, one that segments."""
    root = tmp_path_factory.mktemp("runs")
    report_runs.write_run(root / "one", seed=0)
    report_runs.write_run(root / "two", seed=1)
    report_runs.write_run(root / "seg", seed=2, tasks=("seg",))
    change_rows(root / "two", worsen)
    return root


def worsen(rows):
    """A third of the lesions found half as well, a sixth of the classes wrong."""
    place = np.arange(len(rows))
    rows["refined_dice"] = np.where(place % 3 == 0, rows.refined_dice / 2, rows.refined_dice)
    other = {"benign": "malignant", "malignant": "benign", "normal": "benign"}
    wrong = place % 6 == 0
    rows["refined_predicted"] = np.where(wrong, rows.label.map(other), rows.refined_predicted)


def change_rows(workdir, change):
    for path in workdir.glob("fold_*/cases.csv"):
        rows = pd.read_csv(path)
        change(rows)
        rows.to_csv(path, index=False)
    report_runs.fit_splits(workdir)
    summary.write_summary(workdir)


def rows_of(workdir):
    paths = sorted(workdir.glob("fold_*/cases.csv"))
    return pd.concat([pd.read_csv(path) for path in paths]).set_index("uid")


def copy_of(runs, tmp_path, name="two"):
    return shutil.copytree(runs / name, tmp_path / name)


def test_a_run_that_does_not_refine_is_compared_by_what_it_says(runs, tmp_path):
    raw = copy_of(runs, tmp_path, "one")
    config = files.read_json(raw / "config.json", {})
    config["eval"]["refine"] = False
    files.write_json(raw / "config.json", config)
    summary.write_summary(raw)
    read = report_run.read(raw)
    assert not read.refines
    rows = rows_of(raw).loc[read.rows.uid]
    assert read.rows.final_dice.tolist() == rows.dice.tolist() != rows.refined_dice.tolist()
    assert read.rows.final_predicted.tolist() == rows.predicted.tolist()
    found = next(
        each
        for each in compare.compare([runs / "one", raw]).tests
        if each.measure == statistics.DICE
    )
    assert found.mean_a == pytest.approx(rows.refined_dice.mean())
    assert found.mean_b == pytest.approx(rows.dice.mean()) != found.mean_a
    page = report_write.write_report(raw, report_runs.make_cases()).read_text(encoding="utf-8")
    assert "Corrected by refining" not in page


def test_tests_are_those_of_scipy_over_common_images(runs):
    found = compare.compare([runs / "one", runs / "two"])
    assert found.names == ["one", "two"] and not found.warnings
    one, two = rows_of(runs / "one"), rows_of(runs / "two")
    two = two.loc[one.index]
    dice, correct = found.tests
    assert (dice.measure, correct.measure) == (statistics.DICE, statistics.CORRECT)
    expected = stats.wilcoxon(one.refined_dice - two.refined_dice, zero_method="pratt")
    assert dice.p_value == pytest.approx(expected.pvalue)
    assert dice.difference == pytest.approx((one.refined_dice - two.refined_dice).mean())
    assert dice.low < dice.difference < dice.high
    assert dice.effect > 0 and dice.images == len(one) == 64
    right_one, right_two = (r.refined_predicted == r.label for r in (one, two))
    only = (right_one & ~right_two).sum(), (right_two & ~right_one).sum()
    expected = stats.binomtest(int(only[0]), int(sum(only)), 0.5).pvalue
    assert correct.p_value == pytest.approx(expected)
    assert correct.effect == pytest.approx(only[0] / sum(only) - 0.5)
    assert (correct.mean_a, correct.mean_b) == pytest.approx((right_one.mean(), right_two.mean()))
    # Two tests: the smaller p-value counts twice (Holm).
    low, high = sorted([dice.p_value, correct.p_value])
    expected = {low: min(1, 2 * low), high: min(1, max(high, 2 * low))}
    assert [t.p_holm for t in found.tests] == pytest.approx(
        [expected[t.p_value] for t in found.tests]
    )
    interval = statistics.bootstrap_mean_difference(
        one.refined_dice.to_numpy(), two.refined_dice.to_numpy(), strata=one.fold.to_numpy()
    )
    assert (dice.low, dice.high) == interval


def test_every_pair_is_tested_by_what_both_have(runs):
    found = compare.compare([runs / "one", runs / "two", runs / "seg"])
    pairs = [(t.a, t.b, t.measure) for t in found.tests]
    assert pairs == [
        ("one", "two", statistics.DICE),
        ("one", "two", statistics.CORRECT),
        ("one", "seg", statistics.DICE),
        ("two", "seg", statistics.DICE),
    ]
    raw, refined = rows_of(runs / "seg").dice, rows_of(runs / "one").refined_dice
    assert found.tests[2].mean_b == pytest.approx(raw.mean())
    assert found.tests[2].mean_a == pytest.approx(refined.mean())


def test_images_that_differ_most_by_hand(runs):
    found = compare.compare([runs / "one", runs / "two"])
    rows = found.changed["one", "two"]
    change = rows_of(runs / "one").refined_dice - rows_of(runs / "two").refined_dice
    assert rows.change.abs().is_monotonic_decreasing and len(rows) == 8
    assert rows.change.abs().iloc[0] == pytest.approx(change.abs().max())
    for row in rows.itertuples():
        assert row.change == pytest.approx(change[row.uid]) == pytest.approx(row.a - row.b)
        assert rows_of(runs / "one").label[row.uid] == row.label


def test_a_run_against_its_copy_differs_in_nothing(runs, tmp_path):
    copy_of(runs, tmp_path, "one")
    found = compare.compare([runs / "one", tmp_path / "one"])
    assert found.names == [str(runs / "one"), str(tmp_path / "one")]  # alike but for the path
    for test in found.tests:
        assert (test.difference, test.p_value, test.p_holm, test.effect) == (0, 1, 1, 0)
        assert (test.low, test.high) == (0, 0)
    assert found.changed[tuple(found.names)].empty
    assert "differ" in compare_page.document(found)


def test_images_without_a_class_are_compared_by_their_masks(runs, tmp_path):
    def forget(rows):
        rows.loc[::4, "label"] = None

    folders = [copy_of(runs, tmp_path, name) for name in ("one", "two")]
    for folder in folders:
        change_rows(folder, forget)
    compared = compare.compare(folders)
    assert "" in compared.changed["one", "two"].label.tolist()
    assert "most" in compare_page.document(compared)
    dice, correct = compared.tests
    assert (dice.images, correct.images) == (64, 48)
    one, two = (rows_of(folder) for folder in folders)
    known = one.label.notna()
    right = (one.refined_predicted == one.label)[known]
    assert correct.mean_a == pytest.approx(right.mean())
    assert dice.mean_b == pytest.approx(two.refined_dice.mean())


def test_other_images_are_named_by_number(runs, tmp_path):
    smaller = copy_of(runs, tmp_path)
    for path in smaller.glob("fold_*/cases.csv"):
        pd.read_csv(path).iloc[5:].to_csv(path, index=False)
    report_runs.fit_splits(smaller)
    summary.write_summary(smaller)
    found = compare.compare([runs / "one", smaller])
    assert found.warnings == [
        "one and two have 54 test images in common, of 64 and 54: the tests are over these, the "
        "means of each run over all of its own."
    ]
    assert {test.images for test in found.tests} == {54}


def test_another_split_is_said(runs, tmp_path):
    other = copy_of(runs, tmp_path)
    paths = sorted(other.glob("fold_*/cases.csv"))
    tables = [pd.read_csv(path) for path in paths]
    moved = [pd.concat([tables[0][4:], tables[1][:3]]), pd.concat([tables[1][3:], tables[0][:4]])]
    for number, (path, rows) in enumerate(zip(paths, moved, strict=True)):
        rows.assign(fold=number).to_csv(path, index=False)
    report_runs.fit_splits(other)
    summary.write_summary(other)
    (warning,) = compare.compare([runs / "one", other]).warnings
    assert "different splits: 7 of 64 common images are tested in another fold" in warning


def test_sizes_and_leaks_are_said(runs, tmp_path):
    other = copy_of(runs, tmp_path)
    content = files.read_json(other / "summary.json")
    content |= {"image_size": [32, 64], "leaking_test_images": 9}
    files.write_json(other / "summary.json", content)
    sizes, leak = compare.compare([runs / "one", other]).warnings
    assert "one 16 × 32, two 32 × 64 pixels" in sizes
    assert leak.startswith("two: 9 of 64 test images share")


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="at least two"):
        compare.compare([runs / "one"])
    with pytest.raises(UserError, match="given twice"):
        compare.compare([runs / "one", runs / "two" / ".." / "one"])
    other = copy_of(runs, tmp_path)
    content = files.read_json(other / "summary.json")
    files.write_json(other / "summary.json", content | {"dataset": "bus_uclm"})
    with pytest.raises(UserError, match=r"different datasets.*on curated_busi.*on bus_uclm"):
        compare.compare([runs / "one", other])
    files.write_json(other / "summary.json", content)
    first = rows_of(other).index[0]

    def rename_class(rows):
        rows.loc[rows.uid == first, "label"] = "normal"

    change_rows(other, rename_class)
    with pytest.raises(UserError, match=f"{first} has two classes"):
        compare.compare([runs / "one", other])

    def rename(rows):
        rows["uid"] = "other_" + rows.uid

    change_rows(other, rename)
    (other / "trust.csv").unlink()
    with pytest.raises(UserError, match="no test image in common"):
        compare.compare([runs / "one", other])


def test_figures_are_side_by_side(runs):
    found = compare.compare([runs / "one", runs / "seg"])
    text = compare_page.to_markdown(found)
    page = html.unescape(compare_page.document(found))
    for name in ("one", "seg"):
        results = files.read_json(runs / name / "summary.json")["results"]
        for result in results.values():
            figure = result["figures"]["dsc_average"]
            shown = f"{figure['mean']:.3f} ± {figure['sd']:.3f}"
            assert shown in text and shown in page
    one = files.read_json(runs / "one" / "summary.json")
    count = sum(one["results"]["raw"]["figures"]["hausdorff"]["n"])
    assert count < one["test_images"]  # undefined where one of two masks is empty
    assert f"({count} images)" in text and f"({count} images)" in page
    assert "| figure | one | seg |" in text
    assert "| Accuracy | " in text
    assert "not two methods" in text and "not two methods" in page
    assert "Research software, not a medical device" in text
    for test in found.tests:
        assert f"{test.difference:+.3f}".replace("-", "−") in text
    assert "['seg', 'cls']" in page  # the field of the configuration that differs


def test_names_cannot_become_markup(runs, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>|b"
    shutil.copytree(runs / "two", hostile)
    found = compare.compare([runs / "one", hostile])
    assert "<img" not in compare_page.document(found)
    text = compare_page.to_markdown(found)
    assert "<img" not in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if "| ---" in line}
    header = next(line for line in text.splitlines() if line.startswith("| figure"))
    assert header.replace("\\|", "").count("|") in columns


def test_the_command_prints_and_writes(runs, tmp_path, capsys):
    out = tmp_path / "side_by_side.html"
    command.main(["--compare", str(runs / "one"), str(runs / "two"), f"--out={out}"])
    printed = capsys.readouterr().out
    assert printed.startswith("# Comparison of 2 runs on curated_busi")
    assert str(out) in printed
    assert "<script" not in out.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        command.main(
            ["--compare", str(runs / "one"), str(runs / "two"), f"--out={tmp_path}/no/such/a.html"]
        )


def test_runs_without_a_task_in_common_have_nothing_to_test(runs, tmp_path):
    cases = dataclasses.replace(report_runs.make_cases())
    report_runs.write_run(tmp_path / "cls", cases, tasks=("cls",))
    found = compare.compare([runs / "seg", tmp_path / "cls"])
    assert not found.tests and not found.changed
    assert "nothing to test" in compare_page.document(found)
    assert "Paired tests" not in compare_page.to_markdown(found)
