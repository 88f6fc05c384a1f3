"""Running statistics and dropout in a training step, on one device and on shares of a batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbus_jax import losses, types
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training import steps
from mtbus_jax.training.optimizer import make_optimizer
from mtbus_jax.training.totals import Totals

HEIGHT, WIDTH, BATCH = 4, 6, 4
MOMENTUM = 0.75


class NormNet(nn.Module):
    """Batch norm of the image itself, so that its statistics are known; dropout if asked for."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, image, *, train=False):
        normal = nn.BatchNorm(not train, momentum=MOMENTUM, name="norm")(image / 255)
        normal = nn.Dropout(self.dropout, deterministic=not train)(normal)
        features = nn.Conv(3, (3, 3), name="conv")(normal)
        class_logits = nn.Dense(3, name="cls")(features.mean((1, 2)))
        return types.Outputs((nn.Conv(1, (1, 1), name="fine")(features),), class_logits, {})


def make_data():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, HEIGHT, WIDTH, 1), dtype=np.uint8)
    mask = (rng.random((BATCH, HEIGHT, WIDTH, 1)) > 0.7).astype(np.uint8)
    return steps.Dataset(jnp.asarray(image), jnp.asarray(mask), jnp.arange(BATCH) % 3)


def run(dropout=0.0, *, shares=1, count=1, module=None):
    """State and sums after some steps on one batch, spread over so many devices."""
    module = module or NormNet(dropout)
    optimizer = make_optimizer(b1=0.9, b2=0.999, epsilon=1e-4)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = {"params": {}} | module.init(keys, jnp.zeros((1, HEIGHT, WIDTH, 1)))
    schedule = schedule_lib.PlateauSchedule(learning_rate=0.0)  # so that steps differ by draws
    state = state_lib.create(variables, optimizer=optimizer, schedule=schedule)

    def program(index, valid):
        return steps.train_steps(
            state,
            Totals.zero(),
            make_data(),
            index,
            valid,
            jax.random.key(5),
            module=module,
            optimizer=optimizer,
            schedule=schedule,
            augmentation=None,
            loss=losses.LossOptions(weight=0.7),
            axis_name="device",
        )

    index = jnp.tile(jnp.arange(BATCH), (count, 1)).reshape(count, shares, -1).swapaxes(0, 1)
    # A mapped axis of vmap is to the step what one of pmap is.
    mapped = jax.vmap(program, axis_name="device")(index, jnp.ones(index.shape, jnp.float32))
    for leaf in jax.tree.leaves(mapped):
        np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))
    return jax.tree.map(lambda leaf: leaf[0], mapped)


@pytest.mark.parametrize("shares", [1, 2])
def test_running_statistics_are_the_mean_over_devices_of_their_shares(shares):
    image = np.asarray(make_data().image, float) / 255
    parts = np.split(image, shares)
    mean = np.mean([part.mean() for part in parts])
    variance = np.mean([part.var() for part in parts])
    found = run(shares=shares)[0].batch_stats["norm"]
    np.testing.assert_allclose(found["mean"], [(1 - MOMENTUM) * mean], rtol=1e-5)
    expected = MOMENTUM + (1 - MOMENTUM) * variance
    np.testing.assert_allclose(found["var"], [expected], rtol=1e-5)
    twice = run(shares=shares, count=2)[0].batch_stats["norm"]
    np.testing.assert_allclose(twice["mean"], [(1 - MOMENTUM**2) * mean], rtol=1e-5)


def test_dropout_draws_anew_at_each_step_and_on_each_device():
    plain = float(run()[1].loss)
    first, both = (float(run(0.5, count=count)[1].loss) for count in (1, 2))
    assert abs(first - plain) > 1e-3
    assert abs(both - 2 * first) > 1e-3
    assert float(run(0.5, count=2)[1].loss) == both


class Drawn(nn.Module):
    """A loss that is the draw of dropout's key alone: no image, no weight."""

    @nn.compact
    def __call__(self, image, *, train=False):
        draw = jax.random.uniform(self.make_rng("dropout"), ())
        return types.Outputs((), jnp.full((len(image), 3), draw), {"draw": draw})


@pytest.mark.parametrize("shares", [2, 4])
def test_each_device_draws_its_own_dropout(shares, monkeypatch):
    seen = []

    def spy(outputs, *args, **kwargs):
        jax.debug.callback(lambda draw: seen.extend(np.ravel(draw).tolist()), outputs.aux["draw"])
        return multitask_loss(outputs, *args, **kwargs)

    multitask_loss = losses.multitask_loss
    monkeypatch.setattr(losses, "multitask_loss", spy)
    run(shares=shares, module=Drawn())
    jax.effects_barrier()
    assert len(set(seen)) == shares
