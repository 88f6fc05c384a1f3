"""From run folders to rows: figures by hand; two single-task runs joined as if they were one."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from configs import base
from mtbus_jax import types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate, stored_predictions
from mtbus_jax.metrics import segmentation
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.facts import gather
from mtbus_jax.reproduce.plan import Scale, Study
from mtbus_jax.reproduce.results import join, row_result
from mtbus_jax.reproduce.rows import TABLES, Row, TableRun
from mtbus_jax.training import steps

HEIGHT, WIDTH = 6, 9
SEG, CLS = (TableRun("curated_busi", "unetpp", (task,)) for task in ("seg", "cls"))
MT = TableRun("curated_busi", "unetpp")


def make_cases(count=60, *, seed=0):
    """Images with truths of every kind: none, some, all of the frame."""
    rng = np.random.default_rng(seed)
    mask = rng.random((count, HEIGHT, WIDTH, 1)) < rng.choice([0.0, 0.3, 1.0], (count, 1, 1, 1))
    return types.Cases(
        name="curated_busi",
        uid=np.array([f"case_{i:02}" for i in range(count)]),
        image=np.zeros(mask.shape, np.uint8),
        mask=mask.astype(np.uint8),
        label=rng.integers(0, 3, count).astype(np.int32),
        original_size=np.full((count, 2), 9, np.int32),
        group=np.arange(count).astype(str),
        test_fold=(np.arange(count) % 2).astype(np.int32),
    )


def make_predictions(count=60, *, seed=1):
    """Probabilities of masks of which a third are empty, and class logits."""
    rng = np.random.default_rng(seed)
    level = rng.choice([0.4, 0.8, 1.0], (count, 1, 1, 1))
    probability = (rng.random((count, HEIGHT, WIDTH, 1)) * level).astype(np.float32)
    return steps.Predictions(probability, rng.normal(size=(count, 3)).astype(np.float32))


def rows_of(cases, predictions):
    rows = evaluate.case_rows(cases, predictions)
    rows.insert(1, "fold", cases.test_fold)
    return rows


def through_a_file(rows, tmp_path):
    folder = tmp_path / "some" / "fold_0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.csv").write_text(rows.to_csv(index=False))
    return evaluate.read_cases(folder.parent)


def test_joined_rows_are_those_of_one_network_with_both_outputs(tmp_path):
    cases, both = make_cases(), make_predictions()
    seg = through_a_file(rows_of(cases, both._replace(class_logits=None)), tmp_path)
    cls = through_a_file(rows_of(cases, both._replace(probability=None)), tmp_path)
    shuffled = cls.sample(frac=1, random_state=0)
    found = join(seg, shuffled, image_size=(HEIGHT, WIDTH))
    expected = through_a_file(rows_of(cases, both), tmp_path)
    # The case is not trivial: masks are emptied over every kind of truth, classes become normal.
    emptied = (expected.predicted == "normal") & (expected.predicted_pixels > 0)
    for pixels in (0, HEIGHT * WIDTH):
        assert (emptied & (expected.true_pixels == pixels)).any()
    assert (expected.refined_predicted != expected.predicted).any()
    assert set(found.columns) == set(expected.columns)
    for column in expected:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(found[column], expected[column], rtol=1e-12, err_msg=column)
        else:
            assert found[column].tolist() == expected[column].tolist(), column


@pytest.mark.parametrize("change", ["fewer", "other", "fold", "label"])
def test_runs_on_different_images_are_not_joined(change):
    cases, both = make_cases(), make_predictions()
    seg = rows_of(cases, both._replace(class_logits=None))
    cls = rows_of(cases, both._replace(probability=None))
    if change == "fewer":
        cls = cls.iloc[:-1]
    elif change == "other":
        cls.loc[3, "uid"] = "stranger"
    elif change == "fold":
        cls.loc[3, "fold"] = 1 - cls.loc[3, "fold"]
    else:
        cls.loc[3, "label"] = "normal" if cls.loc[3, "label"] != "normal" else "benign"
    with pytest.raises(UserError, match=r"60 and (59|60), of which 59 are the same"):
        join(seg, cls, image_size=(HEIGHT, WIDTH))


def make_study(tmp_path, folds=(0, 1)):
    return Study(tmp_path, base.get_config(), scale=Scale(image_size=(HEIGHT, WIDTH), folds=folds))


def write_run(study, run, predictions, folds=(0, 1)):
    """A run folder as jobs leave it, without checkpoints."""
    cases = make_cases()
    if run.tasks == ("seg",):
        predictions = predictions._replace(class_logits=None)
    elif run.tasks == ("cls",):
        predictions = predictions._replace(probability=None)
    rows = rows_of(cases, predictions)
    for job in study.jobs((run,)):
        if job.fold not in folds:
            continue
        folder = study.directory(run) / f"fold_{job.fold}"
        folder.mkdir(parents=True)
        (folder / "cases.csv").write_text(rows[rows.fold == job.fold].to_csv(index=False))
        for name in stored_predictions.NAMES.values():
            (folder / name).write_bytes(b"")
        jobs_lib._write(job, jobs_lib.Record("finished", 1, 0, 200, 50))


def test_figures_of_a_row_by_hand(tmp_path):
    study = make_study(tmp_path)
    write_run(study, MT, make_predictions())
    result = row_result(study, Row("MT+PR", "MT+PR", MT, MT, True))
    raw = row_result(study, Row("MT", "MT", MT, MT))
    rows = pd.concat(
        pd.read_csv(study.directory(MT) / f"fold_{fold}" / "cases.csv") for fold in (0, 1)
    )
    for found, prefix in ((result, "refined_"), (raw, "")):
        dice = rows.groupby("fold")[f"{prefix}dice"].mean()
        assert found.figures["dsc_average"].mean == pytest.approx(dice.mean())
        assert found.figures["dsc_average"].sd == pytest.approx(dice.std(ddof=1))
        benign = rows[rows.label == "benign"].groupby("fold")[f"{prefix}dice"]
        assert found.figures["dsc_benign"].mean == pytest.approx(benign.mean().mean())
        assert found.figures["dsc_benign"].images == (rows.label == "benign").sum()
        right = rows.label == rows[f"{prefix}predicted"]
        accuracy = right.groupby(rows.fold).mean()
        assert found.figures["acc"].mean == pytest.approx(accuracy.mean())
        assert found.figures["hausdorff"].images == rows[f"{prefix}hausdorff"].count() < 60
        counts = pd.crosstab(rows.label, rows[f"{prefix}predicted"])
        assert (
            found.confusion.tolist()
            == counts.loc[list(types.CLASS_NAMES), list(types.CLASS_NAMES)].values.tolist()
        )
    ratio = rows.groupby("fold").incoherent.mean().mean()
    assert raw.figures["incoherent_ratio"].mean == pytest.approx(ratio)
    assert 0 < ratio < 1
    assert "incoherent_ratio" not in result.figures


def test_a_joined_row_reads_both_runs(tmp_path):
    study = make_study(tmp_path)
    predictions = make_predictions()
    for run in (SEG, CLS, MT):
        write_run(study, run, predictions)
    joined = row_result(study, Row("ST(Seg+Cls)+PR", "ST(Seg+Cls)+PR", SEG, CLS, True))
    multi = row_result(study, Row("MT+PR", "MT+PR", MT, MT, True))
    assert joined.figures.keys() == multi.figures.keys()
    for name, figure in multi.figures.items():
        assert dataclasses.astuple(joined.figures[name]) == pytest.approx(
            dataclasses.astuple(figure), nan_ok=True
        )
    np.testing.assert_array_equal(joined.confusion, multi.confusion)
    np.testing.assert_array_equal(joined.dice, multi.dice)


def test_single_task_rows_have_their_figures_only(tmp_path):
    study = make_study(tmp_path)
    for run in (SEG, CLS):
        write_run(study, run, make_predictions())
    seg = row_result(study, Row("ST(Seg)", "ST(Seg)", SEG, None))
    cls = row_result(study, Row("ST(Cls)", "ST(Cls)", None, CLS))
    assert "dsc_average" in seg.figures and "acc" not in seg.figures
    assert "acc" in cls.figures and "dsc_average" not in cls.figures
    assert seg.predicted is None and seg.confusion is None and cls.dice is None
    assert len(seg.dice) == len(cls.predicted) == 60


def test_missing_folds_make_the_row_missing(tmp_path):
    study = make_study(tmp_path)
    write_run(study, SEG, make_predictions())
    write_run(study, CLS, make_predictions(), folds=(1,))
    joined = row_result(study, Row("ST(Seg+Cls)+PR", "ST(Seg+Cls)+PR", SEG, CLS, True))
    assert joined.missing == ("curated_busi_unetpp_cls, fold 0",)
    assert joined.cases is None and joined.figures == {} and joined.dice is None
    # Of the fold that is there, the table of that fold alone can be written.
    part = make_study(tmp_path, folds=(1,))
    found = row_result(part, Row("ST(Cls)", "ST(Cls)", None, CLS))
    assert not found.missing
    assert set(found.cases.fold) == {1}
    assert np.isnan(found.figures["acc"].sd)
    assert found.figures["acc"].folds == 1


def test_folds_that_are_there_but_not_asked_for_stay_out(tmp_path):
    write_run(make_study(tmp_path), SEG, make_predictions())
    found = row_result(make_study(tmp_path, folds=(0,)), Row("ST(Seg)", "ST(Seg)", SEG, None))
    assert set(found.cases.fold) == {0}


def test_metrics_of_an_emptied_mask_depend_on_the_size_of_its_truth_only():
    # What `join` relies on, for every metric there is.
    rng = np.random.default_rng(0)
    empty = np.zeros((HEIGHT, WIDTH), bool)
    for pixels in (0, 1, 20, HEIGHT * WIDTH):
        truths = [
            rng.permutation(np.arange(HEIGHT * WIDTH) < pixels).reshape(HEIGHT, WIDTH)
            for _ in range(3)
        ]
        for name, metric in segmentation.METRICS.items():
            values = [metric(truth, empty) for truth in truths]
            np.testing.assert_array_equal(values, values[0], err_msg=name)


def write_facts(study, run, leaking, device="gpu: NVIDIA H200"):
    directory = study.directory(run)
    directory.mkdir(parents=True, exist_ok=True)
    content = {"dataset": "curated_busi", "split": "published"}
    content |= {"leaking_test_images": leaking, "test_images": [30, 31, 32, 33]}
    content["folds"] = [{"train": [], "validation": [], "test": []}] * 4
    (directory / "splits.json").write_text(json.dumps(content))
    environment = {
        "devices": [device],
        "cpu_count": 4,
        "python": "3.11.1",
        "packages": {"jax": "0.10.2"},
    }
    (directory / "environment.json").write_text(json.dumps(environment))


def test_facts(tmp_path):
    base_config = base.get_config()
    base_config.train.batch_size = 8
    study = Study(
        tmp_path,
        base_config,
        scale=Scale(epochs=30, image_size=(64, 96), width=12, folds=(0, 2)),
    )
    write_facts(study, SEG, [1, 2, 3, 4])
    write_facts(study, MT, [1, 2, 3, 4], device="cpu: cpu")
    facts = gather(study, (SEG, CLS, MT), command="this command")
    assert facts.scale == (
        "64×96 pixels, width 12, 30 of 200 epochs, 2 of 4 folds: not the published recipe"
    )
    assert facts.scaled("Table") == f"Table ({facts.scale})"
    assert set(facts.departures) == {
        "data.folds = [0, 2] instead of [0, 1, 2, 3]",
        "data.image_size = [64, 96] instead of [128, 128]",
        "model.width = 12 instead of 24",
        "train.epochs = 30 instead of 200",
        "train.batch_size = 8 instead of 2",
    }
    assert facts.leaks == {"curated_busi": (4, 62)}
    assert any("**Leak:** 4 of 62 test images of curated_busi" in w for w in facts.warnings)
    assert len(facts.hardware) == 2 and facts.hardware[0].startswith("gpu: NVIDIA H200; 4 CPU")
    assert facts.runs == tuple(run.name for run in (SEG, CLS, MT))
    assert "this command" in facts.origin
    assert "Research software, not a medical device." in facts.origin


def test_the_published_recipe_carries_no_warning(tmp_path):
    study = Study(tmp_path, base.get_config())
    for table in TABLES.values():
        runs = tuple(run for row in table.rows for run in row.runs)
        facts = gather(study, runs, command="")
        assert (facts.scale, facts.departures, facts.warnings) == ("", (), [])
        assert facts.scaled("Table") == "Table"


def test_a_split_of_ones_own_is_a_departure(tmp_path):
    study = Study(tmp_path, base.get_config())
    write_facts(study, MT, [0, 0, 0, 0])
    path = study.directory(MT) / "splits.json"
    assert gather(study, (MT,), command="").departures == ()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"edited": True}))
    found = gather(study, (MT,), command="")
    assert found.split == "custom"
    assert found.departures == ("data.split = custom instead of published",)
    assert found.warnings
    config = base.get_config()
    config.data.folds_file = "mine.csv"
    found = gather(Study(tmp_path / "new", config), (MT,), command="")
    assert found.departures == ("data.split = given instead of published",)


def test_any_other_departure_is_in_the_title_too(tmp_path):
    config = base.get_config()
    config.train.learning_rate = 1e-3
    facts = gather(Study(tmp_path, config), (MT,), command="")
    assert facts.scale == "not the published recipe"
    assert facts.departures == ("train.learning_rate = 0.001 instead of 0.0001",)
