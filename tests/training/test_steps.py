"""Training and evaluation steps: closed-form update, padding, devices, one program or many."""

import functools
import textwrap
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_devices

from mtbus_jax import augment, losses, types
from mtbus_jax.errors import UserError
from mtbus_jax.runtime import parallel
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training import steps
from mtbus_jax.training.optimizer import make_optimizer
from mtbus_jax.training.totals import Totals, sums_of


class TinyNet(nn.Module):
    """One convolution to two maps, pooled for the class: compiles in a moment."""

    @nn.compact
    def __call__(self, image, *, train=False):
        features = nn.Conv(4, (3, 3), name="conv")(image / 255)
        fine = nn.Conv(1, (1, 1), name="fine")(features)
        coarse = nn.Conv(1, (1, 1), name="coarse")(jnp.tanh(features))
        return types.Outputs((fine, coarse), nn.Dense(3, name="cls")(features.mean((1, 2))), {})


MODULE = TinyNet()
SCHEDULE = schedule_lib.PlateauSchedule()
OPTIMIZER = make_optimizer(b1=0.9, b2=0.999, epsilon=1e-4)
LOSS = losses.LossOptions(weight=0.7)
HEIGHT, WIDTH, COUNT = 10, 14, 12


def make_data():
    rng = np.random.default_rng(0)
    mask = (rng.random((COUNT, HEIGHT, WIDTH, 1)) > 0.7).astype(np.uint8)
    mask[::3] = 0  # normal images
    image = rng.integers(0, 256, (COUNT, HEIGHT, WIDTH, 1), dtype=np.uint8)
    label = rng.integers(0, 3, COUNT).astype(np.int32)
    return steps.Dataset(*map(jnp.asarray, (image, mask, label)))


def initialised(module):
    return jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, HEIGHT, WIDTH, 1)))


def make_state():
    schedule = schedule_lib.PlateauSchedule(learning_rate=1e-2)
    variables = initialised(MODULE)
    return state_lib.create(variables, optimizer=OPTIMIZER, schedule=schedule)


def make_program(augmented=True, axis_name=None, schedule=SCHEDULE, mix=0.0):
    return functools.partial(
        steps.train_steps,
        module=MODULE,
        optimizer=OPTIMIZER,
        schedule=schedule,
        augmentation=augment.flip_and_rotate if augmented else None,
        axis_name=axis_name,
        mix=mix,
        loss=LOSS,
    )


@functools.cache
def compiled(augmented):
    return jax.jit(make_program(augmented))


def run(index, valid, *, calls, augmented=True):
    """All steps, ``calls`` device programs of equal length."""
    program = compiled(augmented)
    state, totals, data = make_state(), Totals.zero(), make_data()
    for part in np.split(np.arange(len(index)), calls):
        state, totals = program(state, totals, data, index[part], valid[part], jax.random.key(5))
    return state, totals


def assert_close(a, b, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **kwargs), a, b)


INDEX = np.random.default_rng(1).integers(0, COUNT, (6, 4)).astype(np.int32)
VALID = np.ones((6, 4), np.float32)


def test_first_step_is_adams_closed_form():
    """After one step from zero moments, Adam's update is lr · g/(|g| + ε) with g the gradient."""
    state, data = make_state(), make_data()
    after, _ = run(INDEX[:1], VALID[:1], calls=1, augmented=False)
    batch = steps.gather(data, INDEX[0], VALID[0])

    def loss(params):
        outputs = MODULE.apply({"params": params}, batch.image)
        dice = losses.dice_loss(outputs.segmentation[0], batch.mask)
        dice += losses.dice_loss(outputs.segmentation[1], batch.mask) / 2
        focal = losses.focal_loss(outputs.class_logits, batch.label)
        return jnp.mean(0.7 * dice + 0.3 * focal)

    gradient = jax.jit(jax.grad(loss))(state.params)
    expected = jax.tree.map(lambda p, g: p - 1e-2 * g / (jnp.abs(g) + 1e-4), state.params, gradient)
    assert_close(after.params, expected, atol=1e-6)
    assert int(after.step) == 1


def test_mixed_precision_computes_in_bfloat16_and_keeps_the_rest_in_single_precision():
    seen = {}

    class Watched(TinyNet):
        @nn.compact
        def __call__(self, image, *, train=False):
            outputs = super().__call__(image, train=train)
            seen["types"] = {x.dtype for x in jax.tree.leaves((image, outputs))}
            return outputs

    def step(compute_dtype):
        batch = steps.gather(make_data(), INDEX[0], VALID[0])
        return jax.jit(
            functools.partial(
                steps.train_step,
                module=Watched(),
                optimizer=OPTIMIZER,
                schedule=SCHEDULE,
                loss=LOSS,
                key=jax.random.key(0),
                compute_dtype=compute_dtype,
            )
        )(make_state(), batch)

    single, single_sums = step(None)
    assert seen["types"] == {jnp.dtype(jnp.float32)}
    mixed, mixed_sums = step(jnp.bfloat16)
    assert seen["types"] == {jnp.dtype(jnp.bfloat16)}
    assert jax.tree.map(lambda x: x.dtype, mixed) == jax.tree.map(lambda x: x.dtype, single)
    # bfloat16 has 8 binary digits.
    np.testing.assert_allclose(mixed_sums.loss, single_sums.loss, rtol=2**-7)
    assert float(mixed_sums.loss) != float(single_sums.loss)
    found, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(s.opt_state.mu)])
        for s in (mixed, single)
    )
    # Sums over pixels cancel, so a gradient keeps fewer of the 8 digits than its terms have.
    assert 0 < np.linalg.norm(found - expected) < 2**-3 * np.linalg.norm(expected)


