"""The tables of a run from a hand-made ``cases.csv`` of two folds."""

import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from configs import base
from mtbus_jax import files, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate, summary
from mtbus_jax.metrics.meaning import meaning
from mtbus_jax.training import steps

HEADER = (
    "uid,fold,label,predicted,probability_benign,probability_malignant,probability_normal,"
    "predicted_pixels,dice,jaccard,hausdorff,recall,incoherent,"
    "refined_predicted,refined_dice,refined_jaccard,refined_hausdorff,refined_recall"
)
FOLD_0 = """\
b1,0,benign,benign,0.7,0.2,0.1,40,0.8,0.6,2.0,0.9,False,benign,0.8,0.6,2.0,0.9
b2,0,benign,malignant,0.3,0.6,0.1,40,0.6,0.5,4.0,0.7,False,malignant,0.6,0.5,4.0,0.7
m1,0,malignant,malignant,0.2,0.5,0.3,40,0.5,0.4,6.0,0.5,False,malignant,0.5,0.4,6.0,0.5
n1,0,normal,normal,0.1,0.1,0.8,9,0.0,0.0,,,True,normal,1.0,1.0,0.0,
"""
FOLD_1 = """\
b3,1,benign,benign,0.6,0.3,0.1,40,0.4,0.3,8.0,0.3,False,benign,0.4,0.3,8.0,0.3
m2,1,malignant,benign,0.5,0.4,0.1,0,0.0,0.0,,0.0,True,normal,0.0,0.0,,0.0
n2,1,normal,normal,0.1,0.2,0.7,0,1.0,1.0,0.0,,False,normal,1.0,1.0,0.0,
"""


def split_info(tables, leaking=(0, 0, 0, 0)):
    """Four folds, of which the first have the images of these tables as their test images."""
    test = [[line.partition(",")[0] for line in text.splitlines()] for text in tables]
    test += [[]] * (4 - len(test))
    return {
        "dataset": "curated_busi",
        "split": "published",
        "leaking_test_images": list(leaking),
        "folds": [{"train": [], "validation": ["v"], "test": uids} for uids in test],
    }


def write_run(folder, config, folds=(FOLD_0, FOLD_1), header=HEADER, **info):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "splits.json").write_text(json.dumps(split_info(folds, **info)))
    for number, text in enumerate(folds):
        (folder / f"fold_{number}").mkdir()
        (folder / f"fold_{number}" / "cases.csv").write_text(header + "\n" + text)


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path, base.get_config())
    return tmp_path


def figures_of(run, kind):
    return summary.write_summary(run)["results"][kind]["figures"]


def test_the_summary_states_the_configuration_hash(tmp_path):
    config = base.get_config()
    config.seed = 7
    write_run(tmp_path, config)
    # By `printf '{"seed":7}' | sha256sum`.
    assert summary.write_summary(tmp_path)["configuration"] == "beced1fe"
    assert "Configuration hash beced1fe." in (tmp_path / "summary.md").read_text()


def spread(one, other):
    """Mean and standard deviation (n − 1) of two numbers."""
    return pytest.approx((one + other) / 2), pytest.approx(abs(one - other) / math.sqrt(2))


