"""Every network of the registry trains one epoch of the phantom set, through the main job."""

import jax
import numpy as np
import optax
import pytest

from configs import base
from mtbus_jax import crossval, models
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics

# The smallest that keeps every layer: heads of attention and groups of channels divide it.
WIDTHS = {"swin_unetr": 12, "segresnet": 8, "acsnet": 16}


@pytest.mark.long
@pytest.mark.parametrize("name", models.REGISTRY)
def test_one_epoch_of_phantoms(name, tmp_path, phantom_data_dir):
    config = base.get_config()
    config.name = config.model.name = name
    if name != "lite_unet":  # which has one width
        config.model.width = WIDTHS.get(name, 2)
    config.data.update(
        {
            "name": "phantom",
            "folds": (0,),
            "image_size": (32, 64),
            "data_dir": str(phantom_data_dir),
            "cache_dir": str(tmp_path / "cache"),
        }
    )
    config.train.update({"epochs": 1, "batch_size": 16, "learning_rate": 1e-3})
    config.eval.tta = False
    config.log.progress = config.log.tensorboard = False
    result = crossval.train_and_evaluate(config, tmp_path / "run")
    figures = result["results"]["refined"]["figures"]
    assert 0 <= figures["dsc_average"]["mean"] <= 1
    assert 0 <= figures["acc"]["mean"] <= 1
    (row,) = read_metrics(tmp_path / "run" / "fold_0")
    assert np.isfinite([row["train_loss"], row["validation_loss"]]).all()
    assert (row["train_reconstruction"] > 0) == (name == "adityan")
    with Checkpoints(tmp_path / "run" / "fold_0" / "checkpoints", {}) as checkpoints:
        state = checkpoints.restore_latest(Experiment.from_config(config).abstract_state())
    # Adam's averages of the squared gradients: all finite, and every kernel has had one. (A bias in
    # front of a normalisation has a gradient of 0 up to rounding, whose square may vanish.)
    squares_of = optax.tree.get(state.opt_state, "nu")
    for path, squares in jax.tree_util.tree_leaves_with_path(squares_of):
        assert np.isfinite(squares).all(), path
        if "kernel" in jax.tree_util.keystr(path):
            assert np.any(np.asarray(squares) > 0), path
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables))
