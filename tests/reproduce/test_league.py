"""The league table: a whole small one, resuming, what is missing, what is left out, its figures."""

import dataclasses
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import flax.linen as nn
import jax
import numpy as np
import pandas as pd
import pytest
import tiny

from mtbus_jax import configuration, data, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation.evaluate import REFINED
from mtbus_jax.models import weights
from mtbus_jax.reproduce import command
from mtbus_jax.reproduce import jobs as jobs_lib
from mtbus_jax.reproduce.league import about as about_lib
from mtbus_jax.reproduce.league import costs, entries, picture, results, write
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.reproduce.plan import Scale
from mtbus_jax.training.experiment import Experiment

TABLE = "league_curated_busi"


class Other(tiny.TinyNet):
    """The tiny network with an encoder whose weights no package carries."""

    encoder_weights: str = ""
    encoder = "resnet18"
    encoder_scope = "encoder"


class Demanding(nn.Module):
    """One that takes images of a thousand pixels only."""

    tasks: tuple[str, ...] = types.TASKS
    classes: int = 3
    depth = 10

    def __call__(self, image, *, train=False):
        raise NotImplementedError


@pytest.fixture
def world(monkeypatch, tmp_path):
    networks = {"tiny": tiny.TinyNet, "other": Other, "demanding": Demanding}
    monkeypatch.setattr(models, "REGISTRY", networks)
    cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cases


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


def test_a_small_one_from_nothing_and_again(world, tmp_path, trained):
    tmp_path = tmp_path / "league"
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


def test_on_a_folder_of_ones_own_it_stays_in_its_folder_and_goes_on(
    world, tmp_path, trained, monkeypatch
):
    (tmp_path / "mine").mkdir()
    binary = world.take(np.flatnonzero(world.label < 2))
    own = dataclasses.replace(
        binary, name="mine", classes=types.Classes(("benign", "malignant"), None)
    )
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: own)
    flags = arguments(
        tmp_path / "league",
        f"--config.data.name={tmp_path / 'mine'}",
        "--networks=tiny",
        "--seeds=7",
        "--folds=0",
    )
    command.main(flags)
    command.main(flags)
    assert trained == [("mine_tiny_seed7", 0)]
    assert not list((tmp_path / "mine").iterdir())
    assert "split | given, folds 0" in (tmp_path / "league" / "league_mine.md").read_text()
    table = pd.read_csv(tmp_path / "league" / "league_mine.csv").set_index("network")
    # Four features to two classes, not to the three of the public datasets.
    assert table.loc["tiny"].parameters == (25 * 4 + 4) + 2 * (4 + 1) + (4 * 2 + 2)


def test_folds_without_validation_images_are_done_when_they_are_tested(world, tmp_path, trained):
    flags = arguments(tmp_path / "league", "--networks=tiny", "--seeds=7", "--folds=0")
    for _ in range(2):
        command.main([*flags, "--config.data.validation=False"])
    assert trained == [("curated_busi_tiny_seed7", 0)]


# Figures of two rows by hand: refined Dice of the two test images of each seed and fold.
DICE = {
    "tiny": {(1, 0): (0.6, 0.8), (1, 1): (0.5, 0.7), (2, 0): (0.9, 0.7), (2, 1): (0.6, 0.6)},
    # Its second seed is half done, and would make it the first row.
    "other": {(1, 0): (0.4, 0.8), (1, 1): (0.6, 0.4), (2, 0): (1.0, 1.0)},
}


