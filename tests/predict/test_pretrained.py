"""The network that comes with the library."""

import json

import numpy as np
import pytest
from PIL import Image

from mtbus_jax import types
from mtbus_jax.images import phantom
from mtbus_jax.metrics.segmentation import dice
from mtbus_jax.predict import Predictor, command
from mtbus_jax.training import bundled


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