def test_one_program_of_many_steps_equals_many_programs():
    one = run(INDEX, VALID, calls=1)
    many = run(INDEX, VALID, calls=6)
    assert_close(one[0].params, many[0].params, atol=1e-6)
    assert_close(one[1], many[1], rtol=1e-5)


def test_the_average_is_taken_after_each_step():
    schedule = schedule_lib.PlateauSchedule(keep="average", average_decay=0.3)
    program = jax.jit(make_program(schedule=schedule))
    state, _ = program(
        make_state(), Totals.zero(), make_data(), INDEX[:3], VALID[:3], jax.random.key(5)
    )
    average = make_state().params
    for step in range(1, 4):
        after, _ = run(INDEX[:step], VALID[:step], calls=step)
        d = min(0.3, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, p, d=d: d * a + (1 - d) * p, average, after.params)
    assert_close(state.best_params, average, atol=1e-6)
    assert_close(state.params, after.params, atol=1e-6)


def test_padding_changes_nothing():
    valid = VALID[:1].copy()
    valid[0, 2:] = 0
    padded, padded_totals = run(INDEX[:1], valid, calls=1, augmented=False)
    short, short_totals = run(INDEX[:1, :2], VALID[:1, :2], calls=1, augmented=False)
    assert_close(padded.params, short.params, atol=1e-6)
    assert_close(padded_totals, short_totals, rtol=1e-5)
    assert float(padded_totals.count) == 2


def seen_in_training(data, **options):
    """What the network sees of image 5, four times in a batch and again in the next step."""
    seen = []

    class Spy(TinyNet):
        @nn.compact
        def __call__(self, image, *, train=False):
            jax.debug.callback(lambda x: seen.append(np.array(x)), image)
            return TinyNet(name="inner")(image, train=train)

    module = Spy()
    variables = initialised(module)
    schedule = schedule_lib.PlateauSchedule()
    state = state_lib.create(variables, optimizer=OPTIMIZER, schedule=schedule)
    index, valid = np.full((2, 4), 5, np.int32), np.ones((2, 4), np.float32)
    program = functools.partial(
        steps.train_steps,
        module=module,
        optimizer=OPTIMIZER,
        schedule=SCHEDULE,
        loss=LOSS,
        **options,
    )
    seen.clear()  # of what initialisation saw
    jax.block_until_ready(program(state, Totals.zero(), data, index, valid, jax.random.key(5)))
    jax.effects_barrier()
    return np.concatenate(seen)


def test_augmentation_changes_with_the_step_and_the_position():
    views = seen_in_training(make_data(), augmentation=augment.flip_and_rotate)
    assert len({view.tobytes() for view in views}) == 8


def test_rotation_fill_decides_what_lies_beyond_the_edge():
    data = make_data()
    data = data._replace(image=jnp.maximum(data.image, 1))
    black, filled = (
        seen_in_training(data, augmentation=functools.partial(augment.flip_and_rotate, fill=fill))
        for fill in ("zero", "reflect")
    )
    assert 0 < (black == 0).mean() < 0.5
    assert (filled > 0).all()
    np.testing.assert_array_equal(filled[black > 0], black[black > 0])


def test_totals_by_hand():
    mask = np.zeros((3, 2, 4, 1), np.float32)
    mask[0, 0, :2] = 1  # two pixels, of which one is found, and one besides
    logits = np.full((3, 2, 4, 1), -5, np.float32)
    logits[0, 0, 1:3] = 5
    logits[2] = 5  # padding: must not count
    outputs = types.Outputs((logits,), np.eye(3, dtype=np.float32), {})
    batch = types.Batch(mask, mask, np.array([0, 2, 2]), np.array([1.0, 1.0, 0.0]))
    totals = sums_of(outputs, batch, losses.LossParts(0.0, 0.0, 0.0, 0.0))
    assert float(totals.dice) == pytest.approx(2 * 1 / 4 + 1)  # the second pair is empty: 1
    assert float(totals.correct) == 1
    assert float(totals.count) == 2


