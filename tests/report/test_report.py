"""The report's content: what the page says against what the run folder holds."""

import base64
import dataclasses
import hashlib
import html.parser
import importlib.metadata
import io
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_runs
import tiny
from PIL import Image

from mtbus_jax import crossval, data, files, models, report, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import summary
from mtbus_jax.metrics import calibration
from mtbus_jax.metrics.meaning import meaning
from mtbus_jax.report import command, pictures, results, svg
from mtbus_jax.report import page as page_module
from mtbus_jax.report import run as run_module
from mtbus_jax.training import run_folder


def test_a_page_needs_no_installed_package(monkeypatch):
    """`pip install -r requirements.txt` installs what a checkout needs, but not the checkout."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    declared = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    assert f"Made by mtbus_jax {declared['project']['version']}." in page_module.page("Title")


class Page(html.parser.HTMLParser):
    """Tables by caption, scripts and styles, and every attribute of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.scripts, self.attributes, self.text = {}, [], [], ""
        self._rows = self._cell = self._caption = self._script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes += [(tag, key, value) for key, value in attrs.items()]
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = ""
        elif tag in ("script", "style"):
            self._script = [tag, attrs, ""]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
            self._cell = None
        elif tag == "caption":
            self._caption, self._cell = self._cell.strip(), None
        elif tag == "table":
            self.tables.setdefault(self._caption, []).append(self._rows)
        elif tag in ("script", "style"):
            self.scripts.append(self._script)
            self._script = None

    def handle_data(self, text):
        if self._script is not None:
            self._script[2] += text
            return
        self.text += text
        if self._cell is not None:
            self._cell += text

    def table(self, caption):
        (rows,) = self.tables[caption]
        return rows

    def data(self, name="case-data"):
        (text,) = [s[2] for s in self.scripts if s[1].get("id") == name]
        return json.loads(text)


