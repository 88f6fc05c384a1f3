"""The plateau schedule by hand-written sequences, the best weights, Adam by its equations."""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.optimizer import make_optimizer
from mtbus_jax.training.schedule import PlateauSchedule

NAN = float("nan")
FIXTURE = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "plateau.json"


class Tiny(nn.Module):
    """One convolution and a batch norm, so that there are running statistics too."""

    @nn.compact
    def __call__(self, image, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Conv(2, (1, 1))(image))


def fresh(schedule):
    optimizer = make_optimizer(b1=0.9, b2=0.999, epsilon=1e-4)
    variables = Tiny().init(jax.random.key(0), jnp.zeros((1, 4, 6, 1)), train=False)
    return state_lib.create(variables, optimizer=optimizer, schedule=schedule)


def blank(schedule):
    """A state whose only parameter is a number."""
    state = fresh(schedule)
    number = jnp.zeros(())
    return state.replace(
        params={"w": number}, best_params={"w": number}, batch_stats={}, best_batch_stats={}
    )


@pytest.fixture(scope="module")
def end_epoch():
    return jax.jit(state_lib.end_epoch, static_argnums=2)


def run(end_epoch, schedule, losses):
    """States after each epoch; the parameter is the epoch's number."""
    state, states = blank(schedule), []
    for epoch, loss in enumerate(losses, start=1):
        state = state.replace(params={"w": jnp.float32(epoch)})
        state = end_epoch(state, jnp.float32(loss), schedule)
        states.append(state)
    return states


def rates(states):
    return [float(s.plateau.learning_rate) for s in states]


def test_halved_at_the_bad_epoch_after_patience(end_epoch):
    schedule = PlateauSchedule(learning_rate=0.8, factor=0.5, patience=2, min_learning_rate=0.0)
    #         best  bad  bad  bad↓ bad  bad  bad↓ best bad  bad  best bad  bad  bad↓
    losses = [5.0, 6.0, 5.5, 5.1, 7.0, 5.2, 9.0, 4.0, 4.1, 4.2, 3.9, 4.0, 4.0, 4.0]
    expected = [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1]
    np.testing.assert_allclose(rates(run(end_epoch, schedule, losses)), expected, rtol=1e-6)


with open(FIXTURE, encoding="utf-8") as _file:
    RELEASED = json.load(_file)


@pytest.mark.parametrize("name", RELEASED)
def test_learning_rates_best_epoch_and_stop_are_those_of_the_released_code(end_epoch, name):
    """Against PyTorch's own scheduler, see fixtures/make_plateau.py."""
    case = RELEASED[name]
    schedule = PlateauSchedule(**case["schedule"])
    states = run(end_epoch, schedule, case["losses"])
    finished = [state_lib.is_finished(s, schedule, 10**6) for s in states]
    last = finished.index(True) if any(finished) else len(states) - 1
    assert last + 1 == case["epochs"]
    np.testing.assert_allclose(rates(states[: last + 1]), case["learning_rate"], rtol=1e-6)
    assert [int(s.plateau.best_epoch) for s in states[: last + 1]] == case["best_epoch"]


def test_without_a_threshold_any_improvement_counts(end_epoch):
    losses = [1 - 1e-6 * epoch for epoch in range(60)]
    strict = run(end_epoch, PlateauSchedule(threshold=0.0), losses)
    assert rates(strict) == pytest.approx([1e-4] * 60)
    assert rates(run(end_epoch, PlateauSchedule(), losses))[-1] < 1e-4


def test_floor(end_epoch):
    schedule = PlateauSchedule(learning_rate=1e-3, patience=0, min_learning_rate=3e-4)
    found = rates(run(end_epoch, schedule, [1, 2, 2, 2, 2]))
    np.testing.assert_allclose(found, [1e-3, 5e-4, 3e-4, 3e-4, 3e-4], rtol=1e-6)


def test_a_rate_below_the_floor_is_not_raised(end_epoch):
    schedule = PlateauSchedule(learning_rate=1e-5, patience=0, min_learning_rate=1e-4)
    np.testing.assert_allclose(rates(run(end_epoch, schedule, [1, 2, 2])), [1e-5] * 3, rtol=1e-6)


def test_other_factor(end_epoch):
    schedule = PlateauSchedule(learning_rate=1.0, factor=0.1, patience=1)
    found = rates(run(end_epoch, schedule, [1, 2, 2, 2, 2]))
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.01], rtol=1e-6)


