"""Weights of the former order of the head's channels: converted as they are read, or refused."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny
from flax import traverse_util

from mtbus_jax.errors import UserError
from mtbus_jax.models import channel_order
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment

KERNEL = ("head_block", "conv_1", "kernel")


def numbered(shape):
    """An array all of whose entries differ."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def params(*, decoder=True, channels=12):
    tree = {
        "head_block": {"conv_1": {"kernel": numbered((3, 3, channels, 5)), "bias": numbered(5)}}
    }
    tree["head_down"] = {"block": {"conv_1": {"kernel": numbered((3, 3, 12, 5))}}}
    if decoder:
        tree["node_3_1"] = {"conv_1": {"kernel": numbered((3, 3, 12, 5))}}
    return tree


def test_encoder_decoder_bottleneck_becomes_encoder_bottleneck_decoder():
    old = params()
    new = traverse_util.flatten_dict(channel_order.to_current(old, 1))
    for path, array in traverse_util.flatten_dict(old).items():
        # Of twelve channels, 0 to 3 are the encoder's, 4 to 7 were the decoder's.
        wanted = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7] if path == KERNEL else range(12)
        expected = array[:, :, list(wanted)] if array.ndim == 4 else array
        np.testing.assert_array_equal(new[path], expected)


def test_kernels_of_several_folds_at_once():
    old = jax.tree.map(lambda leaf: np.stack([leaf, -leaf]), params())
    found = channel_order.to_current(old, 1)["head_block"]["conv_1"]["kernel"]
    alone = channel_order.to_current(params(), 1)["head_block"]["conv_1"]["kernel"]
    np.testing.assert_array_equal(found, np.stack([alone, -alone]))


@pytest.mark.parametrize(("order", "decoder"), [(2, True), (1, False), (2, False)])
def test_what_needs_no_change_stays_as_it_is(order, decoder):
    """Weights of today, and those of a network without decoder, whose head reads two maps."""
    old = params(decoder=decoder, channels=8)
    assert channel_order.to_current(old, order) is old


def test_an_order_that_does_not_exist():
    with pytest.raises(ValueError, match="order 3"):
        channel_order.to_current(params(), 3)


@functools.cache
def unetpp_state():
    config = tiny.make_config()
    config.model = {"name": "unetpp", "width": 2, "head_features": 4}
    config.data.image_size = (32, 48)
    state = Experiment.from_config(config).init_state(0)
    # Every copy of a kernel gets numbers of its own: weights, best weights, both moments.
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) if leaf.ndim else leaf, state
    )
    return state.replace(epoch=np.int32(1), plateau=state.plateau._replace(best_epoch=np.int32(1)))


def stored(directory, state, order):
    """Writes a checkpoint and makes its record say ``order``; None takes the entry out."""
    with Checkpoints(directory, {"dataset": "a"}) as checkpoints:
        checkpoints.save(state, 1)
    for record in directory.glob("*/1/origin/metadata"):
        content = json.loads(record.read_text())
        assert content.pop("channel_order") == 2
        if order is not None:
            content["channel_order"] = order
        record.write_text(json.dumps(content))


def test_best_weights_of_an_old_checkpoint_are_converted(tmp_path):
    state = unetpp_state()
    stored(tmp_path, state, None)
    with Checkpoints(tmp_path, {"dataset": "a"}) as checkpoints:
        best = checkpoints.restore_best(state)
    channels = state.params["head_block"]["conv_1"]["kernel"].shape[2]
    encoder, decoder, bottleneck = np.split(np.arange(channels), 3)
    order = np.concatenate([encoder, bottleneck, decoder])
    after = traverse_util.flatten_dict(best["params"])
    for path, array in traverse_util.flatten_dict(state.best_params).items():
        expected = array[:, :, order] if path == KERNEL else array
        np.testing.assert_array_equal(after[path], expected, err_msg=str(path))


def test_training_does_not_go_on_from_an_old_checkpoint(tmp_path):
    """Its learning rate was steered by another rule."""
    state = unetpp_state()
    stored(tmp_path, state, None)
    with (
        Checkpoints(tmp_path, {"dataset": "a"}) as checkpoints,
        pytest.raises(UserError, match="cannot go on here"),
    ):
        checkpoints.restore_latest(state)


def test_a_new_checkpoint_stays_as_it_is_and_a_later_one_is_refused(tmp_path):
    state = unetpp_state()
    stored(tmp_path / "new", state, 2)
    with Checkpoints(tmp_path / "new", {}) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore_latest(state), state)
    stored(tmp_path / "later", state, 3)
    with (
        Checkpoints(tmp_path / "later", {}) as checkpoints,
        pytest.raises(UserError, match="channel order 3"),
    ):
        checkpoints.restore_best(state)