def test_eval_steps_predict_in_order_and_sum_the_loss():
    data, state = make_data(), make_state()
    index = np.arange(12, dtype=np.int32)[::-1].reshape(3, 4)
    valid = np.ones((3, 4), np.float32)
    valid[2, 3] = 0
    program = functools.partial(steps.eval_steps, module=MODULE, loss=LOSS)
    totals, predictions = jax.jit(program)(state.variables, data, index, valid)
    order = index.reshape(-1)[:-1]
    outputs = jax.jit(MODULE.apply)(state.variables, data.image[order].astype(np.float32))
    got = np.asarray(predictions.probability).reshape(12, HEIGHT, WIDTH, 1)[:-1]
    np.testing.assert_allclose(got, jax.nn.sigmoid(outputs.segmentation[0]), atol=1e-6)
    batch = types.Batch(None, data.mask[order].astype(np.float32), data.label[order], jnp.ones(11))
    expected = losses.multitask_loss(outputs, batch, **LOSS._asdict())
    assert float(totals.loss) / 11 == pytest.approx(float(expected.total), rel=1e-5)
    assert float(totals.count) == 11


# Runs in a process of its own: the number of devices is fixed when JAX starts.
_DEVICES_PROGRAM = textwrap.dedent(
    """
    import json, sys
    import jax, numpy as np
    from mtbus_jax.runtime import parallel
    from mtbus_jax.training import steps
    from mtbus_jax.training.totals import Totals
    import test_steps as t

    def train(count, mix):
        devices = jax.local_devices()[:count]
        program = parallel.pmap_train(t.make_program(axis_name=parallel.AXIS, mix=mix), devices)
        state = parallel.replicate(t.make_state(), devices)
        data = parallel.replicate(t.make_data(), devices)
        totals = parallel.replicate(Totals.zero(), devices)
        valid = t.VALID.copy()
        valid[-1, -1] = 0  # an incomplete last batch: one device has fewer images
        for i in range(len(t.INDEX)):
            index = parallel.spread(t.INDEX[i : i + 1], count)
            real = parallel.spread(valid[i : i + 1], count)
            state, totals = program(state, totals, data, index, real, jax.random.key(5))
        return jax.device_get((state.params, totals._asdict()))

    def evaluate(count):
        devices = jax.local_devices()[:count]
        import functools
        program = functools.partial(
            steps.eval_steps, module=t.MODULE, axis_name=parallel.AXIS, loss=t.LOSS)
        state, data = t.make_state(), t.make_data()
        index = parallel.spread(t.INDEX, count)
        sums, out = parallel.pmap_eval(program, devices)(
            state.variables, data, index, parallel.spread(t.VALID, count))
        return float(sums.loss), parallel.gather_spread(jax.device_get(out.probability))

    assert len(jax.local_devices()) == 2
    def apart(a, b):
        return jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b))

    one, two = train(1, 0.0), train(2, 0.0)
    mixed, mixed_by_two = train(1, 1.0), train(2, 1.0)
    (loss_1, p_1), (loss_2, p_2) = evaluate(1), evaluate(2)
    print(json.dumps({
        "difference": max(apart(one[0], two[0])),
        "moved": min(apart(one[0], jax.device_get(t.make_state().params))),
        "mixed_difference": max(apart(mixed[0], mixed_by_two[0])),
        "mixing": min(apart(one[0], mixed[0])),
        "totals": [one[1]["loss"].item(), two[1]["loss"].item()],
        "counts": [one[1]["count"].item(), two[1]["count"].item()],
        "eval_loss": [loss_1, loss_2],
        "eval_difference": float(np.abs(p_1 - p_2).max()),
    }))
    """
)


def test_two_devices_give_the_update_of_one():
    """Same global batch, augmentation on: parameters agree to 1e-5 after six steps."""
    result = two_devices.result_of(_DEVICES_PROGRAM, beside=__file__)
    assert result["difference"] < 1e-5
    assert result["mixed_difference"] < 1e-5
    assert result["mixing"] > 1e-4  # pairs do something to every parameter
    assert result["moved"] > 1e-2  # the steps did something on every parameter
    assert result["totals"][0] == pytest.approx(result["totals"][1], rel=1e-5)
    assert result["counts"] == [23, 23]
    assert result["eval_loss"][0] == pytest.approx(result["eval_loss"][1], rel=1e-5)
    assert result["eval_difference"] < 1e-6


def test_spread_and_gather_are_inverse_and_keep_the_order():
    index = np.arange(24).reshape(3, 8)
    shares = parallel.spread(index, 4)
    assert shares.shape == (4, 3, 2)
    np.testing.assert_array_equal(shares[1], [[2, 3], [10, 11], [18, 19]])
    np.testing.assert_array_equal(parallel.gather_spread(shares), np.arange(24))


def test_a_device_in_words():
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    assert parallel.in_words(device) == "gpu (NVIDIA H200)"
    assert parallel.in_words(jax.devices("cpu")[0]) == "cpu"


def test_devices_that_are_not_there_or_do_not_divide_the_batch_are_refused():
    have = len(jax.local_devices())
    with pytest.raises(UserError, match=r"train\.devices"):
        parallel.choose_devices(have + 1, have + 1)
    assert len(parallel.choose_devices(0, 1)) == 1
    if have > 1:
        with pytest.raises(UserError, match="evenly"):
            parallel.choose_devices(2, 3)
