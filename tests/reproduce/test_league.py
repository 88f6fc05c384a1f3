"""The league table: a whole small one, resuming, what is missing, what is left out, its figures."""

import dataclasses

import flax.linen as nn
import pandas as pd
import pytest
import tiny

from mtbus_jax import configuration, crossval, data, models, types
from mtbus_jax.reproduce import command
from mtbus_jax.reproduce.league import costs, entries
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.reproduce.plan import Scale

TABLE = "league_curated_busi"


class Other(tiny.TinyNet):
    """The tiny network with an encoder whose weights no package carries."""

    encoder_weights: str = ""
    encoder = "resnet18"


class Demanding(nn.Module):
    """One that takes images of a thousand pixels only."""

    tasks: tuple[str, ...] = types.TASKS
    classes: int = 3
    depth = 10

    def __call__(self, image, *, train=False):
        raise NotImplementedError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        networks = {"tiny": tiny.TinyNet, "other": Other, "demanding": Demanding}
        patch.setattr(models, "REGISTRY", networks)
        cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(costs, "_CALLS", 2)
        yield cases


def arguments(workdir, *more):
    return [
        "--league",
        f"--workdir={workdir}",
        "--epochs=1",
        f"--image_size={tiny.HEIGHT},{tiny.WIDTH}",
        "--seeds=1,2",
        "--config.train.batch_size=6",
        "--config.eval.tta=False",
        "--config.eval.average=False",
        "--config.log.progress=False",
        "--config.log.tensorboard=False",
        *more,
    ]


def make_league(workdir, *, seeds=(1, 2), networks=(), **scale):
    recipe = configuration.read(configuration.Given(None, {}), default="best")
    scale = {"image_size": (tiny.HEIGHT, tiny.WIDTH), "epochs": 1} | scale
    found = entries.choose(entries.all_entries({}), networks)
    return League(workdir, recipe, frozenset(), Scale(**scale), seeds, found)


@pytest.fixture
def trained(monkeypatch):
    """The runs and folds that are trained from here on."""
    calls = []
    train = crossval.train_and_evaluate

    def watched(config, workdir, *, folds):
        calls.append((config.name, *folds))
        return train(config, workdir, folds=folds)

    monkeypatch.setattr(crossval, "train_and_evaluate", watched)
    return calls


def test_a_small_one_from_nothing_and_again(world, tmp_path, trained):
    flags = arguments(tmp_path, "--networks=tiny,demanding", "--seeds=7", "--folds=0")
    command.main(flags)
    assert trained == [("curated_busi_tiny_seed7", 0)]
    text = (tmp_path / f"{TABLE}.md").read_text()
    table = pd.read_csv(tmp_path / f"{TABLE}.csv").set_index("network")
    assert table.state.to_dict() == {"tiny": "done", "demanding": "left out"}
    cases = pd.read_csv(tmp_path / "curated_busi_tiny_seed7" / "fold_0" / "cases.csv")
    assert len(cases) == 12
    found = table.loc["tiny"]
    assert found.dsc_average_refined_mean == pytest.approx(cases.refined_dice.mean())
    assert found.acc_raw_mean == pytest.approx((cases.label == cases.predicted).mean())
    # A 5×5 convolution of 1 map to 4 and two 1×1 ones to a map each, and 4 features to 3 classes.
    assert found.parameters == (25 * 4 + 4) + 2 * (4 + 1) + (4 * 3 + 3)
    assert found.train_images_per_second > 0 and found.predict_ms > 0
    assert found.train_memory_bytes > 4 * 5 * found.parameters
    for words in ("epochs | 1 |", "folds 0", "batch | 6 images", "12", "Trained on cpu", "best"):
        assert words in text
    assert "- demanding: data.image_size=(16, 32)" in text
    assert not list(tmp_path.rglob("*.partial"))
    before = (tmp_path / "costs" / "curated_busi_tiny.json").stat().st_mtime_ns
    command.main(flags)
    assert len(trained) == 1
    assert (tmp_path / "costs" / "curated_busi_tiny.json").stat().st_mtime_ns == before