MEANS = "Mean over the test images of a fold, then mean ± standard deviation over folds"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(run folder, dataset, parsed page, its text)."""
    workdir = tmp_path_factory.mktemp("runs") / "two_folds"
    cases = report_runs.write_run(workdir)
    text = report.write_report(workdir, cases).read_text(encoding="utf-8")
    return workdir, cases, Page(text), text


def fresh(tmp_path, **options):
    workdir = tmp_path / "run"
    return workdir, report_runs.write_run(workdir, **options)


def open_report(workdir, cases, **options):
    return Page(report.write_report(workdir, cases, **options).read_text(encoding="utf-8"))


def all_rows(workdir):
    paths = sorted(workdir.glob("fold_*/cases.csv"))
    return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)


def test_figures_are_those_of_the_summary_beside_the_published(made):
    workdir, _, page, _ = made
    found = files.read_json(workdir / "summary.json")["results"]
    header, *rows = page.table(MEANS)
    beside = ["raw, ± with n", "published MT+DO", "refined, ± with n", "published MT+PR+DO"]
    assert header[1:7] == ["raw", "refined", *beside]
    shown = {row[0]: row[1:] for row in rows}
    assert len(shown) == len(found["raw"]["figures"]) + 3  # the three headings of groups
    for name in found["raw"]["figures"]:
        cells = shown[meaning(name).title]
        for i, kind in enumerate(("raw", "refined")):
            figure = found[kind]["figures"].get(name)
            expected = f"{figure['mean']:.3f} ± {figure['sd']:.3f}" if figure else ""
            assert cells[i] == expected, (name, kind)
            if figure and figure["published"]:
                with_n = f"{figure['mean']:.3f} ± {np.std(figure['folds']):.3f}"
                assert cells[2 + 2 * i] == with_n, (name, kind)
    # Published, Table 5 of Aumente-Maestro et al. 2025.
    assert shown["DSC average"][3:6:2] == ["0.742 ± 0.018", "0.751 ± 0.018"]
    assert shown["Accuracy"][3:6:2] == ["0.802 ± 0.027", "0.802 ± 0.018"]
    assert shown["Jaccard"][2:6] == [""] * 4


def test_counts_of_images_stand_in_the_order_of_the_columns():
    def figure(*images):
        return {"mean": 0.5, "sd": None, "folds": [0.5], "n": images, "published": None}

    def shown(raw, refined):
        kinds = {
            kind: {"figures": {"recall": figure(*n)}, "published_setting": None}
            for kind, n in (("raw", raw), ("refined", refined))
        }
        table = str(results.figure_table({"results": kinds}))
        return re.findall(r"<td>([\d /]+)</td>", table)[-1]

    assert shown((20, 33), (22, 34)) == "53 / 56"
    assert shown((22, 34), (20, 33)) == "56 / 53"
    assert shown((30, 30), (30, 30)) == "60"


def test_folds_and_confusion_are_those_of_the_summary(made):
    workdir, _, page, _ = made
    found = files.read_json(workdir / "summary.json")
    by_fold = {row[0]: row[1:] for row in page.table("Figures by fold")[1:]}
    expected = found["results"]["raw"]["figures"]["jaccard"]["folds"]
    assert by_fold["Jaccard, raw"] == [f"{value:.3f}" for value in expected]
    raw, refined = page.tables["Rows: true class. Columns: predicted class."]
    for table, kind in ((raw, "raw"), (refined, "refined")):
        for row, counts in zip(table[1:], found["confusion_counts"][kind], strict=True):
            total = sum(counts)
            assert row[1:4] == [f"{100 * c / total:.0f} %{c}" for c in counts]
            assert row[4] == str(total)


def test_cases_are_those_of_the_tables(made):
    workdir, _, page, _ = made
    columns = page.data()["columns"]
    tested = all_rows(workdir)
    trusted = pd.read_csv(workdir / "trust.csv", keep_default_na=False)
    assert columns["uid"] == tested.uid.tolist() == trusted.uid.tolist()
    names = np.array(types.CLASS_NAMES)
    for column, expected in {
        "label": tested.label,
        "raw_class": tested.predicted,
        "final_class": tested.refined_predicted,
        "probable_class": trusted.probable_predicted,
    }.items():
        assert names[columns[column]].tolist() == expected.tolist(), column
    for column, expected in {
        "raw_dice": tested.dice,
        "final_dice": trusted.dice,
        "probable_dice": trusted.probable_dice,
        "uncertainty": trusted.uncertainty,
        "presence": trusted.presence,
    }.items():
        np.testing.assert_allclose(columns[column], expected, atol=6e-5, err_msg=column)
    found = np.array([np.nan if v is None else v for v in columns["hausdorff"]])
    np.testing.assert_allclose(found, tested.refined_hausdorff, atol=6e-5)
    np.testing.assert_allclose(
        columns["probability"], trusted[[f"calibrated_{n}" for n in names]], atol=6e-5
    )
    # Derived here from cases.csv alone, and by another way in trust.csv.
    assert columns["correction"] == trusted.correction.tolist()
    assert set(columns["correction"]) == {"", "mask emptied", "class set to normal"}
    assert columns["wrong"] == trusted.wrong.astype(int).tolist()
    assert columns["warning"] == trusted.warning.astype(int).tolist()
    assert 0 < sum(columns["warning"]) < len(tested)
    assert columns["prediction_set"] == trusted.prediction_set.tolist()


def unpacked(text, height, width):
    """Runs in base 36, read back pixel by pixel."""
    pixels, inside = [], False
    for length in text.split():
        pixels += [inside] * int(length, 36)
        inside = not inside
    return np.array(pixels + [False] * (height * width - len(pixels))).reshape(height, width)


def test_pictures_are_those_of_the_dataset_and_of_the_predictions(made):
    workdir, cases, page, _ = made
    content = page.data()
    assert (content["height"], content["width"]) == (tiny.HEIGHT, tiny.WIDTH)
    uid, block = content["columns"]["uid"], content["block"]
    assert len(uid) > block  # more than one block
    position = {u: i for i, u in enumerate(cases.uid)}
    raw = {}
    for fold in range(report_runs.FOLDS):
        directory = run_folder.fold_dir(workdir, fold)
        kept = run_module.stored_predictions.read(directory)
        raw.update(zip(kept.uid.tolist(), kept.probability > 0.5, strict=True))
    for i in range(len(uid)):
        found = page.data(f"pictures-{i // block}")
        case, at = position[uid[i]], i % block
        truth = unpacked(found["truth"][at], tiny.HEIGHT, tiny.WIDTH)
        np.testing.assert_array_equal(truth, cases.mask[case, ..., 0] > 0)
        prediction = unpacked(found["prediction"][at], tiny.HEIGHT, tiny.WIDTH)
        np.testing.assert_array_equal(prediction, raw[uid[i]])
        with Image.open(io.BytesIO(base64.b64decode(found["image"][at]))) as image:
            assert image.mode == "L"
            error = np.abs(np.asarray(image, float) - cases.image[case, ..., 0]).mean()
        assert error < 10  # of 255: noise is what JPEG keeps worst


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ([[0, 0, 0], [0, 0, 0]], ""),
        ([[1, 1, 1], [1, 1, 1]], "0 6"),
        ([[0, 1, 1], [1, 0, 0]], "1 3"),
        ([[1, 0, 0], [0, 0, 1]], "0 1 4 1"),
        (np.repeat([[0, 1]], 37, axis=1), "11 11"),
    ],
)
def test_runs_by_hand(mask, text):
    assert pictures.runs(np.array(mask, bool)) == text


def test_large_archives_are_shown_smaller(tmp_path, monkeypatch):
    workdir, cases = fresh(tmp_path)
    tested = len(all_rows(workdir))
    monkeypatch.setattr(pictures, "MOST_PIXELS", tested * tiny.HEIGHT * tiny.WIDTH / 4)
    page = open_report(workdir, cases)
    image = page.data("pictures-0")["image"][0]
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        assert opened.size == (tiny.WIDTH // 2, tiny.HEIGHT // 2)
    assert page.data()["width"] == tiny.WIDTH  # masks stay whole
    assert "8 × 16 pixels" in page.text


def test_corrections_are_counted_by_what_they_did(made):
    workdir, _, page, _ = made
    rows = pd.read_csv(workdir / "trust.csv", keep_default_na=False)
    shown = {row[0]: list(map(int, row[1:])) for row in page.table("Automatic corrections")[1:]}
    emptied = rows[rows.correction == "mask emptied"]
    better, worse = (emptied.dice > emptied.raw_dice), (emptied.dice < emptied.raw_dice)
    neither = len(emptied) - better.sum() - worse.sum()
    assert shown["mask emptied"] == [len(emptied), better.sum(), worse.sum(), neither]
    renamed = rows[rows.correction == "class set to normal"]
    before, after = renamed.raw_predicted == renamed.label, renamed.predicted == renamed.label
    better, worse = after & ~before, before & ~after
    neither = len(renamed) - better.sum() - worse.sum()
    assert shown["class set to normal"] == [len(renamed), better.sum(), worse.sum(), neither]
    assert len(emptied) and len(renamed) and worse.sum()


def test_trust_is_what_was_measured(made):
    workdir, _, page, _ = made
    measured = files.read_json(workdir / "trust.json")["measured"]["test"]
    rows = pd.read_csv(workdir / "trust.csv", keep_default_na=False)
    facts = {row[0]: row[1] for row in page.table("Warnings and prediction sets")[1:]}
    assert facts["cases with a warning"] == f"{100 * measured['warned']:.1f} %"
    wrong = rows.wrong[rows.warning].mean(), rows.wrong[~rows.warning].mean()
    assert facts["wrong among those with a warning"] == f"{100 * wrong[0]:.1f} %"
    assert facts["wrong among those without"] == f"{100 * wrong[1]:.1f} %"
    held = f"{100 * measured['conformal']['coverage']:.1f} %"
    assert facts["prediction sets that hold the true class (aim: 90 %)"] == held
    for when in ("before", "after"):
        assert f"{measured['calibration'][when]:.3f} {when}" in page.text
    for title, name in (("Wrong class", "wrong_class"), ("Mask error", "dice_loss")):
        risk = {row[0]: row[1] for row in page.table(title)[1:]}
        assert risk["100 %"] == f"{measured['risk'][name]['all']:.3f}"
        assert risk["80 %"] == f"{measured['risk'][name]['kept']:.3f}"
    label = rows.label.map(types.CLASS_NAMES.index).to_numpy()
    probability = rows[[f"calibrated_{n}" for n in types.CLASS_NAMES]].to_numpy()
    table = calibration.reliability(probability, label)
    shown = [row for row in page.table("Reliability by bin")[1:] if row[0].startswith("after")]
    assert [int(row[1]) for row in shown] == table.count[table.count > 0].tolist()
    assert [row[3] for row in shown] == [f"{a:.3f}" for a in table.accuracy[table.count > 0]]
    refining = {row[0]: row[1:] for row in page.table("Ways of refining")[1:]}
    assert refining["hard rules"][2] == f"{measured['refining']['hard']['dsc']:.3f}"


def test_curves_are_those_of_the_logbook(made):
    _, _, page, _ = made
    header, *rows = page.table("Dice per epoch")
    assert header == ["epoch"] + [
        f"fold {f} {p}" for f in (0, 1) for p in ("training", "validation")
    ]
    for row in rows:
        for fold in (0, 1):
            found = report_runs.epoch_row(fold, int(row[0]))
            expected = [f"{found['train_dice']:.3f}", f"{found['validation_dice']:.3f}"]
            assert row[1 + 2 * fold : 3 + 2 * fold] == expected
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert page.table("Learning rate per epoch")[2][1] == "0.000500"


def test_warnings_and_notice_are_shown(made, tmp_path):
    _, _, page, _ = made
    assert "Research software, not a medical device" in page.text
    assert "Not the published recipe" in page.text
    assert "train.epochs = 3 instead of 200" in page.text
    assert "Leak" not in page.text
    cases = report_runs.make_cases()
    cases = dataclasses.replace(cases, group=np.array([u[-1] for u in cases.uid]))
    workdir, _ = fresh(tmp_path, cases=cases)
    leaking = files.read_json(workdir / "summary.json")["leaking_test_images"]
    content = files.read_json(workdir / "splits.json")
    content["unused_images"][0] = 1
    files.write_json(workdir / "splits.json", content)
    summary.write_summary(workdir)
    text = open_report(workdir, cases).text
    assert f"Leak. {leaking} of " in text
    assert "A part of the dataset. " in text and "fold's lists in splits.json." in text


HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a'\"&amp;b"]


def test_names_cannot_become_markup(tmp_path):
    cases = report_runs.make_cases()
    uid = np.array([*HOSTILE, *cases.uid[3:]])
    tested = report_runs.make_folds(len(cases))[0].test[:3]
    uid[tested], uid[:3] = HOSTILE, cases.uid[tested]
    cases = dataclasses.replace(cases, uid=uid, group=uid)
    workdir, _ = fresh(tmp_path, cases=cases)
    for name in ("config.json", "summary.json"):
        content = files.read_json(workdir / name) | {"name": HOSTILE[0]}
        files.write_json(workdir / name, content)
    text = report.write_report(workdir, cases).read_text(encoding="utf-8")
    assert "<img src=x" not in text and "<script>alert" not in text
    page = Page(text)
    assert set(HOSTILE) <= set(page.data()["columns"]["uid"])
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert HOSTILE[0] in page.text  # the name, as text


def test_nothing_is_loaded_and_only_our_scripts_may_run(made):
    _, _, page, text = made
    (policy,) = [v for t, k, v in page.attributes if t == "meta" and k == "content" and "src" in v]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        allowed = directives[directive].split()
        codes = [s[2] for s in page.scripts if s[0] == tag and "type" not in s[1]]
        digests = [hashlib.sha256(code.encode()).digest() for code in codes]
        assert [f"'sha256-{base64.b64encode(d).decode()}'" for d in digests] == allowed
    for tag, key, value in page.attributes:
        if key in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, key, value)
    assert not re.search(r"@import|url\(", text)
    assert not [a for a in page.attributes if a[1] == "style"]  # the policy would block it


def test_everything_has_a_name_for_screen_readers(made):
    _, _, page, _ = made
    ids = [v for _, k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    for _, key, value in page.attributes:
        if key in ("aria-labelledby", "aria-describedby", "for"):
            assert set(value.split()) <= set(ids), value
    drawn = sum(1 for t, k, v in page.attributes if t == "svg" and (k, v) == ("role", "img"))
    assert drawn == sum(1 for t, k, _ in page.attributes if t == "svg" and k == "aria-describedby")
    assert drawn >= 8
    regions = sum(1 for _, k, v in page.attributes if (k, v) == ("role", "region"))
    assert regions == sum(len(tables) for tables in page.tables.values())


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (("trust.csv", "trust.json"), "trust.csv and trust.json"),
        (("trust.json",), "trust.csv and trust.json"),
        (("fold_0/metrics.jsonl", "fold_1/metrics.jsonl"), "metrics.jsonl, the curves"),
        (("fold_1/metrics.jsonl",), "metrics.jsonl of fold 1"),
        (("environment.json",), "environment.json"),
        (("splits.json",), "splits.json"),
        (("fold_0/predictions.npz",), "predictions.npz"),
    ],
)
def test_what_is_missing_is_said(tmp_path, gone, said):
    workdir, cases = fresh(tmp_path)
    for name in gone:
        (workdir / name).unlink()
    page = open_report(workdir, cases)
    assert f"Not in this run folder: {said}" in page.text
    assert page.data()["predictions"] == ("predictions" not in gone[0])
    assert ("uncertainty" in page.data()["columns"]) == ("trust.csv" not in gone)
    if "trust.csv" in gone:  # probabilities and corrections are still there
        rows = all_rows(workdir)
        assert not page.data()["calibrated"]
        found = np.array(page.data()["columns"]["probability"])
        expected = rows[[f"probability_{name}" for name in types.CLASS_NAMES]]
        np.testing.assert_allclose(found, expected, atol=6e-5)
        assert "mask emptied" in page.data()["columns"]["correction"]


def test_without_pictures_the_report_says_so(tmp_path):
    workdir, _ = fresh(tmp_path)
    page = open_report(workdir, None, without_pictures="The disk is elsewhere.")
    assert "Not in this run folder: pictures" in page.text
    assert "The disk is elsewhere." in page.text
    assert not page.data()["pictures"]
    assert not [s for s in page.scripts if str(s[1].get("id")).startswith("pictures")]
    assert not [a for a in page.attributes if a[0] == "canvas"]


def test_rows_that_trust_does_not_know_are_left_out_of_it_and_said(tmp_path):
    # Another process has just tested fold 1 and not fitted it yet.
    workdir, cases = fresh(tmp_path)
    rows = pd.read_csv(workdir / "trust.csv", keep_default_na=False)
    rows[rows.fold == 0].to_csv(workdir / "trust.csv", index=False)
    page = open_report(workdir, cases)
    lost = (rows.fold == 1).sum()
    assert f"{lost} of {len(rows)} test images are in no row of trust.csv" in page.text
    assert page.data()["columns"]["uncertainty"].count(None) == lost
    shown = [row for row in page.table("Reliability by bin")[1:] if row[0].startswith("after")]
    assert sum(int(row[1]) for row in shown) == (rows.fold == 0).sum()


@pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
def test_one_task_shows_what_it_has(tmp_path, tasks):
    workdir, cases = fresh(tmp_path, tasks=tasks)
    page = open_report(workdir, cases)
    columns = page.data()["columns"]
    assert ("final_dice" in columns) == ("raw_dice" in columns) == (tasks == ("seg",))
    assert ("final_class" in columns) == ("probability" in columns) == (tasks == ("cls",))
    assert "correction" not in columns and "Automatic corrections" not in page.tables
    layers = [v for _, k, v in page.attributes if k == "data-layer"]
    assert layers == ["image", "truth", *(["prediction"] if tasks == ("seg",) else [])]
    controls = {v for t, k, v in page.attributes if t == "select" and k == "name"}
    assert {"class", "correct", "warning", "fold", "sort"} <= controls
    assert ("predicted" in controls) == (tasks == ("cls",))
    assert "correction" not in controls
    if tasks == ("seg",):
        assert columns["final_dice"] == columns["raw_dice"]


def test_another_dataset_is_refused(tmp_path):
    workdir, cases = fresh(tmp_path)
    with pytest.raises(UserError, match="lacks 1 of the 64 test images"):
        first = all_rows(workdir).uid[0]
        report.write_report(workdir, cases.take(np.flatnonzero(cases.uid != first)))
    mask = cases.mask.copy()
    mask[:, 0, 0] = 1
    with pytest.raises(UserError, match="masks of the dataset curated_busi differ"):
        report.write_report(workdir, dataclasses.replace(cases, mask=mask))
    assert not (workdir / "report.html").exists()


def test_a_folder_that_is_no_tested_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        report.write_report(tmp_path, None)
    workdir, _ = fresh(tmp_path)
    content = json.loads((workdir / "summary.json").read_text())
    content["class_names"].reverse()
    (workdir / "summary.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="'normal', 'malignant', 'benign'"):
        report.write_report(workdir, None)
    (workdir / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary\.json is missing"):
        report.write_report(workdir, None)
    for path in workdir.glob("fold_*/cases.csv"):
        path.unlink()
    with pytest.raises(UserError, match="no fold has been trained"):
        report.write_report(workdir, None)


def test_broken_trust_rows_are_a_users_error(tmp_path):
    workdir, cases = fresh(tmp_path)
    (workdir / "trust.csv").write_text('a,b\n"open')
    with pytest.raises(UserError, match=r"trust\.csv is broken"):
        report.write_report(workdir, cases)


def test_the_same_run_gives_the_same_page(made, tmp_path):
    workdir, cases, _, text = made
    assert report.write_report(workdir, cases).read_text(encoding="utf-8") == text


def test_training_and_evaluation_write_it(tmp_path, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
    crossval.train_and_evaluate(tiny.make_config(epochs=1), tmp_path)
    path = tmp_path / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.data()["columns"]["uid"] == all_rows(tmp_path).uid.tolist()
    assert page.data()["predictions"]
    path.unlink()
    crossval.evaluate(tmp_path)
    assert path.exists()


def test_the_command_finds_the_dataset(tmp_path, capsys):
    workdir, cases = fresh(tmp_path)
    data.save_arrays(cases, tmp_path / "arrays.npz")
    command.main([f"--run={workdir}", f"--arrays_file={tmp_path / 'arrays.npz'}"])
    captured = capsys.readouterr()
    assert "report.html" in captured.out and not captured.err
    assert Page((workdir / "report.html").read_text("utf-8")).data()["pictures"]


def test_the_command_makes_do_without_pictures_but_not_silently(tmp_path, capsys):
    workdir, _ = fresh(tmp_path)
    config = files.read_json(workdir / "config.json")
    config["data"]["arrays_file"] = str(tmp_path / "gone.npz")
    files.write_json(workdir / "config.json", config)
    command.main([f"--run={workdir}"])
    assert "gone.npz: there is no such file" in capsys.readouterr().err
    assert "gone.npz: there is no such file" in (workdir / "report.html").read_text("utf-8")
    command.main([f"--run={workdir}", "--no_pictures"])
    assert "--no_pictures was given" in capsys.readouterr().err
    # What is asked for by name must be there.
    with pytest.raises(UserError, match=r"other\.npz: there is no such file"):
        command.main([f"--run={workdir}", f"--arrays_file={tmp_path / 'other.npz'}"])


@pytest.mark.parametrize("arguments", [[], ["--run=a", "--compare", "b", "c"]])
def test_the_command_wants_one_thing(arguments):
    with pytest.raises(UserError, match="--run=DIR for a report, or --compare"):
        command.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run=a", "--out=share.html"], "--out goes with --compare"),
        (["--compare", "a", "b", "--no_pictures"], "go with --run, not --compare"),
        (["--compare", "a", "b", "--data_dir=x"], "go with --run, not --compare"),
    ],
)
def test_flags_of_the_other_one_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        command.main(arguments)


def test_axes_end_on_round_numbers_around_the_data():
    axis = svg.Axis.around("loss", [0.31, 1.92], zero=True)
    assert (axis.low, axis.high) == (0, 2)
    assert list(axis.ticks) == pytest.approx([0, 0.5, 1, 1.5, 2])
    small = svg.Axis.around("rate", [1.1e-4, 1e-4], zero=True)
    assert small.low == 0 and small.high >= 1.1e-4 and small.digits == 5
    quarters = svg.Axis.around("n", [0.0, 10.0])
    assert list(quarters.ticks) == [0, 2.5, 5, 7.5, 10] and quarters.digits == 1
    assert (
        svg.Axis.around("n", [0.0, 0.1]).digits == 3 and svg.Axis.around("n", [0, 80]).digits == 0
    )
    flat = svg.Axis.around("flat", [0.5, 0.5])
    assert flat.low < 0.5 < flat.high
    zero = svg.Axis.around("nothing", [0.0], zero=True)
    assert zero.low <= 0 < zero.high
    assert list(svg.Axis.whole("epoch", 200).ticks) == [1, 50, 100, 150, 200]
    assert list(svg.Axis.whole("epoch", 1).ticks) == [1]


def test_marks_lie_where_the_axes_say():
    chart = svg.Chart(svg.Axis.unit("x"), svg.Axis("y", 10, 30, (10, 20, 30), digits=0))
    middle = (chart.column(0) + chart.column(1)) / 2, (chart.row(10) + chart.row(30)) / 2
    assert (chart.column(0.5), chart.row(20)) == pytest.approx(middle)
    assert chart.row(30) < chart.row(10)  # up is more
    chart.line([0, 0.5, 1], [10, np.nan, 30], "c0")
    chart.points([0.5], [20], "c1", titles=["half & half"])
    drawing = chart.drawing("A title", "Its <text>")
    ends = f"{chart.column(0):.1f},{chart.row(10):.1f} {chart.column(1):.1f},{chart.row(30):.1f}"
    assert f'points="{ends}"' in drawing  # the undefined one left out
    assert f'cx="{middle[0]:.1f}" cy="{middle[1]:.1f}"' in drawing
    assert "half &amp; half" in drawing and "Its &lt;text&gt;" in drawing


def test_undefined_figures_are_words(tmp_path):
    assert results.plus_minus({"mean": None, "sd": None}) == "undefined"
    assert results.plus_minus({"mean": 0.5, "sd": None}) == "0.500"
    assert results.plus_minus(None) == ""
