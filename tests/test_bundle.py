"""Bundles: a run made small, and read again."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest
import small_runs
import tiny

from mtbus_jax import bundle, configuration, crossval, data, ensemble, models
from mtbus_jax.errors import UserError
from mtbus_jax.export import bundle_card, remake
from mtbus_jax.predict import Predictor
from mtbus_jax.training import bundled, config_hash, run_folder, trained_folds

# Two folds test all images, in half the time that the dataset's own four take.
CASES = dataclasses.replace(small_runs.CASES, test_fold=small_runs.CASES.test_fold % 2)
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60)).astype(np.uint8)


def tiny_world(patch):
    patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    patch.setattr(data, "load_configured", lambda config: CASES)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    tiny_world(monkeypatch)


def config_of(split, **train):
    config = small_runs.make_config(keep="last", **train)
    config.data.split = split
    config.data.folds = (0,) if split == "all" else ()
    config.data.manual_dir = "/a/folder/of/this/machine"
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on all images, and a cross-validated one of the same recipe."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        tiny_world(patch)
        crossval.train_and_evaluate(config_of("all"), folder / "all")
        crossval.train_and_evaluate(config_of("published"), folder / "folds")
    return folder


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    """A bundle of the first; tests work on copies."""
    out = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        tiny_world(patch)
        bundle.make_bundle(runs / "all", out, evidence=[runs / "folds"])
    return out


def test_a_network_for_all_images_has_the_figures_and_trust_of_its_evidence(runs, tmp_path):
    out = tmp_path / "out"
    rounding = bundle.make_bundle(runs / "all", out, evidence=[runs / "folds"])
    assert sorted(path.name for path in out.iterdir()) == [
        "bundle.json",
        "config.json",
        "model_card.md",
        "pictures.json",
        "trust.json",
        "weights.safetensors",
    ]
    trust = json.loads((out / "trust.json").read_text())
    assert list(trust["folds"]) == ["0"]
    assert trust["folds"]["0"]["validation_images"] == len(CASES)
    summary = json.loads((runs / "folds" / "summary.json").read_text())
    card = (out / "model_card.md").read_text()
    assert f"{summary['results']['refined']['figures']['acc']['mean']:.3f}" in card
    assert "trained on all of them" in card and "not a medical device" in card
    assert "## Figures, published split" in card
    assert "average of the folds" not in card
    assert rounding.images == len(CASES)
    predictor = Predictor(out)
    assert predictor.calibrated
    assert predictor([PICTURE])[0].uncertainty is not None
    # The rounding is that of float16, and no more.
    assert 0 < rounding.probability < 2e-2
    before, after = Predictor(runs / "all")([PICTURE])[0], predictor([PICTURE])[0]
    np.testing.assert_allclose(after.probability, before.probability, atol=1e-2)


def test_a_cross_validated_run_keeps_its_folds_and_its_trust(runs, tmp_path):
    out = tmp_path / "out"
    bundle.make_bundle(runs / "folds", out)
    assert Predictor(out).folds == (0, 1)
    assert Predictor(out, folds=(1, 0)).folds == (1, 0)
    before = json.loads((runs / "folds" / "trust.json").read_text())
    assert json.loads((out / "trust.json").read_text()) == before
    one, other = Predictor(runs / "folds")([PICTURE])[0], Predictor(out)([PICTURE])[0]
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-2)
    assert other.uncertainty == pytest.approx(one.uncertainty, abs=0.05)


def test_an_ensemble(runs, tmp_path):
    other_seed = config_of("published")
    other_seed.seed = 7
    crossval.train_and_evaluate(other_seed, tmp_path / "other")
    ensemble.make_ensemble([runs / "folds", tmp_path / "other"], tmp_path / "both")
    bundle.make_bundle(tmp_path / "both", tmp_path / "out")
    trained = trained_folds.load(tmp_path / "out")
    assert [member.fold for member in trained.members] == [0, 0, 1, 1]
    one, other = Predictor(tmp_path / "both")([PICTURE])[0], Predictor(tmp_path / "out")([PICTURE])
    np.testing.assert_allclose(one.probability, other[0].probability, atol=1e-2)


def test_it_names_no_folder_of_the_machine(made):
    for path in made.iterdir():
        assert b"this/machine" not in path.read_bytes(), path


def test_the_card_names_no_folder_of_the_machine(runs):
    trained = trained_folds.load(runs / "folds")
    trained.config.data.name = "/home/anna/klinik/pictures"
    rounding = bundle_card.Rounding(48, 0.0, 0.0, 0)
    text = bundle_card.text(trained, trained, [], 48, rounding)
    assert "anna" not in text
    assert "`pictures`, 48 images." in text


def section_of(text):
    return text.split("## Making it again\n\n```\n")[1].split("\n```")[0].splitlines()


def test_the_card_gives_the_commands_that_make_it_again(runs, made):
    lines = section_of((made / "model_card.md").read_text())
    assert [line.split(" --config.")[0] for line in lines] == [
        "mtbus train --config=base --workdir=runs/network",
        "mtbus train --config=base --workdir=runs/tested_1",
        "mtbus bundle --run=runs/network --evidence runs/tested_1 --out=network",
    ]
    # Each command, read again, has the settings of its run.
    for line, run in zip(lines, ("all", "folds"), strict=False):
        given, _ = configuration.take(shlex.split(line)[2:])
        content = configuration.read(given).to_dict()
        own = json.loads((runs / run / "config.json").read_text())
        assert config_hash.of(content) == config_hash.of(own)
        assert content["seed"] == own["seed"] and "--config.seed=" in line
        assert config_hash.of(own) in (made / "model_card.md").read_text() or run == "folds"


def test_commands_start_from_the_configuration_that_the_run_is_named_after():
    config = configuration.load_config("best", {"seed": 7, "train.keep": "best"})
    config.data.manual_dir = "/home/anna"
    (line,) = remake.commands(config, "runs/a", folds=(0, 2))
    assert line == (
        "mtbus train --config=best --workdir=runs/a --config.train.keep=best "
        "--config.data.folds='(0, 2)' --config.seed=7"
    )
    given, _ = configuration.take(shlex.split(line)[2:])
    again = configuration.read(given)
    assert (again.data.folds, again.seed, again.train.keep) == ((0, 2), 7, "best")


def test_commands_of_an_ensemble_train_each_seed_and_join_them():
    config = configuration.load_config("best", {"eval.tta": False})
    content = config.to_dict() | {"seed": [1, 4]}
    lines = remake.commands(run_folder.config_from_json(content), "runs/a")
    flags = "--config.eval.tta=False --config.seed="
    assert lines == [
        f"mtbus train --config=best --workdir=runs/a_1 {flags}1",
        f"mtbus train --config=best --workdir=runs/a_4 {flags}4",
        "mtbus ensemble --runs runs/a_1 runs/a_4 --out=runs/a",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [("curated_busi", "Curated BUSI is a selection of BUSI."), ("bus_uclm", "CC BY-NC 4.0"),
     ("phantom", "")],
)  # fmt: skip
def test_the_card_states_what_is_known_of_the_licence(runs, name, words):
    trained = trained_folds.load(runs / "folds")
    trained.config.data.name = name
    text = bundle_card.text(trained, trained, [], 48, bundle_card.Rounding(48, 0.0, 0.0, 0))
    assert words in text
    assert ("CC BY" in text) == bool(words)


def test_a_folder_other_runs_and_weights_keep_their_last_names_alone():
    config = config_of("all", start_from="/home/anna/runs/first/fold_2")
    config.data.name = "/home/anna/klinik/pictures"
    config.loss.lossnet_weights = "/home/anna/vgg.pth"
    found = bundle._packed(config)
    assert "anna" not in str(found)
    assert (found.data.name, found.train.start_from) == ("pictures", "first/fold_2")
    assert found.loss.lossnet_weights == "vgg.pth"
    plain = config_of("all")
    assert bundle._packed(plain).train.start_from == ""


def test_an_earlier_bundle_is_replaced_and_nothing_else(runs, made, tmp_path):
    out = shutil.copytree(made, tmp_path / "out")
    bundle.make_bundle(runs / "folds", out)
    assert Predictor(out).folds == (0, 1)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        bundle.make_bundle(runs / "folds", out)
    assert (out / "notes.txt").read_text() == "mine"


def test_evidence_of_another_recipe_is_refused(runs, tmp_path):
    crossval.train_and_evaluate(config_of("all", epochs=2, batch_size=4), tmp_path / "other")
    with pytest.raises(UserError, match=r"batch_size.*train\.epochs"):
        bundle.make_bundle(tmp_path / "other", tmp_path / "out", evidence=[runs / "folds"])
    assert not (tmp_path / "out").exists()


def test_evidence_for_a_tested_run_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="Leave --evidence out"):
        bundle.make_bundle(runs / "folds", tmp_path / "out", evidence=[runs / "folds"])


def test_evidence_that_has_not_tested_all_images_is_refused(runs, tmp_path):
    copy = shutil.copytree(runs / "folds", tmp_path / "part")
    shutil.rmtree(copy / "fold_1")
    with pytest.raises(UserError, match="24 of the 48"):
        bundle.make_bundle(runs / "all", tmp_path / "out", evidence=[copy])


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("weights.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "digest"),
        ("weights.safetensors", lambda b: b[: len(b) // 2], "digest"),
        ("bundle.json", lambda b: b[:20], "not valid JSON"),
        ("bundle.json", lambda b: b'{"folds": []}', "mtbus_jax is missing"),
        ("config.json", lambda b: b.replace(b'"width": 4', b'"width": 5'), "has the shape"),
        ("config.json", lambda b: b"[]", "config.json"),
    ],
)
def test_a_damaged_bundle_is_refused(made, tmp_path, name, damage, words):
    out = shutil.copytree(made, tmp_path / "out")
    path = out / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=words):
        Predictor(out)


def test_missing_weights_are_refused(made, tmp_path):
    out = shutil.copytree(made, tmp_path / "out")
    (out / bundled.WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        Predictor(out)
