"""Two classes or three, and so many folds: one configuration, any network."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import base
from mtbus_jax import crossval, data, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation.evaluate import read_cases
from mtbus_jax.predict.predictor import Predictor
from mtbus_jax.training.experiment import Experiment

BINARY = ("benign", "malignant")


def experiment_of(network, names=BINARY):
    """An experiment with a weight for each class, on images of the smallest size that it takes."""
    config = base.get_config()
    config.data.name, config.data.class_names = "phantom", names
    config.model.name = network
    # The smallest widths that the networks' groups and heads allow.
    config.model.width = {"lite_unet": None, "acsnet": 16, "swin_unetr": 12}.get(network, 8)
    config.loss.class_weights = tuple(range(1, (len(names) or 3) + 1))
    experiment = Experiment.from_config(config)
    side = 2 * 2**experiment.module.depth
    config.data.image_size = (side, side // 2)
    return experiment


def images_of(experiment):
    return jax.ShapeDtypeStruct((2, *experiment.config.data.image_size, 1), jnp.float32)


@pytest.mark.parametrize("network", models.REGISTRY)
def test_every_network_has_an_output_for_each_class(network):
    """Traced, not run. Outputs and gradients for three classes are in the tests of each network."""
    experiment = experiment_of(network)
    assert len(experiment.classes) == 2
    variables = experiment.abstract_state().variables
    outputs = jax.eval_shape(
        lambda v, x: experiment.module.apply(v, x, train=False), variables, images_of(experiment)
    )
    assert outputs.class_logits.shape == (2, 2)


@pytest.mark.parametrize("names", [BINARY, ()], ids=["two", "three"])
def test_a_training_step_has_a_weight_for_each_class(names):
    """Traced, not run, with one network: for a step, two differ in their outputs alone."""
    experiment = experiment_of("unet", names)
    assert len(experiment.classes) == (len(names) or 3)
    image = images_of(experiment)
    number = jax.ShapeDtypeStruct((2,), jnp.float32)
    label = jax.ShapeDtypeStruct((2,), jnp.int32)
    state = experiment.abstract_state()
    step = functools.partial(experiment.train_step(), key=jax.random.key(0))
    after, sums = jax.eval_shape(step, state, types.Batch(image, image, label, number))
    assert jax.tree.map(lambda a: a.shape, after) == jax.tree.map(lambda a: a.shape, state)
    assert sums.loss.shape == ()


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Tiny pictures of three classes in a file, two folds to be drawn."""
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    path = tmp_path / "cases.npz"
    data.save_arrays(tiny.make_cases(), path)
    config = tiny.make_config(epochs=1)
    config.data.arrays_file = str(path)
    config.data.folds = ()
    config.data.split, config.data.fold_count = "grouped", 2
    return config


def test_only_the_named_classes_are_loaded_with_codes_in_their_order(config):
    whole = data.load_configured(config)
    config.data.class_names = ("malignant", "normal")
    cases = data.load_configured(config)
    assert cases.classes == types.Classes(("malignant", "normal"), 1)
    kept = whole.label > 0
    np.testing.assert_array_equal(cases.uid, whole.uid[kept])
    np.testing.assert_array_equal(cases.label, whole.label[kept] - 1)
    np.testing.assert_array_equal(cases.mask, whole.mask[kept])
    config.data.class_names = BINARY
    assert data.load_configured(config).classes == types.Classes(BINARY, None)


def test_another_order_keeps_the_class_without_a_lesion(config):
    """Of a folder's own classes; those of public datasets have one order."""
    config.data.class_names = ("normal", "malignant", "benign")
    cases = data.load_configured(config)
    assert cases.classes == types.Classes(("normal", "malignant", "benign"), 0)
    names = np.array(cases.classes.names)[cases.label]
    assert [uid.partition("_")[0] for uid in cases.uid] == names.tolist()


def test_the_binary_protocol_from_training_to_prediction(config, tmp_path):
    config.data.class_names = BINARY
    result = crossval.train_and_evaluate(config, tmp_path / "run")
    assert result["class_names"] == list(BINARY)
    assert (result["folds"], result["test_images"]) == ([0, 1], 32)
    figures = result["results"]["raw"]["figures"]
    assert not [name for name in figures if "normal" in name]
    assert list(result["results"]) == ["raw"]  # no class means "no lesion"
    # Of two classes, the one's probability is the other's from 1: one area.
    assert figures["auc_benign"]["folds"] == pytest.approx(figures["auc_malignant"]["folds"])
    rows = read_cases(tmp_path / "run")
    assert set(rows.label) == set(BINARY)
    np.testing.assert_allclose(rows.probability_benign + rows.probability_malignant, 1, atol=1e-6)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert (recorded["class_names"], recorded["normal_class"]) == (list(BINARY), "")
    predictor = Predictor(tmp_path / "run")
    (prediction,) = predictor([np.full((40, 50), 90, np.uint8)])
    assert prediction.class_names == BINARY
    assert np.shape(prediction.class_probability) == (2,)
    # The same command once more goes on, with nothing left to do.
    assert crossval.train_and_evaluate(config, tmp_path / "run")["results"] == result["results"]


@pytest.mark.parametrize(
    "names", [("benign", "benign"), ("malignant", "benign"), ("benign", "cyst")]
)
def test_other_names_of_a_public_dataset_are_refused(config, names):
    config.data.class_names = names
    with pytest.raises(UserError, match=r"data\.class_names=.*benign, malignant, normal"):
        Experiment.from_config(config)
