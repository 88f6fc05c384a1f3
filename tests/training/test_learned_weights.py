"""Weights of the two losses that training learns: values and steps in closed form."""

import functools
import math
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import two_devices

from mtbus_jax import losses, models, types
from mtbus_jax.errors import UserError
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training import steps
from mtbus_jax.training.checkpoint import Checkpoints
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.logbook import read_metrics
from mtbus_jax.training.optimizer import make_optimizer

RATE, L2 = 1e-2, 0.1
OPTIMIZER = make_optimizer(b1=0.9, b2=0.999, epsilon=1e-4, l2=L2, clip_norm=0.5)
SCHEDULE = schedule_lib.PlateauSchedule(learning_rate=RATE)
LOSS = losses.LossOptions(weight=0.7, weighting="learned")
MODULE = tiny.TinyNet()
HEIGHT, WIDTH, COUNT = 16, 32, 6


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)


@pytest.mark.parametrize("loss", [0.0, 0.37, 4.0])
@pytest.mark.parametrize("p", [1.0, -0.4, 2.5])
def test_value_and_gradients_in_closed_form(loss, p):
    """L/(2p²) + ln(1 + p²): by L, 1/(2p²); by p, 2p/(1 + p²) − L/p³."""
    found, (by_loss, by_p) = jax.value_and_grad(losses.learned_weighting, argnums=(0, 1))(loss, p)
    assert float(found) == pytest.approx(loss / (2 * p * p) + math.log(1 + p * p), rel=1e-6)
    assert float(by_loss) == pytest.approx(1 / (2 * p * p), rel=1e-6)
    assert float(by_p) == pytest.approx(2 * p / (1 + p * p) - loss / p**3, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("loss", [0.05, 1.0, 3.0])
def test_the_best_weight_of_a_constant_loss_is_where_it_is_said_to_be(loss):
    best = math.sqrt((loss + math.sqrt(loss * loss + 8 * loss)) / 4)
    at = jax.grad(losses.learned_weighting, argnums=1)
    assert abs(float(at(loss, best))) < 1e-5
    assert float(at(loss, 0.8 * best)) < -1e-3
    assert float(at(loss, 1.2 * best)) > 1e-3


def make_data():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (COUNT, HEIGHT, WIDTH, 1), dtype=np.uint8)
    mask = (image > 190).astype(np.uint8)
    mask[::3] = 0  # normal images
    return steps.Dataset(*map(jnp.asarray, (image, mask, np.arange(COUNT, dtype=np.int32) % 3)))


# Compiled once each, because a program is quicker than its operations one by one.
FORWARD = jax.jit(MODULE.apply)


@functools.cache
def make_variables():
    """On the host, where training cannot take them for its own."""
    image = jnp.zeros((1, HEIGHT, WIDTH, 1))
    return jax.device_get(jax.jit(MODULE.init)(jax.random.key(0), image))


def make_state(weights=None, *, optimizer=OPTIMIZER):
    weights = losses.initial_weights("learned") if weights is None else weights
    return state_lib.create(
        make_variables(), optimizer=optimizer, schedule=SCHEDULE, loss_weights=weights
    )


def outputs_and_batch(valid=(1, 1, 1, 0)):
    batch = steps.gather(make_data(), jnp.array([0, 1, 2, 5]), jnp.float32(valid))
    return FORWARD(make_variables(), batch.image), batch


def loss_parts(outputs, batch, **options):
    return jax.jit(functools.partial(losses.multitask_loss, **options))(outputs, batch)


def test_the_total_while_training_and_on_validation_images():
    outputs, batch = outputs_and_batch()
    parts = loss_parts(outputs, batch, weight=0.7)
    segmentation, classification = float(parts.segmentation), float(parts.classification)
    p = {"segmentation": jnp.float32(0.5), "classification": jnp.float32(2.0)}
    options = {"weight": 0.7, "weighting": "learned"}
    found = loss_parts(outputs, batch, **options, loss_weights=p)
    expected = 2 * segmentation + math.log(1.25) + classification / 8 + math.log(5)
    assert float(found.total) == pytest.approx(expected, rel=1e-6)
    assert found[1:] == parts[1:]
    plain = loss_parts(outputs, batch, **options)
    assert float(plain.total) == pytest.approx(segmentation + classification, rel=1e-6)


def test_what_devices_have_of_a_batch_adds_up():
    """Three valid images on one device, one on the other: ln(1 + p²) counts once in all."""
    outputs, batch = outputs_and_batch()
    p = {"segmentation": jnp.float32(0.5), "classification": jnp.float32(2.0)}
    options = {"weight": 0.7, "weighting": "learned", "loss_weights": p, "count": 3.0}
    whole = loss_parts(outputs, batch, **options)
    halves = [
        loss_parts(
            jax.tree.map(lambda x, h=half: x[h], outputs),
            types.Batch(*(x[half] for x in batch[:4])),
            **options,
        )
        for half in (slice(0, 1), slice(1, 4))
    ]
    assert float(whole.total) == pytest.approx(sum(float(h.total) for h in halves), rel=1e-6)


def step_of(optimizer):
    return jax.jit(
        functools.partial(
            steps.train_step, module=MODULE, optimizer=optimizer, schedule=SCHEDULE, loss=LOSS,
            key=jax.random.key(0),
        )
    )  # fmt: skip


STEP = step_of(OPTIMIZER)


def step(state, valid=(1, 1, 1, 0)):
    return STEP(state, outputs_and_batch(valid)[1])