@pytest.mark.parametrize("poor", [4.0, NAN, float("inf")])
def test_a_tie_and_nan_are_not_better(end_epoch, poor):
    schedule = PlateauSchedule(learning_rate=1.0, patience=1, stop_patience=2)
    states = run(end_epoch, schedule, [4.0, poor, poor, poor])
    np.testing.assert_allclose(rates(states), [1, 1, 0.5, 0.5])
    assert [float(s.plateau.best_loss) for s in states] == [4.0] * 4
    assert [int(s.plateau.best_epoch) for s in states] == [1] * 4
    assert [int(s.plateau.since_best) for s in states] == [0, 1, 2, 3]
    assert [float(s.best_params["w"]) for s in states] == [1] * 4
    assert [state_lib.is_finished(s, schedule, 9) for s in states] == [False] * 3 + [True]


def test_nan_first_leaves_no_best_epoch_and_does_not_block_the_next(end_epoch):
    schedule = PlateauSchedule(learning_rate=1.0, patience=9)
    states = run(end_epoch, schedule, [NAN, 7.0])
    assert [int(s.plateau.best_epoch) for s in states] == [0, 2]
    assert float(states[0].plateau.best_loss) == np.inf
    assert [float(s.best_params["w"]) for s in states] == [0, 2]


def test_best_weights_are_kept_and_the_current_ones_left_alone(end_epoch):
    schedule = PlateauSchedule(patience=9)
    states = run(end_epoch, schedule, [3.0, 1.0, 2.0, NAN, 1.0, 0.5])
    assert [float(s.best_params["w"]) for s in states] == [1, 2, 2, 2, 2, 6]
    assert [int(s.plateau.best_epoch) for s in states] == [1, 2, 2, 2, 2, 6]
    assert [float(s.params["w"]) for s in states] == [1, 2, 3, 4, 5, 6]
    assert [int(s.epoch) for s in states] == [1, 2, 3, 4, 5, 6]
    assert float(states[4].best_variables["params"]["w"]) == 2
    assert float(states[4].variables["params"]["w"]) == 5


def test_the_last_weights_are_kept_where_asked_for_and_the_schedule_is_the_same(end_epoch):
    losses = [3.0, 1.0, 2.0, 1.5, 0.5, 4.0]
    last = PlateauSchedule(learning_rate=1.0, patience=2, stop_patience=9, keep="last")
    best = last._replace(keep="best")
    states, others = run(end_epoch, last, losses), run(end_epoch, best, losses)
    assert [float(s.best_params["w"]) for s in states] == [1, 2, 3, 4, 5, 6]
    assert [state_lib.kept_epoch(s, last) for s in states] == [1, 2, 3, 4, 5, 6]
    assert [float(s.best_params["w"]) for s in others] == [1, 2, 2, 2, 5, 5]
    assert [state_lib.kept_epoch(s, best) for s in others] == [1, 2, 2, 2, 5, 5]
    for state, other in zip(states, others, strict=True):
        assert state.plateau == other.plateau


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.99])
def test_the_average_by_its_recursion(decay):
    """Five steps against NumPy; the decay begins at 2/11 and rises to the one that is set."""
    schedule = PlateauSchedule(keep="average", average_decay=decay)
    rng = np.random.default_rng(0)
    weights, means = rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 3))
    state = fresh(schedule).replace(
        best_params={"w": jnp.float32(weights[0])}, best_batch_stats={"m": jnp.float32(means[0])}
    )
    expected = {"params": weights[0], "batch_stats": means[0]}
    for step in range(1, 6):
        state = state.replace(
            step=jnp.int32(step),
            params={"w": jnp.float32(weights[step])},
            batch_stats={"m": jnp.float32(means[step])},
        )
        state = state_lib.averaged(state, schedule)
        d = min(decay, (1 + step) / (10 + step))
        for name, values in (("params", weights), ("batch_stats", means)):
            expected[name] = d * expected[name] + (1 - d) * values[step]
    np.testing.assert_allclose(state.best_params["w"], expected["params"], atol=1e-6)
    np.testing.assert_allclose(state.best_batch_stats["m"], expected["batch_stats"], atol=1e-6)


def test_the_end_of_an_epoch_leaves_an_average_alone(end_epoch):
    schedule = PlateauSchedule(keep="average")
    states = run(end_epoch, schedule, [3.0, 1.0, 2.0])
    assert [float(s.best_params["w"]) for s in states] == [0, 0, 0]
    assert [state_lib.kept_epoch(s, schedule) for s in states] == [1, 2, 3]
    assert float(state_lib.validated(states[-1], schedule)["params"]["w"]) == 0
    assert float(state_lib.validated(states[-1], PlateauSchedule())["params"]["w"]) == 3


