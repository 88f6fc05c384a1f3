"""The network that comes with the library."""

import json
import pathlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

from mtbus_jax import types
from mtbus_jax.export import bundle_card
from mtbus_jax.images import phantom
from mtbus_jax.metrics.segmentation import dice
from mtbus_jax.predict import Predictor, command
from mtbus_jax.training import bundled, former_fields, run_folder, trained_folds

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import keep_results  # noqa: E402


@pytest.fixture(scope="module")
def predictor():
    return Predictor()


def test_it_is_small_and_says_what_it_is():
    folder = bundled.PRETRAINED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 9e6
    card = (folder / bundled.CARD).read_text(encoding="utf-8")
    for words in (
        "not a medical device",
        "10.1016/j.dib.2019.104863",
        "ImageNet",
        "published split",
    ):
        assert words in card
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["split"] == "all"
    assert not any(config["data"][place] for place in ("data_dir", "manual_dir", "cache_dir"))


def test_its_card_is_what_the_generator_writes():
    """All but the figures, which the runs give that the card names as tested."""
    trained = trained_folds.load(bundled.PRETRAINED)
    evidence = []
    for run in ("best_seed1993", "best_grouped"):
        content = json.loads((ROOT / "results" / run / "config.json").read_text())
        evidence.append(run_folder.config_from_json(former_fields.completed(content)))
    rounding = bundle_card.Rounding(450, 1.5e-2, 1.06e-4, 0)
    expected = bundle_card.text(trained, trained, [], 450, rounding, evidence=evidence)
    card = (bundled.PRETRAINED / bundled.CARD).read_text(encoding="utf-8")
    before, rest = card.split("## Figures, published split")
    figures, after = rest.split("## Limits")
    assert f"{before}## Limits{after}" == expected
    assert figures.count("## Figures, grouped split") == 1
    for words in ("mtbus train --config=best", "--config.seed=1993", "--evidence", "CC BY 4.0"):
        assert words in after


def test_its_card_has_the_figures_of_the_kept_runs():
    card = (bundled.PRETRAINED / bundled.CARD).read_text(encoding="utf-8")
    _, published, grouped = card.split("## Figures, ")
    for text, run in ((published, "best_seed1993"), (grouped, "best_grouped")):
        found = keep_results.figures(ROOT / "results" / run / "cases.csv", "refined_")
        for name, row in (("DSC average", "dsc"), ("Accuracy", "acc")):
            stated = re.search(rf"^\| {name} \|.*\| (\S+) ± (\S+) \|$", text, re.M)
            assert float(stated[1]) == pytest.approx(found.loc[row, "mean"], abs=5.1e-4)
            assert float(stated[2]) == pytest.approx(found.loc[row, "std"], abs=5.1e-4)
    # The same command on the processor of README's table.
    other = keep_results.figures(
        ROOT / "results" / "best_grouped_seed1993" / "cases.csv", "refined_"
    )
    for row in ("dsc", "acc"):
        assert f" of {other.loc[row, 'mean']:.3f}" in grouped


def test_it_is_calibrated_and_knows_the_published_classes(predictor):
    assert predictor.classes == types.CLASSES
    assert predictor.calibrated and predictor.refine == "hard"


def test_it_finds_lesions_that_it_was_not_trained_on(predictor):
    """Simulated ones: not a figure of merit, but far from what drawn weights would give."""
    made = [p for p in phantom.make_phantoms(24) if p.masks]
    found = predictor([p.image for p in made])
    overlap = [
        dice(np.any(p.masks, axis=0), answer.mask) for p, answer in zip(made, found, strict=True)
    ]
    assert np.mean(overlap) > 0.5


def test_the_command_takes_it_where_no_run_is_named(tmp_path, capsys):
    picture = next(iter(phantom.make_phantoms(1))).image
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "a.png")
    code = command.main([f"--input={tmp_path / 'in'}", f"--out={tmp_path / 'out'}"])
    assert code == 0
    assert "the one that comes with mtbus_jax" in capsys.readouterr().out
    assert (tmp_path / "out" / "masks" / "a.png").is_file()
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["calibrated"]