def test_raw_figures_by_hand(run):
    found = figures_of(run, "raw")
    per_fold = {
        # name: fold 0, fold 1, images behind each
        "dsc_benign": (0.7, 0.4, [2, 1]),
        "dsc_malignant": (0.5, 0.0, [1, 1]),
        "dsc_normal": (0.0, 1.0, [1, 1]),
        "dsc_average": (1.9 / 4, 1.4 / 3, [4, 3]),  # over images, not over classes
        "jaccard": (1.5 / 4, 1.3 / 3, [4, 3]),
        "hausdorff": (4.0, 4.0, [3, 2]),  # undefined left out
        "recall": (2.1 / 3, 0.15, [3, 2]),  # the missed lesion counts 0
        "acc": (0.75, 2 / 3, [4, 3]),
        # Fold 0: 2TP/(2TP+FP+FN) = 2/3, 2/3, 1; fold 1: 2/3, 0, 1.
        "f1_benign": (2 / 3, 2 / 3, [4, 3]),
        "f1_malignant": (2 / 3, 0.0, [4, 3]),
        "f1_normal": (1.0, 1.0, [4, 3]),
        # Fold 0: one benign image is called malignant; fold 1: the malignant one benign.
        "sensitivity_benign": (0.5, 1.0, [4, 3]),
        "sensitivity_malignant": (1.0, 0.0, [4, 3]),
        "sensitivity_normal": (1.0, 1.0, [4, 3]),
        "specificity_benign": (1.0, 0.5, [4, 3]),
        "specificity_malignant": (2 / 3, 1.0, [4, 3]),
        "specificity_normal": (1.0, 1.0, [4, 3]),
        "precision_benign": (1.0, 0.5, [4, 3]),
        "precision_normal": (1.0, 1.0, [4, 3]),
        "f1_weighted": ((4 / 3 + 2 / 3 + 1) / 4, (2 / 3 + 0 + 1) / 3, [4, 3]),
        # Fold 0, malignant: .5 beats .2 and .1 and loses to .6. All other orders are right.
        "auc_benign": (1.0, 1.0, [4, 3]),
        "auc_malignant": (2 / 3, 1.0, [4, 3]),
        "auc_normal": (1.0, 1.0, [4, 3]),
        "incoherent_ratio": (0.25, 1 / 3, [4, 3]),
    }
    never_called = found.pop("precision_malignant")  # in fold 1
    assert (never_called["folds"], never_called["n"]) == ([0.5, None], [4, 0])
    assert (never_called["mean"], never_called["sd"]) == (0.5, None)
    assert set(found) == set(per_fold)
    for name, (one, other, n) in per_fold.items():
        figure = found[name]
        assert figure["folds"] == pytest.approx([one, other]), name
        assert (figure["mean"], figure["sd"]) == spread(one, other), name
        assert figure["n"] == n, name


def test_refined_figures_by_hand(run):
    found = figures_of(run, "refined")
    for name, one, other, n in [
        ("dsc_normal", 1.0, 1.0, [1, 1]),
        ("dsc_average", 2.9 / 4, 1.4 / 3, [4, 3]),
        ("hausdorff", 3.0, 4.0, [4, 2]),
        ("acc", 0.75, 2 / 3, [4, 3]),
        ("f1_normal", 1.0, 2 / 3, [4, 3]),
        ("f1_benign", 2 / 3, 1.0, [4, 3]),
    ]:
        assert found[name]["folds"] == pytest.approx([one, other]), name
        assert (found[name]["mean"], found[name]["sd"]) == spread(one, other), name
        assert found[name]["n"] == n, name
    # Refining moves neither probabilities nor what was incoherent before it.
    assert not [name for name in found if name.startswith(("auc", "incoherent"))]


def test_confusion_counts_are_pooled_and_percentages_of_the_true_class(run):
    result = summary.write_summary(run)
    assert result["confusion_counts"] == {
        "raw": [[2, 1, 0], [1, 1, 0], [0, 0, 2]],
        "refined": [[2, 1, 0], [0, 1, 1], [0, 0, 2]],
    }
    raw, refined = confusion_tables((run / "summary.md").read_text())
    assert raw == [
        ["benign", "66.7", "33.3", "0.0", "3"],
        ["malignant", "50.0", "50.0", "0.0", "2"],
        ["normal", "0.0", "0.0", "100.0", "2"],
    ]
    assert refined[1] == ["malignant", "0.0", "50.0", "50.0", "2"]


