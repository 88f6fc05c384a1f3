"""Mixup: the loss and its gradient against numpy, padding, unknown truths, the draws."""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import tiny

from mtbus_jax import augment, data, losses, models, types
from mtbus_jax.training import mixup, steps
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.logbook import read_metrics
from mtbus_jax.training.totals import Totals

HEIGHT, WIDTH, COUNT = 6, 10, 5
RATE = 0.5
SCHEDULE = schedule_lib.PlateauSchedule(learning_rate=RATE)
# The update is −RATE · gradient, so the gradient can be read off the parameters.
PLAIN = optax.identity()
# Entries of `PixelNet`'s only parameter.
_SLOPE, _SHIFT, _CLASSES, _RECONSTRUCTION = 0, 1, slice(2, 5), 5
START = np.array([3.0, -1.2, 0.8, -0.5, 0.3, 1.5])


class PixelNet(nn.Module):
    """Each pixel's logit from its grey value, classes from the mean: easy to write in numpy."""

    tasks: tuple[str, ...] = types.TASKS
    reconstructs: bool = True

    @nn.compact
    def __call__(self, image, *, train=False):
        w = self.param("w", lambda key: jnp.asarray(START, jnp.float32))
        image = image / 255
        segmentation, class_logits = (), None
        if "seg" in self.tasks:
            segmentation = (w[_SLOPE] * image + w[_SHIFT], w[_SLOPE] * image)
        if "cls" in self.tasks:
            class_logits = image.mean((1, 2)) * w[_CLASSES]
        aux = {"reconstruction": nn.sigmoid(w[_RECONSTRUCTION] * image)}
        return types.Outputs(segmentation, class_logits, aux if self.reconstructs else {})


def make_batch(*, unknown=True):
    """Five images: one is padding; with ``unknown``, one has no mask and one no label."""
    rng = np.random.default_rng(3)
    mask = (rng.random((COUNT, HEIGHT, WIDTH, 1)) < 0.4).astype(np.float32)
    mask[1] = 0
    known = np.ones((2, COUNT), np.float32)
    known[0, 2] = known[1, 0] = 0
    return types.Batch(
        image=rng.uniform(0, 255, mask.shape).astype(np.float32),
        mask=mask,
        label=np.array([0, 2, 1, 1, 2], np.int32),
        valid=np.array([1, 1, 1, 1, 0], np.float32),
        mask_known=known[0] if unknown else None,
        label_known=known[1] if unknown else None,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_loss(w, batch, partner, share, *, weight, smoothing, tasks, reconstruction):
    """The mixed loss, image by image, in float64."""
    image, mask = (np.asarray(each, float)[..., 0] for each in (batch.image, batch.mask))
    known = [np.ones(COUNT) if k is None else k for k in (batch.mask_known, batch.label_known)]
    total = 0.0
    for i in np.flatnonzero(batch.valid):
        j = partner[i]
        mixed = (share * image[i] + (1 - share) * image[j]) / 255
        of_image = 0.0
        for member, part in ((i, share), (j, 1 - share)):
            dice = 0.0
            for number, logits in enumerate((w[_SLOPE] * mixed + w[_SHIFT], w[_SLOPE] * mixed), 1):
                p, y = sigmoid(logits), mask[member]
                dice += (1 - (2 * (p * y).sum() + 1) / ((p**2).sum() + y.sum() + 1)) / number
            logits = mixed.mean() * w[_CLASSES]
            log_p = logits - np.log(np.exp(logits).sum())
            target = np.full(3, smoothing / 3)
            target[batch.label[member]] += 1 - smoothing
            focal = (target * (1 - np.exp(log_p)) ** 2 * -log_p).sum()
            dice, focal = dice * known[0][member], focal * known[1][member]
            if tasks == types.TASKS:
                of_image += part * (weight * dice + (1 - weight) * focal)
            else:
                of_image += part * (dice if tasks == ("seg",) else focal)
        if reconstruction:
            of_image += reconstruction * ((sigmoid(w[_RECONSTRUCTION] * mixed) - mixed) ** 2).mean()
        total += of_image
    return total / batch.valid.sum()


def make_state(module):
    variables = module.init(jax.random.key(0), jnp.zeros((1, HEIGHT, WIDTH, 1)))
    return state_lib.create(variables, optimizer=PLAIN, schedule=SCHEDULE)


def step(module, loss, batch, partners=None):
    return jax.jit(
        functools.partial(
            steps.train_step,
            module=module,
            optimizer=PLAIN,
            schedule=SCHEDULE,
            loss=loss,
            key=jax.random.key(0),
        )
    )(make_state(module), batch, partners=partners)


@pytest.mark.parametrize("share", [0.5, 0.83, 1.0])
@pytest.mark.parametrize("tasks", [types.TASKS, ("seg",), ("cls",)])
@pytest.mark.parametrize("unknown", [True, False])
def test_loss_and_gradient_of_given_pairs(share, tasks, unknown):
    # The second images lack a mask, a label, or are padding, which only the first must not be.
    batch, partner = make_batch(unknown=unknown), np.array([2, 0, 4, 1, 3])
    loss = losses.LossOptions(weight=0.7, label_smoothing=0.1, reconstruction=0.6)
    mixed, partners = mixup.mix(batch, batch, partner, jnp.float32(share))
    after, sums = step(PixelNet(tasks), loss, mixed, partners)
    reference = functools.partial(
        numpy_loss, batch=batch, partner=partner, share=share, weight=0.7, smoothing=0.1,
        tasks=tasks, reconstruction=0.6,
    )  # fmt: skip
    assert float(sums.loss) / 4 == pytest.approx(reference(START), rel=1e-5)
    gradient = (START - np.asarray(after.params["w"])) / RATE
    small = 1e-5 * np.eye(len(START))
    expected = [(reference(START + d) - reference(START - d)) / 2e-5 for d in small]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-6)
    assert np.count_nonzero(np.abs(expected) > 1e-5) >= {"seg": 3, "cls": 4}.get(tasks[-1], 6)