def write_runs(league, dice=DICE):
    """Run folders as training leaves them, as far as the table reads them."""
    for entry in league.entries:
        for (seed, fold), values in dice.get(entry.name, {}).items():
            config = league.config(entry, seed)
            folder = league.directory(entry, seed)
            (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(json.dumps(config.to_dict()))
            rows = {
                "uid": [f"{fold}_a", f"{fold}_b"],
                "fold": fold,
                "label": ["benign", "malignant"],
                "dice": np.array(values) * 0.8,
                f"{REFINED}dice": values,
                "predicted": ["benign", "benign"],
                f"{REFINED}predicted": ["benign", "malignant"],
                **{f"probability_{name}": 1 / 3 for name in types.CLASS_NAMES},
            }
            pd.DataFrame(rows).to_csv(folder / f"fold_{fold}" / "cases.csv", index=False)


@pytest.fixture
def written(world, tmp_path, monkeypatch):
    def is_finished(job):
        return (job.workdir / f"fold_{job.fold}" / "cases.csv").exists()

    monkeypatch.setattr(jobs_lib, "is_finished", is_finished)
    league = make_league(tmp_path / "league", networks=("tiny", "other"))
    write_runs(league)
    return league


def test_figures_by_hand(written):
    first, second = results.rows(written)[:2]
    assert (first.entry.name, second.entry.name) == ("tiny", "other")
    dice = first.spread("dsc_average", "refined")
    # Folds: 0.7 and 0.6 of seed 1, 0.8 and 0.6 of seed 2; seeds: 0.65 and 0.7.
    assert dice.mean == pytest.approx(0.675)
    assert dice.sd_seeds == pytest.approx(0.05 / math.sqrt(2))
    assert dice.sd_runs == pytest.approx(np.std([0.7, 0.6, 0.8, 0.6], ddof=1))
    assert first.spread("dsc_average", "raw").mean == pytest.approx(0.54)
    assert first.spread("acc", "refined").mean == 1
    assert first.spread("acc", "raw").mean == 0.5
    # Of the other, seed 1 alone.
    assert second.seeds == (1,)
    dice = second.spread("dsc_average", "refined")
    assert dice.mean == pytest.approx(0.55)
    assert math.isnan(dice.sd_seeds)
    assert dice.sd_runs == pytest.approx(0.1 / math.sqrt(2))
    assert [text for text in second.missing if "fold 1 is not finished" in text]


def test_how_far_behind_the_first_is_by_hand(written):
    first, second = results.rows(written)[:2]
    mean, low, high = results.behind(first, second)
    # By image, mean over the seeds of the first: 0.75, 0.75, 0.55, 0.65; of the other as given.
    differences = np.array([0.75 - 0.4, 0.75 - 0.8, 0.55 - 0.6, 0.65 - 0.4])
    assert mean == pytest.approx(differences.mean())
    assert differences.min() <= low < mean < high <= differences.max()


def test_the_table_says_what_is_not_done(written):
    rows = results.rows(written)
    about = about_lib.gather(written, rows)
    text = write.to_markdown(written, rows, about, command="x", not_measured={}, pictured=False)
    assert re.search(r"^\| tiny \| drawn \| 4 \| 0\.675 ± 0\.035 \| 0\.540 ± ", text, flags=re.M)
    assert re.search(r"^\| other \| drawn \| 2 of 4 \| 0\.550 \| ", text, flags=re.M)
    assert "- other: curated_busi_other_seed2, fold 1 is not finished" in text
    assert "- other_resnet18_imagenet: " in text and "--weights=resnet18=FILE" in text
    assert "| train.learning_rate | 0.002 | 0.0001 |" in text
    table = pd.read_csv(io.StringIO(write.to_csv(written, rows))).set_index("network")
    assert table.state["other"] == "partly done"
    assert table.runs["other"] == 2
    assert table.dsc_behind_first["other"] == pytest.approx(0.125)
    runs = pd.read_csv(io.StringIO(write.runs_csv(rows)))
    assert len(runs) == 7  # the run that is done of a seed that is not is in it too


def test_a_failure_stands_in_the_table(written):
    entry = written.entries[1]
    job = written.of(entry, 2)[1]
    jobs_lib._write(
        job, jobs_lib.Record("failed", 2, 2, 1, 50, 0, "the loss is not a number", "log")
    )
    (row,) = [row for row in results.rows(written) if row.entry == entry]
    assert any("failed 2 times (log): the loss is not a number" in text for text in row.missing)


def test_every_network_of_the_registry_is_a_row_by_itself(monkeypatch):
    found = entries.all_entries({})
    assert {entry.model for entry in found} == set(models.REGISTRY)
    assert len({entry.name for entry in found}) == len(found)
    drawn = [entry.name for entry in found if not entry.encoder_weights]
    assert drawn == list(models.REGISTRY)
    named = {entry.name: entry for entry in found}
    for encoder in weights.PACKAGES:
        assert named[f"lite_unet_{encoder}_imagenet"].options == {
            "name": "lite_unet", "encoder": encoder, "encoder_weights": "imagenet",
        }  # fmt: skip
    (acsnet,) = [entry for entry in entries.all_entries({"resnet18": "r.pth"})
                 if entry.model == "acsnet" and entry.encoder_weights]  # fmt: skip
    assert acsnet.options == {"name": "acsnet", "encoder_weights": "r.pth"}
    monkeypatch.setitem(models.REGISTRY, "another", tiny.TinyNet)
    assert entries.all_entries({})[-1] == entries.Entry("another", "another")


def test_a_run_is_the_recipe_with_another_network(tmp_path):
    league = make_league(tmp_path)
    drawn, pretrained = entries.choose(league.entries, ("lite_unet",))[:2]
    recipe = league.recipe
    for entry, rate in ((drawn, 1.0), (pretrained, recipe.train.encoder_rate)):
        config = league.config(entry, 1994)
        assert config.seed == 1994 and config.data.folds == (0, 1)
        assert config.train.encoder_rate == rate
        for name in ("learning_rate", "batch_size", "augmentation", "course", "weight_decay"):
            assert config.train[name] == recipe.train[name]
        assert config.loss == recipe.loss
        assert config.data.image_size == (tiny.HEIGHT, tiny.WIDTH)
    unet = league.config(entries.Entry("unet", "unet"), 1993)
    assert {name for name, value in unet.model.items() if value is not None} == {"name"}


def test_a_network_that_cannot_take_a_setting_is_named_with_the_reason(world, tmp_path):
    league = make_league(tmp_path, networks=("tiny", "demanding"), width=3)
    assert [entry.name for entry in league.trainable] == ["tiny"]
    ((entry, why),) = league.left_out.items()
    assert entry.name == "demanding" and "width" in why
    with pytest.raises(UserError, match=r"no network can be trained so: .*1024"):
        _ = make_league(tmp_path, networks=("demanding",)).left_out
    with pytest.raises(UserError, match=r"train\.epochs=0"):
        _ = make_league(tmp_path, networks=("tiny",), epochs=0).left_out


def test_operations_in_closed_form(world, tmp_path):
    league = make_league(tmp_path, networks=("tiny",))
    experiment = Experiment.from_config(league.config(league.entries[0], 1))
    shape = (tiny.HEIGHT, tiny.WIDTH, 1)
    variables = models.init(experiment.module, jax.random.key(0), shape)
    # Of the 5 taps two lie outside at each end of a line, and one a pixel further in.
    taps = (5 * tiny.HEIGHT - 6) * (5 * tiny.WIDTH - 6)
    pixels = tiny.HEIGHT * tiny.WIDTH
    products = taps * 4 + pixels * 4 + 4 * 3
    # Scaling, bias, ReLU, mean, and two more biases; XLA may do them twice rather than store them.
    single = pixels * (1 + 4 + 4 + 4 + 1) + 4 + 3
    found = costs.count_operations(experiment, variables)
    assert 2 * products + 0.9 * single <= found <= 2 * products + 2 * single


def test_a_cost_of_other_settings_is_measured_again(world, tmp_path):
    league = make_league(tmp_path, networks=("tiny",))
    entry = league.entries[0]
    cost = costs.Cost(1, 2.0, 3.0, 4.0, 5, "a machine", 0.5, costs._settings(league, entry))
    path = costs._path(league, entry)
    path.parent.mkdir()
    path.write_text(json.dumps(dataclasses.asdict(cost)))
    assert costs.read(league, entry) == cost
    larger = make_league(tmp_path, networks=("tiny",), image_size=(32, 64))
    assert costs.read(larger, entry) is None
    path.write_text("{}")
    with pytest.raises(UserError, match="measured again"):
        costs.read(league, entry)


def test_a_busy_machine_is_named(written):
    rows = results.rows(written)
    load = {"tiny": 0.9, "other": 4.0}
    rows = [
        dataclasses.replace(
            row, cost=costs.Cost(1, 1.0, 1.0, 1.0, 1, "m", load[row.entry.name], {})
        )
        for row in rows
    ]
    text = "\n".join(write._how_to_read(rows))
    assert "**Measured on a busy machine:** times of other are too long" in text
    assert "more than one machine" not in text
    assert "busy" not in "\n".join(write._how_to_read(rows[:1]))


def test_a_measurement_that_fails_stops_no_other(world, tmp_path, monkeypatch):
    league = make_league(tmp_path, networks=("tiny", "other"))
    settings = {entry: costs._settings(league, entry) for entry in league.trainable}

    def measure(league, entry, cases):
        if entry.name == "tiny":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return costs.Cost(1, 2.0, 3.0, 4.0, 5, "a machine", 0.5, settings[entry])

    monkeypatch.setattr(costs, "measure", measure)
    failures = costs.measure_missing(league, world)
    assert {entry.name: why for entry, why in failures.items()} == {
        "tiny": "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    }
    assert costs.read(league, league.trainable[1]).parameters == 1


def test_the_picture(written):
    measured = {"tiny": 2.0, "other": 0.5}
    rows = [
        dataclasses.replace(
            row,
            cost=costs.Cost(1, measured[row.entry.name], 1.0, 1.0, 1, "", 0.5, {}),
        )
        for row in results.rows(written)
    ]
    root = ElementTree.fromstring(picture.draw(written, rows))
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert texts.count("tiny") == texts.count("other") == 2  # a panel each for Dice and accuracy
    dots = [each for each in root.iter() if each.tag.endswith("circle") and len(each)]
    titles = {each[0].text: float(each.get("cx")) for each in dots}
    assert titles["other: 0.550, 0.50 GFLOP"] < titles["tiny: 0.675, 2.00 GFLOP"]
    assert picture.draw(written, [dataclasses.replace(row, cost=None) for row in rows]) == ""


def test_what_is_best_for_its_cost():
    points = [
        picture._Point(name, cost, value, math.nan, "drawn")
        for name, cost, value in (
            ("dear", 9.0, 0.8), ("worse", 4.0, 0.6), ("cheap", 1.0, 0.5), ("alike", 4.0, 0.7),
            ("dearer", 10.0, 0.8),
        )
    ]  # fmt: skip
    assert [p.name for p in picture.best_for_their_cost(points)] == ["cheap", "alike", "dear"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--networks=nine"], "--networks=nine: there is no such row. Known: unetpp"),
        (["--weights=resnet18"], "--weights=resnet18: give ENCODER=FILE"),
        (["--weights=vgg=x.pth"], "--weights=vgg=…: no network has this encoder. Known: lite0"),
        (["--networks=acsnet_resnet18_imagenet", "--weights=resnet18=nowhere.pth"], "nowhere.pth"),
        (["--seeds=1,1"], "--seeds=1,1: give each seed once"),
        (["--seeds=x"], "--seeds=x: give comma-separated numbers"),
        (["--table=5"], "--league makes a table of its own"),
        (["--config.seed=3"], "--config.seed is what the league itself varies; see --seeds"),
        (["--config.model.width=3"], "see --networks and --width"),
        (["--config.data.folds=0"], "see --folds"),
        (["--config.train.epochs=0"], "train.epochs=0"),
        (["--image_size=64"], "--image_size=64: give height and width"),
        (["--workdir="], "--workdir is missing"),
        (["--slurm_gpus=1"], "--launcher=submitit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_refused_before_anything_is_written(tmp_path, flags, message):
    workdir = tmp_path / "league"
    with pytest.raises(UserError, match=re.escape(message)):
        command.main(["--league", f"--workdir={workdir}", *flags])
    assert not workdir.exists()


def test_flags_of_the_league_alone():
    with pytest.raises(UserError, match="--seeds belongs to --league"):
        command.main(["--table=5", "--workdir=x", "--seeds=1"])