@pytest.mark.parametrize("keep", ["best", "last"])
def test_without_an_average_a_step_changes_nothing_that_is_kept(keep):
    schedule = PlateauSchedule(keep=keep)
    state = blank(schedule).replace(params={"w": jnp.float32(5)})
    assert state_lib.averaged(state, schedule) is state


def test_best_running_statistics_go_with_the_best_weights(end_epoch):
    schedule = PlateauSchedule()
    state = blank(schedule).replace(batch_stats={"m": jnp.float32(10)})
    state = state.replace(best_batch_stats={"m": jnp.float32(0)})
    state = end_epoch(state, jnp.float32(1), schedule)
    state = state.replace(batch_stats={"m": jnp.float32(20)})
    state = end_epoch(state, jnp.float32(2), schedule)
    assert float(state.best_variables["batch_stats"]["m"]) == 10
    assert float(state.variables["batch_stats"]["m"]) == 20


def test_reductions_and_stopping_count_apart(end_epoch):
    schedule = PlateauSchedule(learning_rate=1.0, patience=1, stop_patience=4)
    states = run(end_epoch, schedule, [1, 2, 2, 2, 2, 2])
    assert [int(s.plateau.since_best) for s in states] == [0, 1, 2, 3, 4, 5]
    assert [int(s.plateau.since_drop) for s in states] == [0, 1, 0, 1, 0, 1]
    assert [state_lib.is_finished(s, schedule, 99) for s in states] == [False] * 5 + [True]


def test_finished_after_all_epochs(end_epoch):
    schedule = PlateauSchedule()
    states = run(end_epoch, schedule, [3.0, 2.0, 1.0])
    assert [state_lib.is_finished(s, schedule, 3) for s in states] == [False, False, True]


def test_the_schedule_can_be_vmapped_over_folds():
    schedule = PlateauSchedule(learning_rate=1.0, patience=0)
    state = blank(schedule)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    step = jax.jit(jax.vmap(lambda s, loss: state_lib.end_epoch(s, loss, schedule)))
    for first, second in [(1.0, 1.0), (0.5, 2.0)]:
        both = step(both, jnp.array([first, second]))
    np.testing.assert_allclose(both.plateau.learning_rate, [1.0, 0.5])
    assert both.plateau.best_epoch.tolist() == [2, 1]


def test_is_better_is_strict():
    pairs = [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (NAN, 2.0), (1.0, np.inf), (np.inf, np.inf)]
    found = [bool(schedule_lib.is_better(new, best)) for new, best in pairs]
    assert found == [True, False, False, False, True, False]


def test_a_fresh_state():
    schedule = PlateauSchedule(learning_rate=3e-4)
    state = fresh(schedule)
    assert (int(state.step), int(state.epoch)) == (0, 0)
    assert float(state.plateau.learning_rate) == pytest.approx(3e-4)
    assert float(state.plateau.best_loss) == np.inf
    assert int(state.plateau.best_epoch) == int(state.plateau.since_best) == 0
    assert not state_lib.is_finished(state, schedule, 1)
    assert set(state.variables) == set(state.best_variables) == {"params", "batch_stats"}
    assert jax.tree.leaves(state.batch_stats)
    for now, best in (
        (state.params, state.best_params),
        (state.batch_stats, state.best_batch_stats),
    ):
        for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(best), strict=True):
            np.testing.assert_array_equal(a, b)
            # Shared buffers could not be donated to the step.
            assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()


def test_optimizer_is_adam_by_its_equations():
    b1, b2, epsilon = 0.8, 0.95, 1e-4
    optimizer = make_optimizer(b1=b1, b2=b2, epsilon=epsilon)
    params = {"w": jnp.zeros((2, 3))}
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(0)
    first, second = np.zeros((2, 3)), np.zeros((2, 3))
    for step in range(1, 4):
        gradient = rng.normal(0, 1e-3, (2, 3))  # so small that epsilon counts
        found, opt_state = optimizer.update({"w": jnp.asarray(gradient)}, opt_state, params)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        expected = (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + epsilon)
        np.testing.assert_allclose(found["w"], expected, rtol=1e-4)


def updated(optimizer, params, gradients):
    """Directions of three steps with these gradients."""
    moments, found = optimizer.init(params), []
    for each in gradients:
        directions, moments = optimizer.update(each, moments, params)
        found.append(directions)
    return found


def trees(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"encoder": {"kernel": (2, 3)}, "decoder": {"kernel": (3, 2), "bias": (2,)}}

    def draw():
        return jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
            shapes,
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )

    return draw(), [draw() for _ in range(3)]