def test_learned_weights_and_their_second_term_count_once():
    batch, partner = make_batch(), np.array([3, 0, 2, 1, 4])
    loss = losses.LossOptions(weight=0.7, weighting="learned")
    p = {"segmentation": jnp.float32(1.3), "classification": jnp.float32(0.6)}
    mixed, partners = mixup.mix(batch, batch, partner, jnp.float32(0.8))
    state = make_state(PixelNet(reconstructs=False)).replace(
        loss_weights=p, loss_moments=PLAIN.init(p)
    )
    after, sums = steps.train_step(
        state, mixed, module=PixelNet(reconstructs=False), optimizer=PLAIN, schedule=SCHEDULE,
        loss=loss, key=jax.random.key(0), partners=partners,
    )  # fmt: skip
    alone = [
        numpy_loss(START, batch, partner, 0.8, weight=0, smoothing=0, tasks=t, reconstruction=0)
        for t in (("seg",), ("cls",))
    ]
    expected = sum(
        0.5 / q**2 * each + np.log1p(q**2) for q, each in zip((1.3, 0.6), alone, strict=True)
    )
    assert float(sums.loss) / 4 == pytest.approx(expected, rel=1e-5)
    slope = -(0.6**-3) * alone[1] + 2 * 0.6 / (1 + 0.6**2)
    assert (0.6 - float(after.loss_weights["classification"])) / RATE == pytest.approx(
        slope, rel=1e-3
    )


def test_a_share_of_one_is_no_mixup():
    batch, loss = make_batch(), losses.LossOptions(weight=0.7)
    mixed, partners = mixup.mix(batch, batch, np.array([3, 0, 2, 1, 4]), jnp.float32(1))
    found, plain = step(PixelNet(), loss, mixed, partners), step(PixelNet(), loss, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, plain)


def test_metrics_compare_with_the_truth_of_the_larger_share():
    batch = make_batch(unknown=False)
    mixed, partners = mixup.mix(batch, batch, np.array([3, 0, 2, 1, 4]), jnp.float32(0.8))
    np.testing.assert_array_equal(mixed.mask, batch.mask)
    np.testing.assert_array_equal(mixed.label, batch.label)
    np.testing.assert_array_equal(partners.batch.label, [1, 0, 1, 2, 2])
    _, sums = step(PixelNet(), losses.LossOptions(weight=0.7), mixed, partners)
    logits = START[_SLOPE] * np.asarray(mixed.image) / 255 + START[_SHIFT]
    found, truth = (each[:4].reshape(4, -1) for each in (logits > 0, batch.mask > 0))
    dice = 2 * (found & truth).sum(1) / (found.sum(1) + truth.sum(1))
    assert float(sums.dice) == pytest.approx(dice.sum(), rel=1e-5)


def test_padding_keeps_to_itself_and_permutations_of_the_rest_are_equally_likely():
    valid = np.array([1, 0, 1, 1, 0], np.float32)
    keys = jax.random.split(jax.random.key(2), 6000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: mixup.draw_partner(key, valid)))(keys))
    assert {tuple(sorted(draw)) for draw in draws} == {(0, 1, 2, 3, 4)}
    assert {tuple(sorted(draw[[0, 2, 3]])) for draw in draws} == {(0, 2, 3)}
    counts = collections.Counter(tuple(draw[[0, 2, 3]]) for draw in draws)
    assert len(counts) == 6
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_the_larger_share_is_beta_distributed(alpha):
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: mixup.draw_share(key, alpha)))(keys))
    assert draws.min() >= 0.5

    def larger(x):  # P(max(λ, 1 − λ) ≤ x)
        beta = scipy.stats.beta(alpha, alpha)
        return np.where(x < 0.5, 0, beta.cdf(x) - beta.cdf(1 - x))

    assert scipy.stats.kstest(draws, larger).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 100])