def test_the_first_steps_are_adams_on_the_gradient_in_closed_form():
    """From p = 1 on: g = 2p/(1 + p²) − L/p³ + l2·p, scaled down to the norm 0.5, over two steps."""
    state, p, moments = make_state(), np.ones(2), np.zeros((2, 2))
    for number in (1, 2):
        _, batch = outputs_and_batch()
        parts = loss_parts(FORWARD(state.variables, batch.image), batch, weight=0.7)
        loss = np.array([float(parts.segmentation), float(parts.classification)])
        gradient = 2 * p / (1 + p**2) - loss / p**3 + L2 * p
        gradient *= 0.5 / max(np.linalg.norm(gradient), 0.5)
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
        mean, square = moments[0] / (1 - 0.9**number), moments[1] / (1 - 0.999**number)
        p = p - RATE * mean / (np.sqrt(square) + 1e-4)
        state, sums = step(state)
        found = [float(state.loss_weights[name]) for name in ("segmentation", "classification")]
        np.testing.assert_allclose(found, p, rtol=2e-5)
    assert float(sums.loss) != pytest.approx(3 * loss.sum(), rel=1e-3)


def test_the_network_takes_the_gradient_of_the_weighted_sum():
    p = {"segmentation": jnp.float32(0.5), "classification": jnp.float32(2.0)}
    optimizer = make_optimizer(b1=0.0, b2=0.0, epsilon=1.0)
    variables = make_variables()
    batch = outputs_and_batch()[1]
    after, _ = step_of(optimizer)(make_state(p, optimizer=optimizer), batch)

    def weighted(params):
        parts = losses.multitask_loss(
            MODULE.apply({"params": params}, batch.image), batch, weight=0
        )
        return 2 * parts.segmentation + parts.classification / 8

    gradient = jax.jit(jax.grad(weighted))(variables["params"])
    # With no memory and ε = 1 a step is the rate times g/(|g| + 1).
    expected = jax.tree.map(
        lambda w, g: w - RATE * g / (jnp.abs(g) + 1), variables["params"], gradient
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params, expected)


def test_fixed_weights_leave_no_trace_in_a_state():
    """So that a checkpoint of a version before fits."""
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(make_state({}))]
    assert not [path for path in paths if "loss" in path.replace("best_loss", "")
                .replace("reference_loss", "")]  # fmt: skip


def learned_config(**train):
    config = tiny.make_config(**train)
    config.loss.weighting = "learned"
    return config


def latest(config, directory, origin):
    with Checkpoints(directory / "checkpoints", origin) as checkpoints:
        return checkpoints.restore_latest(Experiment.from_config(config).abstract_state())


def test_they_are_kept_and_a_killed_run_goes_on_with_them(tmp_path):
    config = learned_config(epochs=4)
    origin = tiny.train_one(config, tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole")
    state = latest(config, tmp_path / "whole", origin)
    for name in ("segmentation", "classification"):
        assert rows[-1][f"{name}_weight"] == pytest.approx(
            0.5 / float(state.loss_weights[name]) ** 2
        )
        assert abs(rows[-1][f"{name}_weight"] - 0.5) > 0.01
    # What judges an epoch is the plain sum.
    assert rows[-1]["validation_loss"] == pytest.approx(
        rows[-1]["validation_segmentation"] + rows[-1]["validation_classification"], rel=1e-5
    )
    with tiny.killed_after(3):
        tiny.train_one(config, tmp_path / "killed")
    tiny.train_one(config, tmp_path / "killed")
    jax.tree.map(np.testing.assert_array_equal, state, latest(config, tmp_path / "killed", origin))
    assert tiny.without_times(rows) == tiny.without_times(read_metrics(tmp_path / "killed"))


@pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
def test_one_loss_alone_is_refused(tasks):
    config = learned_config()
    config.tasks = tasks
    with pytest.raises(UserError, match=r"loss\.weighting=learned"):
        Experiment.from_config(config)


# In a process of its own: the number of devices is fixed when JAX starts.
_DEVICES_PROGRAM = textwrap.dedent(
    """
    import json, functools
    import jax, numpy as np
    from mtbus_jax.runtime import parallel
    from mtbus_jax.training import steps
    from mtbus_jax.training.totals import Totals
    import test_learned_weights as t

    def train(count):
        devices = jax.local_devices()[:count]
        program = functools.partial(
            steps.train_steps, module=t.MODULE, optimizer=t.OPTIMIZER, schedule=t.SCHEDULE,
            loss=t.LOSS, augmentation=None, axis_name=parallel.AXIS)
        state, data, totals = (
            parallel.replicate(x, devices) for x in (t.make_state(), t.make_data(), Totals.zero()))
        index = np.arange(24, dtype=np.int32).reshape(6, 4) % t.COUNT
        valid = np.ones((6, 4), np.float32)
        valid[-1, -1] = 0
        state, totals = parallel.pmap_train(program, devices)(
            state, totals, data, parallel.spread(index, count), parallel.spread(valid, count),
            jax.random.key(5))
        return [float(p) for p in state.loss_weights.values()], float(totals.loss)

    print(json.dumps([train(1), train(2)]))
    """
)


def test_two_devices_learn_what_one_does():
    (one, loss_1), (two, loss_2) = two_devices.result_of(_DEVICES_PROGRAM, beside=__file__)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert loss_1 == pytest.approx(loss_2, rel=1e-5)
    assert abs(one[0] - 1) > 0.02  # six steps of at most a hundredth each
