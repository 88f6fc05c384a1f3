"""The documents state what the kept tables of test images give."""

import json
import pathlib
import re
import sys

import numpy as np
import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import keep_results  # noqa: E402

# By column of the first table of docs/results.md, the ends of the names of folders of results/.
COLUMNS = {2: "seed1993", 3: "seed1994", 4: "seed1995", 5: "mean_of_three"}
SETTINGS = {
    "best": ("`best`", "Curated BUSI, published"),
    "best_grouped": ("`best`", "Curated BUSI, grouped"),
    "best_bus_uclm": ("`best_bus_uclm`", "BUS-UCLM, published"),
    "best_bus_uclm_grouped": ("`best_bus_uclm`", "BUS-UCLM, grouped"),
}
# By folder of results/: recipe or run, folds, and the column with its figures.
ROWS = {
    f"{start}{more}_{end}": (f"{recipe}{words}", folds, column)
    for start, (recipe, folds) in SETTINGS.items()
    for more, words in (("", ""), ("_with_validation", ", with validation images"))
    for column, end in COLUMNS.items()
} | {
    "best_with_validation": (
        "`best`, with validation images, other processor",
        "Curated BUSI, published",
        3,
    ),
    "best_grouped": ("`best`, other processor", "Curated BUSI, grouped", 3),
    "best_bus_uclm_grouped": ("`best_bus_uclm`, other processor", "BUS-UCLM, grouped", 3),
    "mt_unetpp_fold_0": ("`mt_unetpp`", "Curated BUSI, published fold 0", 3),
}