def test_decay_and_clipping_are_optax_adamw():
    """AdamW with decay of kernels alone, behind a clipping by the global norm."""
    params, gradients = trees()
    ours = make_optimizer(b1=0.8, b2=0.95, epsilon=1e-6, weight_decay=0.3, clip_norm=0.5)
    theirs = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(
            1.0, 0.8, 0.95, 1e-6, weight_decay=0.3, mask=jax.tree.map(lambda p: p.ndim > 1, params)
        ),
    )
    for a, b in zip(
        updated(ours, params, gradients), updated(theirs, params, gradients), strict=True
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, -y, rtol=2e-5), a, b)


def test_the_encoder_has_a_rate_of_its_own():
    params, gradients = trees()
    options = {"b1": 0.9, "b2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
    same = updated(make_optimizer(**options), params, gradients)
    slow = updated(make_optimizer(**options, encoder_rate=0.25), params, gradients)
    for a, b in zip(same, slow, strict=True):
        np.testing.assert_allclose(0.25 * a["encoder"]["kernel"], b["encoder"]["kernel"], rtol=1e-6)
        np.testing.assert_array_equal(a["decoder"]["kernel"], b["decoder"]["kernel"])


def test_the_cosine_rises_and_falls_as_optax_has_it():
    """Warm-up over a quarter of 40 steps, then half a cosine to 0; the loss does not matter."""
    schedule = PlateauSchedule(learning_rate=0.8, course="cosine", warmup=0.25, patience=0)
    state = blank(schedule)
    found = [
        float(schedule_lib.learning_rate(schedule, 0.8, step=step, total_steps=40))
        for step in range(41)
    ]
    cosine = optax.cosine_decay_schedule(0.8, 30)
    # Optax begins at 0; here the first step already has its share.
    expected = [0.08 * (step + 1) for step in range(10)] + [cosine(s) for s in range(31)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    for loss in (1.0, 2.0, 3.0):
        state = state_lib.end_epoch(state, jnp.float32(loss), schedule)
    assert float(state.plateau.learning_rate) == pytest.approx(0.8)


def test_coupled_decay_is_part_of_the_gradient():
    """PyTorch's Adam with ``weight_decay``: optax's Adam after adding the decay, biases too."""
    params, gradients = trees()
    options = {"b1": 0.9, "b2": 0.99, "epsilon": 1e-6}
    found = updated(make_optimizer(**options, l2=0.3), params, gradients)
    optimizer = optax.chain(
        optax.add_decayed_weights(0.3), optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-6)
    )
    expected = updated(optimizer, params, gradients)
    for f, e in zip(found, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), f, e)
    without = updated(make_optimizer(**options), params, gradients)
    assert np.abs(found[1]["decoder"]["bias"] - without[1]["decoder"]["bias"]).max() > 0.01


def test_the_cosine_ends_at_its_floor():
    """He et al. 2024: rate · ((1 + cos(π·t))/2 · 0.9 + 0.1) at the share t of all steps."""
    schedule = PlateauSchedule(learning_rate=1e-4, course="cosine", floor=0.1)
    for step in (0, 10, 25, 40):
        found = schedule_lib.learning_rate(schedule, 1e-4, step=step, total_steps=40)
        expected = 1e-4 * ((1 + np.cos(np.pi * step / 40)) / 2 * 0.9 + 0.1)
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_decay_follows_the_epoch_alone():
    """×0.9 after every 20 epochs, whatever the losses are."""
    schedule = PlateauSchedule(learning_rate=1e-4, course="decay", patience=0)
    for epoch, factor in ((0, 1), (19, 1), (20, 0.9), (39, 0.9), (40, 0.81), (499, 0.9**24)):
        found = schedule_lib.learning_rate(schedule, 1e-4, step=7, total_steps=9, epoch=epoch)
        assert float(found) == pytest.approx(1e-4 * factor, rel=1e-5)
    slow = schedule._replace(decay=0.1, decay_epochs=3)
    found = jax.jit(
        lambda epoch: schedule_lib.learning_rate(slow, 1.0, step=0, total_steps=1, epoch=epoch)
    )(jnp.int32(7))
    assert float(found) == pytest.approx(0.01, rel=1e-5)
    state = blank(schedule)
    for loss in (1.0, 2.0, 3.0):
        state = state_lib.end_epoch(state, jnp.float32(loss), schedule)
    assert float(state.plateau.learning_rate) == pytest.approx(1e-4)