def test_extreme_alphas_give_a_share(alpha):
    keys = jax.random.split(jax.random.key(1), 500)
    draws = np.asarray(jax.vmap(lambda key: mixup.draw_share(key, alpha))(keys))
    assert ((draws >= 0.5) & (draws <= 1)).all()
    assert np.mean(draws > 0.99 if alpha < 1 else draws < 0.75) > 0.9


SEEN = []


class Spy(PixelNet):
    """Keeps what it sees."""

    @nn.compact
    def __call__(self, image, *, train=False):
        jax.debug.callback(lambda x: SEEN.append(np.array(x)), image)
        return PixelNet.__call__(self, image, train=train)


def seen_in_training(calls, **options):
    """What the network sees of four images in six steps, in so many programs."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, HEIGHT, WIDTH, 1), dtype=np.uint8)
    truth = (image > 99).astype(np.uint8), np.arange(4, dtype=np.int32) % 3
    placed = steps.Dataset(*map(jnp.asarray, (image, *truth)))
    index, valid = np.tile(np.arange(4), (6, 1)), np.ones((6, 4), np.float32)
    valid[5, 3:] = 0
    program = functools.partial(
        steps.train_steps, module=Spy(), optimizer=PLAIN, schedule=SCHEDULE,
        loss=losses.LossOptions(weight=0.7), **options,
    )  # fmt: skip
    state, totals = make_state(Spy()), Totals.zero()
    jax.effects_barrier()
    SEEN.clear()
    for part in np.split(np.arange(6), calls):
        state, totals = program(state, totals, placed, index[part], valid[part], jax.random.key(5))
    jax.block_until_ready(state)
    jax.effects_barrier()
    return image.astype(float), np.stack(SEEN), state


def test_each_step_draws_its_own_pairs_and_share():
    image, seen, _ = seen_in_training(1, augmentation=None, mix=1.0)
    rows = image.reshape(4, -1)
    shares = []
    for batch in seen.reshape(6, 4, -1):
        # Each mixed image is a combination of the four.
        part = np.linalg.lstsq(rows.T, batch.T, rcond=None)[0].T
        np.testing.assert_allclose(part.sum(1), 1, atol=1e-4)
        np.testing.assert_allclose(part.sum(0), 1, atol=1e-4)  # each is partner once
        assert (np.diag(part) >= 0.4999).all()
        mixed = np.diag(part)[np.diag(part) < 0.9999]
        if len(mixed):  # else each image is its own partner
            assert np.ptp(mixed) < 1e-4  # one share in a batch
            shares.append(mixed[0])
    assert len(shares) >= 4 and np.diff(np.sort(shares)).min() > 1e-3
    np.testing.assert_allclose(seen[5, 3], image[3], atol=1e-3)  # padding


def test_stopping_between_steps_changes_nothing():
    whole, parts = (
        seen_in_training(calls, augmentation=augment.upright, mix=0.7) for calls in (1, 3)
    )
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-3)
    np.testing.assert_allclose(whole[2].params["w"], parts[2].params["w"], atol=1e-5)


def test_mixup_leaves_the_other_draws_as_they_are():
    """What is mixed are the augmented images of the same run without mixup."""
    _, plain, _ = seen_in_training(1, augmentation=augment.upright)
    _, seen, _ = seen_in_training(1, augmentation=augment.upright, mix=1.0)
    assert not np.allclose(seen, plain, atol=1)
    for mixed, images in zip(seen.reshape(6, 4, -1), plain.reshape(6, 4, -1), strict=True):
        part = np.linalg.lstsq(images.T, mixed.T, rcond=None)[0].T
        np.testing.assert_allclose(part @ images, mixed, atol=0.1)
        assert (np.diag(part) >= 0.4999).all()


def test_the_field_of_the_configuration_is_the_one_trained_with(tmp_path, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny.TinyNet)
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: tiny.make_cases())
    found = []
    for number, alpha in enumerate((0.0, 0.4, 0.4, 2.0)):
        tiny.train_one(tiny.make_config(epochs=1, mixup=alpha), tmp_path / str(number))
        found.append(read_metrics(tmp_path / str(number))[0]["train_loss"])
    assert found[1] == found[2]
    assert len(set(found)) == 3