def overview():
    """Cells of the first two tables of docs/results.md, by recipe or run, and dataset and folds."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("How to read")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| [")]
    names = [re.match(r"\[(.*?)\]", cells[0])[1] for cells in lines]
    return {(name, cells[1]): cells for name, cells in zip(names, lines, strict=True)}


def test_every_kept_run_has_its_row():
    folders = {path.parent.name for path in (ROOT / "results").glob("*/cases.csv")}
    assert folders == set(ROWS)
    assert all((ROOT / "results" / name / "config.json").exists() for name in folders)


def test_the_list_of_kept_runs_states_configuration_and_commit():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    listed = {}
    for names, _, hashes, commit in rows:
        for name, code in zip(names.split(", "), hashes.split(", "), strict=True):
            listed[name.strip("`")] = code.strip("`"), commit
    commits = {folder: overview()[row[:2]][-1] for folder, row in ROWS.items()}
    assert listed == {
        folder: (keep_results.configuration(ROOT / "results" / folder), commits[folder])
        for folder in ROWS
    }


def test_the_check_prints_the_configuration_hash(monkeypatch, capsys):
    folder = ROOT / "results" / "best_seed1993"
    monkeypatch.setattr(sys, "argv", ["keep_results.py", "--check", str(folder)])
    keep_results.main()
    # As docs/run_folder.md states it.
    assert capsys.readouterr().out.splitlines()[0] == "configuration: b5d99677"


@pytest.mark.parametrize("folder", ROWS)
def test_the_overview_states_what_the_table_gives(folder):
    found = keep_results.figures(ROOT / "results" / folder / "cases.csv", "refined_")
    *row, column = ROWS[folder]
    stated = overview()[tuple(row)][column].split(", ")
    for row, text in zip(("dsc", "acc"), stated, strict=True):
        mean, *std = map(float, text.split(" ± "))
        # Tables keep four digits of each image's Dice.
        assert mean == pytest.approx(found.loc[row, "mean"], abs=5.1e-4)
        if std:
            assert std == [pytest.approx(found.loc[row, "std"], abs=5.1e-4)]
        else:  # of a single fold
            assert np.isnan(found.loc[row, "std"])


def of_all_images(folder):
    """Shares of wrong answers, by class or Dice below 0.5, and of wrong classes, over all folds."""
    rows = pd.read_csv(ROOT / "results" / folder / "cases.csv")
    wrong_class = rows.refined_predicted != rows.label
    return (wrong_class | (rows.refined_dice < 0.5)).mean(), wrong_class.mean()


@pytest.mark.parametrize("kind", ["best", "best_grouped", "best_bus_uclm", "best_bus_uclm_grouped"])
def test_wrong_answers_are_those_of_the_tables(kind):
    runs = [f"{kind}_seed{seed}" for seed in (1993, 1994, 1995)] + [f"{kind}_mean_of_three"]
    shares = [of_all_images(run) for run in runs]
    for name, column in (("wrong answers", 0), ("wrong classes", 1)):
        text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
        lines = re.findall(rf"^\| {name}, all / without 20 % \| (.*?) \|\s*\|?$", text, re.M)
        stated = [[float(cell.split(" / ")[0]) for cell in line.split(" | ")[:4]] for line in lines]
        assert [round(share[column], 3) for share in shares] in stated


def test_the_document_on_trust_states_the_same_runs():
    text = " ".join((ROOT / "docs" / "trust.md").read_text(encoding="utf-8").split())
    for kind, columns in (
        ("best", (0, 1)),
        ("best_grouped", (0, 1)),
        ("best_bus_uclm", (0,)),
        ("best_bus_uclm_grouped", (0,)),
    ):
        shares = [of_all_images(f"{kind}_seed{seed}") for seed in (1993, 1994, 1995)]
        for column in columns:
            each = [share[column] for share in shares]
            ends = f"{min(each):.3f}", f"{max(each):.3f}"
            assert " to ".join(ends) in text or "–".join(ends) in text, (kind, column)


def test_the_table_of_the_other_dataset_is_that_of_the_kept_tests():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    kept = [ROOT / "results" / "across" / f"on_bus_uclm{end}" for end in ("", "_matched")]
    for matched, folder in enumerate(kept):
        settings = json.loads((folder / "test.json").read_text())
        assert (settings["dataset"], settings["intensity_matched"]) == ("bus_uclm", bool(matched))
        found = keep_results.figures(folder / "cases.csv", "refined_")
        for name, row in (("DSC average", "dsc"), ("Accuracy", "acc")):
            cell = r"(\S+) \(\S+ to \S+\)"
            stated = re.search(rf"^\| {name} \| {cell} \| {cell} \| 683 \|$", text, re.M)
            assert float(stated[1 + matched]) == pytest.approx(found.loc[row, "mean"], abs=5.1e-4)


def test_kept_figures_are_means_of_folds(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(
        "uid,fold,label,predicted,dice,refined_predicted,refined_dice\n"
        "a,0,benign,benign,0.5,normal,0\nb,0,normal,normal,1,normal,1\n"
        "c,1,benign,malignant,0.25,malignant,0.25\n"
    )
    raw, refined = keep_results.figures(path), keep_results.figures(path, "refined_")
    assert raw.loc["dsc", "mean"] == pytest.approx((0.75 + 0.25) / 2)
    assert raw.loc["acc", "mean"] == 0.5
    assert raw.loc["dsc", "std"] == pytest.approx(0.5 / 2**0.5)
    assert refined.loc["dsc", "mean"] == pytest.approx((0.5 + 0.25) / 2)
    assert refined.loc["acc", "mean"] == 0.25


def test_a_run_is_kept_without_the_places_of_its_files(tmp_path):
    run = tmp_path / "run"
    (run / "fold_0").mkdir(parents=True)
    row = dict.fromkeys(keep_results.COLUMNS, "0.25") | {"uid": "a", "fold": "0", "label": "benign"}
    row |= {"predicted": "normal", "refined_predicted": "normal", "hausdorff": "3"}
    pd.DataFrame([row]).to_csv(run / "fold_0" / "cases.csv", index=False)
    data = {"name": "phantom", "manual_dir": "/home/someone", "cache_dir": "/tmp/cache"}
    (run / "config.json").write_text(json.dumps({"data": data}))
    keep_results.keep(run, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "config.json").read_text()) == {
        "data": {"name": "phantom"}
    }
    kept = pd.read_csv(tmp_path / "kept" / "cases.csv", keep_default_na=False)
    assert kept.columns.tolist() == keep_results.COLUMNS
    assert kept.refined_predicted.tolist() == ["normal"]


def test_a_test_on_other_data_is_kept_with_its_groups_and_settings(tmp_path, monkeypatch, capsys):
    run = tmp_path / "on_other"
    run.mkdir()
    (run / "cases.csv").write_text(
        "uid,group,label,predicted,probability_benign,probability_malignant,probability_normal,"
        "dice,refined_predicted,refined_dice,hausdorff\n"
        "a,p1,benign,benign,0.7,0.2,0.1,0.5,normal,0,3\n"
        "b,p1,normal,normal,0.1,0.1,0.8,1,normal,1,\n"
    )
    settings = dict.fromkeys(keep_results.SETTINGS, "x") | {"dataset": "other"}
    (run / "summary.json").write_text(json.dumps(settings | {"images": 2}))
    keep_results.keep(run, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "test.json").read_text()) == settings
    kept = pd.read_csv(tmp_path / "kept" / "cases.csv", keep_default_na=False)
    assert kept.group.tolist() == ["p1", "p1"]
    assert "fold" not in kept and "hausdorff" not in kept
    monkeypatch.setattr(sys, "argv", ["keep_results.py", "--check", str(tmp_path / "kept")])
    keep_results.main()
    assert capsys.readouterr().out == "raw: dsc 0.750, acc 1.000\nrefined: dsc 0.500, acc 0.500\n"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no fold has been tested"):
        keep_results.keep(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
