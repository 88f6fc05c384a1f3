"""Networks tested on a dataset that they were not trained on."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import small_runs
import tiny

from mtbus_jax import cli, crossval, data, external, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.external import elsewhere, markdown, score
from mtbus_jax.metrics import segmentation
from mtbus_jax.predict import Predictor

OTHER = dataclasses.replace(
    tiny.make_cases(30, seed=7),
    name="other",
    group=np.array([f"patient_{i // 3}" for i in range(30)]),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny network, trained on simulated images."""
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setattr(data, "load_configured", lambda config: small_runs.CASES)
        crossval.train_and_evaluate(small_runs.make_config(), folder)
    return folder


@pytest.fixture
def world(monkeypatch):
    """Sets the dataset that is tested on."""
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data, "load_configured", lambda config: small_runs.CASES)
    monkeypatch.setattr(score, "RESAMPLES", 40)  # a thousand take seconds

    def other(cases=OTHER):
        monkeypatch.setattr(data, "load_cases", lambda name, **options: cases)

    other()
    return other


def test_figures_are_those_of_what_predict_answers(run, world, tmp_path):
    content = external.evaluate("bus_uclm", tmp_path / "out", run=run)
    answers = Predictor(run)(list(OTHER.image))
    truth = OTHER.mask[..., 0] > 0
    right = [a.class_id == label for a, label in zip(answers, OTHER.label, strict=True)]
    dice = [segmentation.dice(t, a.mask) for t, a in zip(truth, answers, strict=True)]
    refined = content["results"]["refined"]
    assert refined["acc"]["value"] == pytest.approx(np.mean(right))
    assert refined["dsc_average"]["value"] == pytest.approx(np.mean(dice))
    before = [a.unrefined_class_id == label for a, label in zip(answers, OTHER.label, strict=True)]
    assert content["results"]["raw"]["acc"]["value"] == pytest.approx(np.mean(before))
    assert np.sum(content["confusion_counts"]["refined"]) == 30
    assert content["images"] == 30 and content["groups"] == 10
    for figure in refined.values():
        if figure["n"]:
            assert figure["low"] <= figure["high"]
    wrong = ~np.array(right) | (np.array(dice) < 0.5)
    assert content["risk"]["wrong"]["all"] == pytest.approx(wrong.mean())


def test_pictures_are_enhanced_once_and_as_in_training(run, world, tmp_path, monkeypatch):
    equalising = shutil.copytree(run, tmp_path / "run")
    config = json.loads((equalising / "config.json").read_text())
    config["data"]["enhancement"] = "multi_peak"
    (equalising / "config.json").write_text(json.dumps(config))
    asked = {}

    def load(name, **options):
        asked.update(options)
        return OTHER

    monkeypatch.setattr(data, "load_cases", load)
    content = external.evaluate("bus_uclm", tmp_path / "out", run=equalising)
    assert asked["enhancement"] == "multi_peak"
    # `load_cases` has equalised them; the network sees what it gives.
    plain = external.evaluate("bus_uclm", tmp_path / "plain", run=run)
    assert content["results"] == plain["results"]


