"""Training from another run's weights: which are taken, what begins anew, and what is refused."""

import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny
from flax import traverse_util

from mtbus_jax import crossval, data, ensemble, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.training import run_splits, trained_folds
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics


class SizedNet(tiny.TinyNet):
    """A network with an array as large as its images."""

    @nn.compact
    def __call__(self, image, *, train=False):
        outputs = tiny.TinyNet.__call__(self, image, train=train)
        offset = self.param("offset", nn.initializers.zeros, image.shape[1:])
        return outputs._replace(segmentation=tuple(s + offset for s in outputs.segmentation))


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
        patch.setitem(models.REGISTRY, "sized", SizedNet)
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
        yield


def make_config(*, folds=(0,), epochs=1, seed=5, **changes):
    config = tiny.make_config(epochs=epochs, **changes)
    config.seed, config.data.folds, config.log.tensorboard = seed, folds, False
    return config


# With a learning rate of nothing the weights stay what they were at the start.
STILL = {"learning_rate": 1e-30, "min_learning_rate": 0.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained run of two folds."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    crossval.train_and_evaluate(make_config(folds=(0, 1), epochs=2, seed=1), workdir)
    return workdir


def arrays(run, fold):
    """Best weights of a fold by path."""
    found = trained_folds.load(run, [fold]).members[0].variables["params"]
    return {"/".join(path): np.asarray(a) for path, a in traverse_util.flatten_dict(found).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        # What is 0 at the start moves by some 1e-30.
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-25, err_msg=name)


def test_each_fold_starts_from_its_own_or_from_the_one_that_is_named(source, tmp_path, capsys):
    config = make_config(folds=(0, 1), start_from=str(source), **STILL)
    crossval.train_and_evaluate(config, tmp_path / "own")
    printed = capsys.readouterr().out
    for fold in (0, 1):
        assert_same(arrays(tmp_path / "own", fold), arrays(source, fold))
        assert f"starting from the weights of {source}, fold {fold}\n" in printed
    assert np.any(arrays(source, 0)["conv/kernel"] != arrays(source, 1)["conv/kernel"])


def test_without_it_weights_are_drawn(source, tmp_path):
    crossval.train_and_evaluate(make_config(**STILL), tmp_path / "drawn")
    drawn = arrays(tmp_path / "drawn", 0)
    assert np.any(drawn["conv/kernel"] != arrays(source, 0)["conv/kernel"])


def test_optimiser_schedule_and_random_numbers_begin_anew(source, tmp_path):
    """One step from loaded weights is the step that a fresh run with these weights would do."""
    config = make_config(start_from=str(source))
    crossval.train_and_evaluate(config, tmp_path / "warm")
    cases = tiny.make_cases()
    experiment = Experiment.from_config(config)
    split = run_splits.find_folds(tmp_path / "warm", cases, "published")[0]
    fresh = experiment.init_state(0)
    weights = trained_folds.load(source, [0]).members[0].variables["params"]
    from mtbus_jax.training.fold import FoldRun

    run = FoldRun(
        experiment,
        cases,
        split,
        fold=0,
        directory=tmp_path / "by_hand",
        origin={},
        start=lambda state: state.replace(
            params=jax.tree.map(lambda x: x + 0, weights),
            best_params=jax.tree.map(lambda x: x + 0, weights),
        ),
    )
    loop = tiny.make_loop(experiment, cases)
    with run.open():
        assert int(run.state.step) == int(fresh.step) == 0
        assert float(run.state.plateau.learning_rate) == pytest.approx(config.train.learning_rate)
        assert not any(leaf.any() for leaf in jax.tree.leaves(run.state.opt_state))
        loop.train(run)
    assert tiny.without_times(read_metrics(tmp_path / "by_hand")) == tiny.without_times(
        read_metrics(tmp_path / "warm" / "fold_0")
    )


def test_what_the_other_run_did_not_train_is_drawn_and_named(tmp_path, capsys):
    segmenting = make_config(seed=1)
    segmenting.tasks = ("seg",)
    crossval.train_and_evaluate(segmenting, tmp_path / "seg")
    config = make_config(start_from=str(tmp_path / "seg"), **STILL)
    crossval.train_and_evaluate(config, tmp_path / "both")
    assert "fold 0; randomly initialised: cls/bias, cls/kernel\n" in capsys.readouterr().out
    found, other = arrays(tmp_path / "both", 0), arrays(tmp_path / "seg", 0)
    assert_same({name: found[name] for name in other}, other)
    crossval.train_and_evaluate(make_config(**STILL), tmp_path / "drawn")
    drawn = arrays(tmp_path / "drawn", 0)
    assert_same(
        {name: found[name] for name in found.keys() - other.keys()},
        {name: drawn[name] for name in found.keys() - other.keys()},
    )
    # And the other way round: what this run does not train is not taken.
    back = make_config(start_from=str(tmp_path / "both"), **STILL)
    back.tasks = ("seg",)
    crossval.train_and_evaluate(back, tmp_path / "back")
    assert_same(arrays(tmp_path / "back", 0), other)


def test_a_run_goes_on_without_the_one_it_started_from(source, tmp_path):
    once = shutil.copytree(source, tmp_path / "once")
    config = make_config(epochs=2, start_from=str(once))
    crossval.train_and_evaluate(config, tmp_path / "whole")
    shutil.copytree(source, tmp_path / "again")
    crossval.train_and_evaluate(
        make_config(epochs=1, start_from=str(once)), tmp_path / "interrupted"
    )
    shutil.rmtree(once)
    crossval.train_and_evaluate(config, tmp_path / "interrupted")
    assert_same(arrays(tmp_path / "interrupted", 0), arrays(tmp_path / "whole", 0))
    refused(make_config(folds=(1,), start_from=str(once)), tmp_path / "new", "is not a folder")


def test_networks_of_an_ensemble_may_start_from_different_runs(source, tmp_path):
    for seed in (1, 2):
        config = make_config(seed=seed, start_from=str(source / "fold_0") if seed == 1 else "")
        crossval.train_and_evaluate(config, tmp_path / str(seed))
    ensemble.make_ensemble([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    assert len(trained_folds.load(tmp_path / "both").members) == 2


# What is refused.


def refused(config, workdir, *words):
    with pytest.raises(UserError) as caught:
        crossval.train_and_evaluate(config, workdir)
    for word in ("train.start_from", *words):
        assert word in str(caught.value)
    assert not workdir.exists()


def test_no_run_no_fold(source, tmp_path):
    new = tmp_path / "new"
    refused(make_config(start_from=str(tmp_path / "nowhere")), new, "is not a folder")
    refused(make_config(folds=(0, 2), start_from=str(source)), new, "fold 2", "fold_0")
    refused(make_config(start_from=str(source / "fold_7")), new, "fold 7")
    with pytest.raises(UserError, match="not a run folder"):
        crossval.train_and_evaluate(make_config(start_from=str(tmp_path)), new)
    copy = shutil.copytree(source, tmp_path / "many")
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(content | {"seed": [1, 2]}))
    refused(make_config(start_from=str(copy)), new, "is an ensemble")


def test_another_network(source, tmp_path):
    config = make_config(start_from=str(source))
    config.model.width = 6
    refused(config, tmp_path / "new", "model.width (4 there, 6 here)")


def test_arrays_of_another_shape(tmp_path):
    first, second = make_config(), make_config(start_from=str(tmp_path / "first"))
    for config in (first, second):
        config.model.name = "sized"
    crossval.train_and_evaluate(first, tmp_path / "first")
    content = json.loads((tmp_path / "first" / "config.json").read_text())
    cases = tiny.make_cases()
    wider = types.Cases(
        **{
            **{name: getattr(cases, name) for name in cases.__dataclass_fields__},
            "image": np.repeat(cases.image, 2, axis=2),
            "mask": np.repeat(cases.mask, 2, axis=2),
        }
    )
    second.data.image_size = (tiny.HEIGHT, 2 * tiny.WIDTH)
    assert content["data"]["image_size"] == [tiny.HEIGHT, tiny.WIDTH]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.arrays, "load_cases", lambda name, **kwargs: wider)
        with pytest.raises(UserError, match=r"offset has shape \(16, 32, 1\) there and \(16, 64"):
            crossval.train_and_evaluate(second, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_weights_that_know_the_images_held_out_here(source, tmp_path):
    # Fold 1 was trained on the images that fold 0 tests.
    refused(make_config(start_from=str(source / "fold_1")), tmp_path / "new", "fold 1", "holds out")
    # Also those it was chosen with, and those trained on that choose here.
    cases = tiny.make_cases()
    for here, there in (("test", "validation"), ("validation", "train")):
        copy = shutil.copytree(source, tmp_path / f"{here}_{there}")
        content = json.loads((copy / "splits.json").read_text())
        fold = content["folds"][0]
        known = fold[here][0]
        content["folds"][0] = {
            "train": [],
            "validation": [],
            "test": [uid for uid in cases.uid if uid != known],
        } | {there: [known]}
        (copy / "splits.json").write_text(json.dumps(content))
        refused(make_config(start_from=str(copy)), tmp_path / "new", "1 of the images", repr(known))
    # Nor if it was an ancestor that knows them.
    child = make_config(folds=(1,), start_from=str(source))
    crossval.train_and_evaluate(child, tmp_path / "child")
    content = json.loads((tmp_path / "child" / "splits.json").read_text())
    content["folds"][1] |= {"train": ["elsewhere_1"], "validation": ["elsewhere_2"]}
    (tmp_path / "child" / "splits.json").write_text(json.dumps(content))
    grandchild = make_config(start_from=str(tmp_path / "child" / "fold_1"))
    refused(grandchild, tmp_path / "new", f"fold 1 of {source} was trained", "holds out")
    content = json.loads((tmp_path / "child" / "config.json").read_text())
    content["train"]["start_from"] = str(tmp_path / "gone")
    (tmp_path / "child" / "config.json").write_text(json.dumps(content))
    refused(grandchild, tmp_path / "new", "gone itself, which is no longer there")
    # Nor if it cannot be told.
    path = tmp_path / "child" / "splits.json"
    for damaged in ({}, {"folds": []}, {"folds": [{}, {"train": []}]}, {"folds": None}, []):
        path.write_text(json.dumps(damaged))
        refused(grandchild, tmp_path / "new", str(path), "images of fold 1")
    # The same folds share their validation images, which is no leak.
    crossval.train_and_evaluate(make_config(start_from=str(source)), tmp_path / "fine")