def tables(markdown):
    """The tables as lists of rows of cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", markdown, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]


def confusion_tables(markdown):
    return [table[2:] for table in tables(markdown)[1:]]


def assert_well_formed(markdown):
    assert len(tables(markdown)) > 0
    for table in tables(markdown):
        assert len({len(row) for row in table}) == 1, table
        assert all(re.fullmatch(r"-+:?", cell) for cell in table[1])
    # A table needs an empty line (or the file's start) before it.
    lines = markdown.splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith("|"):
            assert before == "" or before.startswith("|")
    assert markdown.endswith("\n")
    assert not re.search(r"\b(nan|None|inf)\b", markdown)


def test_general_facts(run):
    result = summary.write_summary(run)
    assert {k: result[k] for k in ("dataset", "model", "split", "folds", "folds_of_split")} == {
        "dataset": "curated_busi",
        "model": "unetpp",
        "split": "published",
        "folds": [0, 1],
        "folds_of_split": 4,
    }
    assert result["test_images"] == 7
    assert result["class_names"] == ["benign", "malignant", "normal"]
    assert json.loads((run / "summary.json").read_text()) == result


def test_the_figure_table(run):
    summary.write_summary(run)
    markdown = (run / "summary.md").read_text()
    assert_well_formed(markdown)
    header, _, *rows = tables(markdown)[0]
    assert header == [
        "",
        "raw",
        "refined (PR)",
        "images",
        "raw, ± with n",
        "published MT+DO",
        "refined, ± with n",
        "published MT+PR+DO",
    ]
    by_name = {row[0]: row[1:] for row in rows}
    # .475 and .4667; .725 and .4667; Table 5.
    assert by_name["DSC average"] == [
        "0.471 ± 0.006",
        "0.596 ± 0.183",
        "7",
        # Half the difference of the two folds.
        "0.471 ± 0.004",
        "0.742 ± 0.018",
        "0.596 ± 0.129",
        "0.751 ± 0.018",
    ]
    assert by_name["Hausdorff (px)"] == ["4.000 ± 0.000", "3.500 ± 0.707", "5 / 6", "", "", "", ""]
    assert by_name["AUC malignant"] == ["0.833 ± 0.236", "", "7", "", "", "", ""]
    assert by_name["F1 normal"][3:5] == ["", ""]
    assert by_name["F1 normal"][6] == "0.741 ± 0.060"


def test_published_figures_stand_beside(run):
    found = summary.write_summary(run)["results"]
    assert found["raw"]["published_setting"] == "MT+DO"
    assert found["refined"]["published_setting"] == "MT+PR+DO"
    assert found["raw"]["figures"]["acc"]["published"] == {"table": "5", "mean": 0.802, "sd": 0.027}
    assert found["raw"]["figures"]["f1_benign"]["published"] is None
    refined = found["refined"]["figures"]
    assert refined["acc"]["published"] == {"table": "5", "mean": 0.802, "sd": 0.018}


def test_a_published_figure_without_deviation(tmp_path):
    config = base.get_config()
    config.train.oversample = False
    write_run(tmp_path, config)
    figure = figures_of(tmp_path, "raw")["incoherent_ratio"]
    assert figure["published"] == {"table": "text", "mean": 0.109, "sd": None}
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    row = next(r for r in tables(markdown)[0] if r[0] == "Incoherent ratio")
    assert row[-3:] == ["0.109", "", ""]


def test_departures_are_written_and_folds_done_count_not_folds_asked_for(run):
    config = base.get_config()
    config.train.epochs = 7
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    departures = summary.write_summary(run)["departures_from_published_recipe"]
    assert sorted(departures) == [
        "data.folds = [0, 1] instead of [0, 1, 2, 3]",
        "train.epochs = 7 instead of 200",
    ]
    markdown = (run / "summary.md").read_text()
    assert "> **Not the published recipe:**" in markdown
    assert "train.epochs = 7 instead of 200" in markdown


@pytest.mark.parametrize(
    ("model", "weights", "stored", "words"),
    [
        ("acsnet", "weights/resnet18.pth", "weights/resnet18.pth", "weights/resnet18.pth."),
        ("acsnet", "", "", "random weights."),
        ("acsnet", None, "", "random weights."),
        ("lite_unet", "imagenet", "imagenet", "imagenet."),
        ("lite_unet", "", "", "random weights."),
    ],
)
def test_the_summary_says_where_an_encoder_started(tmp_path, model, weights, stored, words):
    config = base.get_config()
    config.model.name = model
    config.model.encoder_weights = weights
    write_run(tmp_path, config)
    assert summary.write_summary(tmp_path)["encoder_weights"] == stored
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    assert f"The encoder started from {words}" in markdown


def test_a_network_without_such_an_encoder_says_nothing_of_it(run):
    assert "encoder_weights" not in summary.write_summary(run)
    assert "encoder" not in (run / "summary.md").read_text()


def test_four_folds_of_the_recipe_carry_no_warning(tmp_path):
    # Only the last fold is configured, as after four calls of one fold each.
    config = base.get_config()
    config.data.folds = (3,)
    texts = [
        "".join(
            re.sub(r"^(\w+),\d,", rf"\g<1>,{number},", line, count=1)
            for line in text.splitlines(keepends=True)
        )
        for number, text in enumerate([FOLD_0, FOLD_1, FOLD_0, FOLD_1])
    ]
    write_run(tmp_path, config, folds=texts)
    result = summary.write_summary(tmp_path)
    assert result["folds"] == [0, 1, 2, 3]
    assert result["departures_from_published_recipe"] == []
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    assert ">" not in markdown


def test_no_published_figures(tmp_path):
    config = base.get_config()
    config.data.name = "phantom"
    write_run(tmp_path, config)
    assert summary.write_summary(tmp_path)["departures_from_published_recipe"] is None
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    assert "> No figures are published for this dataset." in markdown
    assert tables(markdown)[0][0] == ["", "raw", "refined (PR)", "images"]


def test_leaks_of_the_folds_done_are_counted_and_warned_of(tmp_path):
    write_run(tmp_path, base.get_config(), leaking=(2, 3, 40, 500))
    assert summary.write_summary(tmp_path)["leaking_test_images"] == 5
    markdown = (tmp_path / "summary.md").read_text()
    assert "> **Leak:** 5 of 7 test images" in markdown
    assert "--config.data.split=grouped" in markdown
    assert_well_formed(markdown)


def test_a_fold_of_which_no_class_is_known_has_figures_of_masks(tmp_path):
    unlabelled = re.sub(r",1,(benign|malignant|normal),", ",1,,", FOLD_1)
    write_run(tmp_path, base.get_config(), folds=(FOLD_0, unlabelled))
    assert figures_of(tmp_path, "raw")["acc"]["folds"] == [0.75, None]
    assert figures_of(tmp_path, "refined")["f1_weighted"]["n"] == [4, 0]
    assert figures_of(tmp_path, "raw")["dsc_average"]["n"] == [4, 3]
    write_run(tmp_path / "all", base.get_config(), folds=(unlabelled.replace(",1,,", ",0,,"),))
    assert figures_of(tmp_path / "all", "raw")["acc"]["mean"] is None
    assert_well_formed((tmp_path / "all" / "summary.md").read_text())


def test_no_leak_no_warning(run):
    assert summary.write_summary(run)["leaking_test_images"] == 0
    assert "Leak" not in (run / "summary.md").read_text()


def test_one_fold_has_no_standard_deviation(tmp_path):
    write_run(tmp_path, base.get_config(), folds=(FOLD_0,))
    figure = figures_of(tmp_path, "raw")["acc"]
    assert (figure["mean"], figure["sd"], figure["folds"]) == (0.75, None, [0.75])
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    assert "| Accuracy | 0.750 | 0.750 |" in markdown


def without(text, uid):
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(uid + ",")
    )


def test_a_figure_undefined_in_one_fold_is_the_mean_of_the_others(tmp_path):
    write_run(tmp_path, base.get_config(), folds=(FOLD_0, without(FOLD_1, "n2")))
    found = figures_of(tmp_path, "raw")
    assert found["dsc_normal"]["folds"] == [0.0, None]
    assert (found["dsc_normal"]["mean"], found["dsc_normal"]["sd"]) == (0.0, None)
    assert found["dsc_normal"]["n"] == [1, 0]
    assert found["f1_normal"]["folds"] == [1.0, None]
    assert found["auc_normal"]["folds"] == [1.0, None]
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert_well_formed((tmp_path / "summary.md").read_text())


def test_an_undefined_class_figure_stands_for_no_image(tmp_path):
    write_run(tmp_path, base.get_config(), folds=(FOLD_0, without(FOLD_1, "n2")))
    found = figures_of(tmp_path, "raw")
    assert found["f1_normal"]["n"] == [4, 0]
    assert found["auc_normal"]["n"] == [4, 0]


def test_a_figure_undefined_in_every_fold(tmp_path):
    folds = (without(FOLD_0, "n1"), without(FOLD_1, "n2"))
    write_run(tmp_path, base.get_config(), folds=folds)
    figure = figures_of(tmp_path, "raw")["dsc_normal"]
    assert (figure["mean"], figure["sd"], figure["n"]) == (None, None, [0, 0])
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    assert "| DSC normal | undefined | undefined | 0 |" in markdown
    assert confusion_tables(markdown)[0][2] == ["normal", "", "", "", "0"]


@pytest.mark.parametrize(
    ("tasks", "dropped", "kept", "setting"),
    [
        (("seg",), "predicted$|probability|incoherent|refined", "dsc_average", "ST(Seg)+DO"),
        (("cls",), "dice|jacc|haus|recall|pixels|incoherent|refined", "acc", "ST(Cls)+DO"),
    ],
)
def test_one_task(tmp_path, tasks, dropped, kept, setting):
    config = base.get_config()
    config.tasks = tasks
    write_run(tmp_path, config)
    for path in tmp_path.glob("fold_*/cases.csv"):
        rows = pd.read_csv(path)
        rows = rows[[column for column in rows if not re.search(dropped, column)]]
        path.write_text(rows.to_csv(index=False))
    result = summary.write_summary(tmp_path)
    assert list(result["results"]) == ["raw"]
    assert result["results"]["raw"]["published_setting"] == setting
    figures = result["results"]["raw"]["figures"]
    assert kept in figures
    assert ("acc" in figures) == (tasks == ("cls",))
    assert ("dsc_average" in figures) == (tasks == ("seg",))
    assert bool(result["confusion_counts"]) == (tasks == ("cls",))
    assert_well_formed((tmp_path / "summary.md").read_text())


def test_refining_switched_off_leaves_the_raw_figures(tmp_path):
    config = base.get_config()
    write_run(tmp_path, config)
    both = summary.write_summary(tmp_path)
    config.eval.refine = False
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    raw = summary.write_summary(tmp_path)
    assert list(raw["results"]) == ["raw"]
    assert raw["results"]["raw"] == both["results"]["raw"]


def test_a_uid_that_looks_like_a_missing_value_stays_a_word(tmp_path):
    write_run(tmp_path, base.get_config(), folds=(FOLD_0.replace("b1,", "NA,"),))
    assert summary.read_cases(tmp_path).uid.tolist() == ["NA", "b2", "m1", "n1"]


def test_a_numeric_uid_stays_a_word(tmp_path):
    write_run(tmp_path, base.get_config(), folds=(FOLD_0.replace("b1,", "007,"),))
    assert summary.read_cases(tmp_path).uid.tolist() == ["007", "b2", "m1", "n1"]


def test_a_folder_without_results_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        summary.write_summary(tmp_path)
    write_run(tmp_path, base.get_config(), folds=())
    with pytest.raises(UserError, match="no fold has been trained"):
        summary.write_summary(tmp_path)


def test_rows_as_the_evaluation_writes_them(tmp_path):
    # The real columns, with every metric; masks that hit, miss, and normal images.
    rng = np.random.default_rng(0)
    label = np.array([0, 0, 1, 1, 2, 2], np.int32)
    mask = np.zeros((6, 16, 32, 1), np.uint8)
    mask[:4, 4:9, 6:20] = 1
    cases = types.Cases(
        name="curated_busi",
        uid=np.array([f"case_{i}" for i in range(6)]),
        image=np.zeros_like(mask),
        mask=mask,
        label=label,
        original_size=np.full((6, 2), 16, np.int32),
        group=np.arange(6).astype(str),
        test_fold=np.zeros(6, np.int32),
    )
    probability = np.roll(mask, 2, axis=2).astype(np.float32) * 0.9
    probability[0] = 0
    probability[5, 3:5, 1:4] = 0.8
    predictions = steps.Predictions(probability, rng.normal(size=(6, 3)).astype(np.float32))
    rows = evaluate.case_rows(cases, predictions)
    write_run(tmp_path, base.get_config(), folds=())
    (tmp_path / "splits.json").write_text(json.dumps(split_info(["\n".join(cases.uid)] * 2)))
    for fold in range(2):
        part = rows.copy()
        part.insert(1, "fold", fold)
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "cases.csv").write_text(part.to_csv(index=False))
    result = summary.write_summary(tmp_path)
    figures = result["results"]["raw"]["figures"]
    # Images: missed 0; three shifted by 2 of 14 columns, 2·12/28; normal kept 1; normal hit 0.
    expected = (0 + 3 * 24 / 28 + 1 + 0) / 6
    assert figures["dsc_average"]["folds"] == pytest.approx([expected] * 2)
    assert figures["dsc_average"]["sd"] == pytest.approx(0)
    assert figures["hausdorff"]["n"] == [4, 4]
    assert not [name for name in figures if name.startswith("legacy")]
    markdown = (tmp_path / "summary.md").read_text()
    assert_well_formed(markdown)
    for name in figures:
        assert f"| {meaning(name).title} |" in markdown


def test_lists_in_the_json_survive_reading(run):
    result = summary.write_summary(run)
    assert files.read_json(run / "summary.json")["tasks"] == result["tasks"] == ["seg", "cls"]