def test_three_files_are_written_and_replaced(run, world, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        content = external.evaluate("bus_uclm", out, run=run)
    assert {p.name for p in out.iterdir()} == {"cases.csv", "summary.json", "summary.md"}
    assert json.loads((out / "summary.json").read_text()) == content
    rows = pd.read_csv(out / "cases.csv")
    assert rows.uid.tolist() == OTHER.uid.tolist() and rows.group.tolist() == OTHER.group.tolist()
    text = (out / "summary.md").read_text()
    assert f"{content['results']['raw']['acc']['value']:.3f} (" in text
    assert "30 images of 10 groups" in text and "not a medical device" in text
    name = next(iter(content["results"]["raw"]))
    content["results"]["refined"][name]["n"] += 1  # refining changes which distances exist
    count = content["results"]["raw"][name]["n"]
    assert f" | {count} / {count + 1} |" in markdown.to_markdown(content)


def test_images_without_mask_or_class_count_for_what_is_known(run, world, tmp_path):
    label = OTHER.label.copy()
    label[:6] = types.NO_LABEL
    has_mask = np.arange(30) < 20
    world(dataclasses.replace(OTHER, label=label, has_mask=has_mask))
    content = external.evaluate("bus_uclm", tmp_path / "out", run=run)
    raw = content["results"]["raw"]
    assert raw["acc"]["n"] == 24 and raw["dsc_average"]["n"] == 20
    world(dataclasses.replace(OTHER, label=np.full_like(label, -1), has_mask=~has_mask & False))
    with pytest.raises(UserError, match="neither masks nor classes"):
        external.evaluate("bus_uclm", tmp_path / "none", run=run)
    assert not (tmp_path / "none").exists()


def test_a_run_without_classes_tests_masks_of_any(world, tmp_path):
    config = small_runs.make_config(epochs=1)
    config.tasks, config.data.folds = ("seg",), (0,)
    crossval.train_and_evaluate(config, tmp_path / "masks")
    world(dataclasses.replace(OTHER, classes=types.Classes(("cyst", "malignant", "fat"), None)))
    content = external.evaluate("bus_uclm", tmp_path / "out", run=tmp_path / "masks")
    assert content["results"]["raw"]["dsc_average"]["n"] == 30
    assert content["results"]["raw"]["dsc_malignant"]["n"] == 10
    with pytest.raises(UserError, match="--rename is for runs that tell classes apart"):
        external.evaluate(
            "bus_uclm", tmp_path / "o", run=tmp_path / "masks", rename={"cyst": "benign"}
        )


def test_without_any_class_the_masks_are_tested(run, world, tmp_path):
    world(dataclasses.replace(OTHER, label=np.full_like(OTHER.label, types.NO_LABEL)))
    raw = external.evaluate("bus_uclm", tmp_path / "out", run=run)["results"]["raw"]
    assert raw["dsc_average"]["n"] == 30
    assert raw["acc"] == {"value": None, "low": None, "high": None, "n": 0}


def test_what_the_first_weights_have_seen_is_refused_too(run, world, tmp_path):
    """A run on the phantoms that started from one on BUSI, which started from one that is gone."""
    busi, own = (shutil.copytree(run, tmp_path / name) for name in ("busi", "own"))
    change_config(busi, ("data", "name", "busi"), ("train", "start_from", str(tmp_path / "gone")))
    change_config(own, ("train", "start_from", str(busi / "fold_0")))
    with pytest.raises(UserError, match=r"--data=curated_busi.*trained on these pictures \(busi\)"):
        external.evaluate("curated_busi", tmp_path / "out", run=own)
    assert not (tmp_path / "out").exists()
    content = external.evaluate("bus_uclm", tmp_path / "out", run=own)
    assert content["unknown_origin"] == [str(tmp_path / "gone")]
    assert "which is no longer there" in (tmp_path / "out" / "summary.md").read_text()
    shutil.rmtree(busi)
    # An ensemble keeps where each of its networks began.
    joined = tmp_path / "joined"
    shutil.copytree(own, joined)
    for number, started in enumerate(("", str(busi))):
        shutil.copytree(run, joined / f"network_{number}")
        change_config(joined / f"network_{number}", ("train", "start_from", started))
    change_config(joined, (None, "seed", [1, 2]), ("train", "start_from", ""))
    content = external.evaluate("bus_uclm", tmp_path / "of_two", run=joined)
    assert content["unknown_origin"] == [str(busi)]


def change_config(folder, *changes):
    content = json.loads((folder / "config.json").read_text())
    for section, field, value in changes:
        (content[section] if section else content)[field] = value
    (folder / "config.json").write_text(json.dumps(content))


def test_matched_intensity_undoes_another_gain(run, world, tmp_path):
    own = small_runs.CASES  # in a mirror, since its own pictures are refused
    own = dataclasses.replace(own, image=own.image[:, :, ::-1], mask=own.mask[:, :, ::-1])
    world(own)
    same = external.evaluate("bus_uclm", tmp_path / "same", run=run)
    world(dataclasses.replace(own, image=(own.image * 0.4 + 60).astype(np.uint8)))
    other = external.evaluate("bus_uclm", tmp_path / "other", run=run)
    matched = external.evaluate("bus_uclm", tmp_path / "m", run=run, match_intensity=True)
    assert "distribution of the training dataset" in (tmp_path / "m" / "summary.md").read_text()
    dsc = [each["results"]["raw"]["dsc_average"]["value"] for each in (same, other, matched)]
    assert dsc[2] == pytest.approx(dsc[0], abs=0.02)
    assert abs(dsc[1] - dsc[0]) > 0.05


@pytest.mark.parametrize(
    ("dataset", "trained_on"),
    [("phantom", "phantom"), ("busi", "curated_busi"), ("curated_busi", "busi")],
)
def test_the_training_pictures_are_refused(dataset, trained_on):
    with pytest.raises(UserError, match="trained on these pictures"):
        elsewhere.check_other(dataset, trained_on)


def test_the_folder_that_was_trained_on_is_refused_by_any_name(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="trained on these pictures"):
        elsewhere.check_other("./mine", str(tmp_path / "mine"))
    elsewhere.check_other("bus_uclm", str(tmp_path / "mine"))


def test_classes_go_by_name_whatever_their_order():
    theirs = dataclasses.replace(
        OTHER,
        label=np.array([0, 1, 2, -1] * 7 + [0, 1], np.int32),
        classes=types.Classes(("malignant", "cyst", "phyllodes"), None),
    )
    found = elsewhere.with_classes(theirs, types.CLASSES, {"cyst": "benign", "phyllodes": ""})
    assert found.label[:4].tolist() == [types.MALIGNANT, types.BENIGN, -1, -1]
    assert found.classes == types.CLASSES
    with pytest.raises(UserError, match="--rename=cyst=benign"):
        elsewhere.with_classes(theirs, types.CLASSES, {"phyllodes": ""})
    with pytest.raises(UserError, match="has no class fat"):
        elsewhere.with_classes(theirs, types.CLASSES, {"fat": "benign"})
    with pytest.raises(UserError, match="the run has no class tumour"):
        elsewhere.with_classes(theirs, types.CLASSES, {"cyst": "tumour"})


def test_what_is_in_the_folder_stays(run, world, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.txt"):
        external.evaluate("bus_uclm", tmp_path, run=run)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rename=cyst"], "give THEIRS=OURS"),
        (["--rename=cyst=benign"], "has no class cyst"),
        (["--folds=7"], "give distinct trained folds"),
    ],
)
def test_mistakes_end_with_code_2(run, world, tmp_path, capsys, flags, message):
    arguments = ["external", f"--run={run}", "--data=bus_uclm", f"--out={tmp_path / 'out'}", *flags]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
