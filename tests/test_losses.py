"""Losses against hand calculation, closed-form gradients, SciPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtbus_jax import losses, types

# Compiled, because one program per shape is quicker than its operations one by one.
dice_loss = jax.jit(losses.dice_loss)
deep_supervision_loss = jax.jit(losses.deep_supervision_loss)
focal_loss = jax.jit(losses.focal_loss, static_argnames="gamma")
multitask_loss = jax.jit(losses.multitask_loss, static_argnames="gamma")

LOGIT_75 = np.log(3.0)  # sigmoid = 0.75
HEIGHT, WIDTH = 5, 7


def images(*arrays):
    """Stacks ``(height, width)`` arrays to ``(batch, height, width, 1)`` float32."""
    return jnp.asarray(np.stack(arrays)[..., None], jnp.float32)


def dice_reference(logits, mask):
    """Loss per image and its gradient by the quotient rule, in float64."""
    z, y = np.asarray(logits, np.float64), np.asarray(mask, np.float64)
    p = scipy.special.expit(z)
    axes = (1, 2, 3)
    numerator = 2 * (p * y).sum(axes, keepdims=True) + 1
    denominator = (p**2).sum(axes, keepdims=True) + (y**2).sum(axes, keepdims=True) + 1
    slope = (2 * p * numerator - 2 * y * denominator) / denominator**2
    return 1 - (numerator / denominator).ravel(), slope * p * (1 - p)


def focal_reference(logits, label, gamma):
    p = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)[np.arange(len(label)), label]
    return -np.log(p) * (1 - p) ** gamma


def random_batch(rng, batch):
    logits = rng.normal(0, 2, (batch, HEIGHT, WIDTH, 1)).astype(np.float32)
    mask = (rng.random((batch, HEIGHT, WIDTH, 1)) < 0.3).astype(np.float32)
    mask[0] = 0  # a normal image
    return logits, mask


def test_dice_by_hand():
    # p = .5 .75 .25 / .5 .5 .75, truth 1 1 0 / 0 0 1: Σpy = 2, Σp² = 1.9375, Σy² = 3.
    logits = images([[0, LOGIT_75, -LOGIT_75], [0, 0, LOGIT_75]])
    mask = images([[1, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(dice_loss(logits, mask), [1 - 5 / 5.9375], rtol=1e-6)


def test_dice_by_hand_with_empty_truth():
    # Σp² = 1.9375 as above: 1 − 1/2.9375.
    logits = images([[0, LOGIT_75, -LOGIT_75], [0, 0, LOGIT_75]])
    expected = [1 - 1 / 2.9375]
    np.testing.assert_allclose(dice_loss(logits, jnp.zeros_like(logits)), expected, 1e-6)


@pytest.mark.parametrize(
    ("logit", "truth", "expected"),
    [
        (-1e4, 0, 0.0),  # both empty
        (1e4, 0, 1 - 1 / 36),  # everything predicted, nothing there
        (-1e4, 1, 1 - 1 / 36),  # nothing predicted, everything there
        (1e4, 1, 0.0),
    ],
)
def test_dice_of_saturated_masks_is_exact_and_its_gradient_vanishes(logit, truth, expected):
    logits = jnp.full((1, HEIGHT, WIDTH, 1), logit, jnp.float32)
    mask = jnp.full_like(logits, truth)
    value, gradient = jax.value_and_grad(lambda z: dice_loss(z, mask)[0])(logits)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


def test_dice_and_gradient_equal_the_closed_form():
    logits, mask = random_batch(np.random.default_rng(0), 3)
    value, gradient = dice_reference(logits, mask)
    np.testing.assert_allclose(dice_loss(logits, mask), value, rtol=1e-5)
    found = jax.grad(lambda z: dice_loss(z, mask).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-8)
    # Empty truth: the gradient is 2p/(Σp² + 1)² · p(1 − p), everywhere positive.
    p = scipy.special.expit(logits[0].astype(np.float64))
    closed = 2 * p / ((p**2).sum() + 1) ** 2 * p * (1 - p)
    np.testing.assert_allclose(found[0], closed, rtol=1e-4)
    assert (np.asarray(found[0]) > 0).all()


def test_dice_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        dice_loss(jnp.zeros((2, 5, 7, 1)), jnp.zeros((2, 5, 7)))


def test_deep_supervision_weights_are_1_half_third_quarter():
    rng = np.random.default_rng(1)
    logits, mask = random_batch(rng, 3)
    maps = tuple(logits + rng.normal(0, 1, logits.shape).astype(np.float32) for _ in range(4))
    one = [dice_reference(m, mask)[0] for m in maps]
    expected = one[0] + one[1] / 2 + one[2] / 3 + one[3] / 4
    np.testing.assert_allclose(deep_supervision_loss(maps, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(deep_supervision_loss(maps[:1], mask), one[0], rtol=1e-5)
    gradients = jax.grad(lambda m: deep_supervision_loss(m, mask).sum())(maps)
    for i, (found, m) in enumerate(zip(gradients, maps, strict=True), start=1):
        np.testing.assert_allclose(found, dice_reference(m, mask)[1] / i, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_focal_equals_scipy_softmax(gamma):
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (9, 3)).astype(np.float32)
    label = np.arange(9) % 3
    np.testing.assert_allclose(
        focal_loss(logits, label, gamma=gamma),
        focal_reference(logits, label, gamma),
        rtol=2e-5,
    )


def test_focal_by_hand():
    # p_t = 1/2: (1/2)²·log 2 with the default γ = 2.
    logits = jnp.log(jnp.array([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]))
    found = focal_loss(logits, jnp.array([0, 2]))
    np.testing.assert_allclose(found, [np.log(2) / 4] * 2, rtol=1e-6)


def test_focal_with_gamma_0_is_the_cross_entropy_with_its_gradient():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (6, 3)).astype(np.float32)
    label = np.array([0, 1, 2, 2, 1, 0])
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(
        focal_loss(logits, label, gamma=0.0), -log_p[np.arange(6), label], rtol=1e-5
    )
    gradient = jax.grad(lambda z: focal_loss(z, label, gamma=0.0).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, np.exp(log_p) - np.eye(3)[label], atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.5])
def test_focal_gradient_equals_finite_differences(gamma):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (5, 3)).astype(np.float32)
    label = np.array([2, 0, 1, 1, 0])
    found = jax.grad(lambda z: focal_loss(z, label, gamma=gamma).sum())(jnp.asarray(logits))
    step, expected = 1e-6, np.zeros((5, 3))
    for column in range(3):
        shift = np.zeros(3)
        shift[column] = step
        up = focal_reference(logits.astype(np.float64) + shift, label, gamma)
        down = focal_reference(logits.astype(np.float64) - shift, label, gamma)
        expected[:, column] = (up - down) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    ("logits", "expected", "slope"),
    [
        ((1e4, -1e4, 0.0), 0.0, (0, 0, 0)),  # certain and right
        ((-1e4, 1e4, 0.0), 2e4, (-1, 1, 0)),  # certain and wrong: the cross-entropy's slope
        ((0.0, 1e4, -1e4), 1e4, (-1, 1, 0)),
    ],
)
def test_focal_is_finite_and_exact_for_huge_logits(logits, expected, slope, gamma):
    def loss(z):
        return focal_loss(z[None], jnp.array([0]), gamma=gamma)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.array(logits))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_focal_gradient_is_finite_for_gamma_below_1_and_a_certain_image():
    def loss(z):
        return focal_loss(z[None], jnp.array([0]), gamma=0.5)[0]

    gradient = jax.grad(loss)(jnp.array([20.0, 0.0, 0.0]))
    np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-3)


def example(batch=3):
    rng = np.random.default_rng(5)
    logits, mask = random_batch(rng, batch)
    maps = (jnp.asarray(logits), jnp.asarray(logits[:, ::-1]))
    class_logits = jnp.asarray(rng.normal(0, 1, (batch, 3)), jnp.float32)
    label = jnp.asarray(np.arange(batch) % 3, jnp.int32)
    truth = types.Batch(jnp.zeros_like(maps[0]), jnp.asarray(mask), label, jnp.ones(batch))
    return types.Outputs(maps, class_logits, {}), truth


def parts_reference(outputs, batch):
    """Per-image segmentation and classification losses in float64."""
    segmentation = sum(
        dice_reference(m, batch.mask)[0] / i for i, m in enumerate(outputs.segmentation, start=1)
    )
    return segmentation, focal_reference(outputs.class_logits, np.asarray(batch.label), 2.0)


@pytest.mark.parametrize("weight", [0.0, 0.4, 0.85, 1.0])
def test_multitask_is_the_weighted_sum_of_both_means(weight):
    outputs, batch = example()
    segmentation, classification = (part.mean() for part in parts_reference(outputs, batch))
    found = multitask_loss(outputs, batch, weight=weight)
    expected = weight * segmentation + (1 - weight) * classification
    np.testing.assert_allclose(found, [expected, segmentation, classification, 0], rtol=1e-5)
    assert all(part.shape == () for part in found)


def test_multitask_hands_gamma_on():
    outputs, batch = example()
    found = multitask_loss(outputs, batch, weight=0.5, gamma=0.0)
    expected = focal_reference(outputs.class_logits, np.asarray(batch.label), 0.0).mean()
    np.testing.assert_allclose(found.classification, expected, rtol=1e-5)


def test_one_task_has_weight_1():
    outputs, batch = example()
    segmentation, classification = (part.mean() for part in parts_reference(outputs, batch))
    only = multitask_loss(outputs._replace(class_logits=None), batch, weight=0.4)
    np.testing.assert_allclose(only, [segmentation, segmentation, 0, 0], rtol=1e-5)
    only = multitask_loss(outputs._replace(segmentation=()), batch, weight=0.4)
    np.testing.assert_allclose(only, [classification, 0, classification, 0], rtol=1e-5)


def test_padding_changes_neither_value_nor_gradient():
    outputs, batch = example(5)
    valid = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0])
    kept = np.flatnonzero(valid)

    def total(outputs, batch):
        return multitask_loss(outputs, batch, weight=0.85).total

    padded, slope = jax.value_and_grad(total)(outputs, batch._replace(valid=valid))
    few_outputs, few_batch = jax.tree.map(lambda x: x[kept], (outputs, batch))
    bare, bare_slope = jax.value_and_grad(total)(few_outputs, few_batch)
    np.testing.assert_allclose(padded, bare, rtol=1e-6)
    segmentation, classification = parts_reference(few_outputs, few_batch)
    expected = 0.85 * segmentation.mean() + 0.15 * classification.mean()
    np.testing.assert_allclose(padded, expected, rtol=1e-5)
    for whole, part in zip(jax.tree.leaves(slope), jax.tree.leaves(bare_slope), strict=True):
        np.testing.assert_allclose(whole[kept], part, rtol=1e-5, atol=1e-9)
        assert not np.asarray(whole)[[1, 4]].any()
        assert np.asarray(part).any()


def test_a_batch_of_padding_only_costs_nothing():
    outputs, batch = example()
    batch = batch._replace(valid=jnp.zeros(3))

    def total(outputs):
        return multitask_loss(outputs, batch, weight=0.85).total

    value, slope = jax.value_and_grad(total)(outputs)
    assert value == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(slope))


def test_shares_of_a_batch_add_up_with_count():
    outputs, batch = example(5)
    batch = batch._replace(valid=jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    shares = [slice(0, 1), slice(1, 5)]
    summed = np.zeros(4)
    for share in shares:
        part_outputs, part_batch = jax.tree.map(lambda x, s=share: x[s], (outputs, batch))
        summed += multitask_loss(part_outputs, part_batch, weight=0.4, count=4)
    segmentation, classification = parts_reference(outputs, batch)
    s, c = segmentation[:4].mean(), classification[:4].mean()
    np.testing.assert_allclose(summed, [0.4 * s + 0.6 * c, s, c, 0], rtol=1e-5)


def test_a_reconstruction_adds_its_mean_squared_error():
    outputs, batch = example()
    rng = np.random.default_rng(7)
    image = rng.uniform(0, 255, batch.image.shape).astype(np.float32)
    found = rng.uniform(0, 1, image.shape).astype(np.float32)
    batch = batch._replace(image=jnp.asarray(image), valid=jnp.array([1.0, 0.0, 1.0]))

    def total(reconstruction):
        aux = {"reconstruction": reconstruction}
        parts = multitask_loss(outputs._replace(aux=aux), batch, weight=0.4, reconstruction=3.0)
        return parts.total, parts

    gradient, parts = jax.grad(total, has_aux=True)(jnp.asarray(found))
    error = (found - image / 255).astype(np.float64)
    expected = (error[[0, 2]] ** 2).mean()
    np.testing.assert_allclose(parts.reconstruction, expected, rtol=1e-5)
    without = multitask_loss(outputs, batch, weight=0.4).total
    np.testing.assert_allclose(parts.total, without + 3 * expected, rtol=1e-5)
    slope = 3 * 2 * error / error[[0, 2]].size
    slope[1] = 0  # padding
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-8)


def test_reconstruction_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="differ"):
        losses.reconstruction_loss(jnp.zeros((2, 4, 6, 1)), jnp.zeros((2, 4, 6, 3)))


def test_losses_of_normal_images_only_are_finite_with_finite_gradient():
    outputs, batch = example()
    batch = batch._replace(mask=jnp.zeros_like(batch.mask), label=jnp.full(3, types.NORMAL))

    def total(outputs):
        return multitask_loss(outputs, batch, weight=0.85).total

    value, slope = jax.value_and_grad(total)(outputs)
    segmentation, classification = parts_reference(outputs, batch)
    expected = 0.85 * segmentation.mean() + 0.15 * classification.mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    expected_slope = 0.85 * dice_reference(outputs.segmentation[0], batch.mask)[1] / 3
    np.testing.assert_allclose(slope.segmentation[0], expected_slope, rtol=1e-4, atol=1e-9)
    assert np.isfinite(slope.class_logits).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_that_is_no_class_has_no_loss(smoothing):
    logits = jnp.array([[2.0, 0.0, -1.0]] * 4)
    label = jnp.array([types.NO_LABEL, 3, 2, 0])
    found = losses.focal_loss(logits, label, smoothing=smoothing)
    assert np.isnan(found[:2]).all() and np.isfinite(found[2:]).all()

    def loss(logits):
        return jnp.nansum(losses.focal_loss(logits, label, smoothing=smoothing))

    gradient = jax.grad(loss)(logits)
    assert np.isfinite(gradient).all() and not gradient[:2].any() and gradient[2:].all()


def test_as_many_class_weights_as_classes():
    with pytest.raises(ValueError, match="2 class_weights for 3 classes"):
        losses.focal_loss(jnp.zeros((1, 3)), jnp.zeros(1, int), class_weights=(1.0, 2.0))


def test_double_softmax_by_hand():
    """Value and gradient of the focal loss on softmax(softmax(logits)), by NumPy."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (7, 3))
    label = rng.integers(0, 3, 7)

    def reference(logits, gamma=2.0):
        p = scipy.special.softmax(scipy.special.softmax(logits, axis=-1), axis=-1)
        p = p[np.arange(len(label)), label]
        return (1 - p) ** gamma * -np.log(p)

    def total(logits):
        return losses.focal_loss(logits, label, double_softmax=True).sum()

    found = losses.focal_loss(jnp.asarray(logits), label, double_softmax=True)
    np.testing.assert_allclose(found, reference(logits), rtol=1e-5)
    gradient = jax.grad(total)(jnp.asarray(logits))
    for row, column in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[row, column] = 1e-5
        difference = (reference(logits + moved) - reference(logits - moved)).sum() / 2e-5
        np.testing.assert_allclose(gradient[row, column], difference, rtol=1e-3, atol=1e-6)


def test_double_softmax_bounds_the_probability():
    """However sure the network is, the loss of three classes stays above that of e / (e + 2)."""
    sure = jnp.array([[100.0, 0.0, 0.0]])
    bound = np.e / (np.e + 2)
    found = losses.focal_loss(sure, jnp.array([0]), double_softmax=True)
    np.testing.assert_allclose(found, (1 - bound) ** 2 * -np.log(bound), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_label_smoothing_by_hand(gamma):
    """Σ_c t_c · (1 − p_c)^γ · (−log p_c) with t = (1 − s)·onehot + s/3; values and gradients."""
    rng = np.random.default_rng(6)
    logits, label = rng.normal(0, 2, (5, 3)), rng.integers(0, 3, 5)

    def reference(logits):
        p = scipy.special.softmax(logits, axis=-1)
        target = 0.8 * np.eye(3)[label] + 0.2 / 3
        return (target * (1 - p) ** gamma * -np.log(p)).sum(axis=-1)

    def ours(logits):
        return losses.focal_loss(logits, label, gamma=gamma, smoothing=0.2)

    np.testing.assert_allclose(ours(jnp.asarray(logits)), reference(logits), rtol=1e-5)
    gradient = jax.grad(lambda x: ours(x).sum())(jnp.asarray(logits))
    for row, column in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[row, column] = 1e-5
        difference = (reference(logits + moved) - reference(logits - moved)).sum() / 2e-5
        np.testing.assert_allclose(gradient[row, column], difference, rtol=1e-3, atol=1e-5)


def test_pixel_cross_entropy_by_scipy():
    """Against SciPy's logarithms, with an empty mask and logits that overflow a naive form."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 3, (3, 6, 10, 1))
    logits[2] = 200.0
    mask = (rng.random(logits.shape) > 0.7).astype(float)
    mask[1] = 0
    log_p, log_q = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
    expected = -(mask * log_p + (1 - mask) * log_q).mean(axis=(1, 2, 3))
    found = losses.pixel_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradient = jax.grad(lambda x: losses.pixel_cross_entropy(x, jnp.asarray(mask)).sum())(
        jnp.asarray(logits, jnp.float32)
    )
    np.testing.assert_allclose(
        gradient, (scipy.special.expit(logits) - mask) / 60, rtol=1e-4, atol=1e-7
    )


def test_deep_supervision_adds_the_cross_entropy_of_each_map():
    rng = np.random.default_rng(8)
    maps = tuple(jnp.asarray(rng.normal(size=(2, 4, 6, 1)), jnp.float32) for _ in range(3))
    mask = jnp.asarray(rng.random((2, 4, 6, 1)) > 0.5, jnp.float32)
    found = losses.deep_supervision_loss(maps, mask, cross_entropy=0.5)
    expected = sum(
        (losses.dice_loss(m, mask) + 0.5 * losses.pixel_cross_entropy(m, mask)) / i
        for i, m in enumerate(maps, start=1)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_image_without_mask_or_label_adds_nothing_to_that_task():
    """Its logits get no gradient from it; the others weigh what they weigh in a full batch."""
    rng = np.random.default_rng(8)
    mask = images(*(rng.random((3, HEIGHT, WIDTH)) < 0.3))
    label = jnp.array([types.NO_LABEL, 2, 1])
    maps, scores = rng.normal(size=mask.shape), rng.normal(size=(3, 3))
    mask_known, label_known = jnp.array([1.0, 0.0, 1.0]), jnp.array([0.0, 1.0, 1.0])

    def total(maps, scores, *known):
        outputs = types.Outputs((maps,), scores, {})
        batch = types.Batch(maps, mask, label, jnp.ones(3), *known)
        return losses.multitask_loss(outputs, batch, weight=0.6).total

    arguments = jnp.asarray(maps, jnp.float32), jnp.asarray(scores, jnp.float32)
    value, gradients = jax.value_and_grad(total, (0, 1))(*arguments, mask_known, label_known)
    dice, _ = dice_reference(maps, mask)
    focal = focal_reference(scores, np.asarray(label), 2.0)
    expected = (0.6 * (dice[0] + dice[2]) + 0.4 * (focal[1] + focal[2])) / 3
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    full = jax.grad(total, (0, 1))(*arguments)
    for found, whole, known in zip(gradients, full, (mask_known, label_known), strict=True):
        shape = (3,) + (1,) * (found.ndim - 1)
        np.testing.assert_allclose(found, whole * known.reshape(shape), atol=1e-7)


def plain_reference(logits, mask, smoothing):
    """Plain Dice loss per image and its gradient by the quotient rule, in float64."""
    z, y = np.asarray(logits, np.float64), np.asarray(mask, np.float64)
    p = scipy.special.expit(z)
    axes = (1, 2, 3)
    numerator = 2 * (p * y).sum(axes, keepdims=True) + smoothing
    denominator = p.sum(axes, keepdims=True) + y.sum(axes, keepdims=True) + smoothing
    slope = (numerator - 2 * y * denominator) / denominator**2
    return 1 - (numerator / denominator).ravel(), slope * p * (1 - p)


@pytest.mark.parametrize("smoothing", [1.0, 1e-5])
def test_plain_dice_in_closed_form(smoothing):
    """Values and gradients; the second image has no tumour."""
    rng = np.random.default_rng(0)
    logits = images(*rng.normal(0, 2, (2, HEIGHT, WIDTH)))
    mask = images(rng.integers(0, 2, (HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH)))
    options = {"sizes": "plain", "smoothing": smoothing}
    value, gradient = plain_reference(logits, mask, smoothing)
    np.testing.assert_allclose(losses.dice_loss(logits, mask, **options), value, rtol=1e-5)
    found = jax.grad(lambda z: jnp.sum(losses.dice_loss(z, mask, **options)))(logits)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-8)


def test_plain_dice_of_certain_predictions():
    """Right ones lose nothing, and an empty prediction of an empty mask neither."""
    mask = images(np.eye(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH)))
    certain = 200 * mask - 100
    np.testing.assert_allclose(losses.dice_loss(certain, mask, sizes="plain"), 0, atol=1e-6)
    # Half sure everywhere: 2·(5/2) + 1 over 35/2 + 5 + 1, where the squares have 35/4.
    unsure = jnp.zeros_like(mask)
    found = losses.dice_loss(unsure, mask, sizes="plain")[0]
    assert float(found) == pytest.approx(1 - 6 / 23.5, rel=1e-6)
    assert float(losses.dice_loss(unsure, mask)[0]) == pytest.approx(1 - 6 / 14.75, rel=1e-6)


def test_the_multitask_loss_takes_the_kind_of_dice():
    rng = np.random.default_rng(1)
    maps = tuple(images(*rng.normal(0, 2, (2, HEIGHT, WIDTH))) for _ in range(2))
    mask = images(*rng.integers(0, 2, (2, HEIGHT, WIDTH)))
    batch = types.Batch(mask, mask, jnp.array([0, 1]), jnp.ones(2))
    parts = losses.multitask_loss(
        types.Outputs(maps, None, {}), batch, weight=0.7, dice="plain", dice_smoothing=0.5
    )
    expected = sum(plain_reference(z, mask, 0.5)[0].mean() / i for i, z in enumerate(maps, 1))
    assert float(parts.segmentation) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_multiply_by_the_true_class(smoothing):
    """α_t·FL of each image: values and gradients, beside those without weights."""
    rng = np.random.default_rng(0)
    logits, label = jnp.asarray(rng.normal(0, 2, (5, 3)), jnp.float32), jnp.array([0, 2, 1, 2, 0])
    weights = np.array([0.5, 2.0, 3.0], np.float32)
    options = {"gamma": 2.0, "smoothing": smoothing}

    def total(logits, cotangent, **more):
        return jnp.sum(losses.focal_loss(logits, label, **options, **more) * cotangent)

    plain = losses.focal_loss(logits, label, **options)
    found = losses.focal_loss(logits, label, **options, class_weights=tuple(weights.tolist()))
    np.testing.assert_allclose(found, weights[label] * plain, rtol=1e-6)
    gradient = jax.grad(total)(logits, jnp.ones(5), class_weights=tuple(weights.tolist()))
    np.testing.assert_allclose(gradient, jax.grad(total)(logits, weights[label]), rtol=1e-5)
    if not smoothing:
        reference = focal_reference(logits, np.asarray(label), 2.0)
        np.testing.assert_allclose(found, weights[label] * reference, rtol=1e-4)


def test_the_multitask_loss_takes_class_weights():
    logits = jnp.asarray([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    mask = images(np.ones((HEIGHT, WIDTH)), np.ones((HEIGHT, WIDTH)))
    batch = types.Batch(mask, mask, jnp.array([1, 2]), jnp.ones(2))
    parts = losses.multitask_loss(
        types.Outputs((), logits, {}), batch, weight=0.5, class_weights=(9.0, 2.0, 0.5)
    )
    reference = focal_reference(logits, np.array([1, 2]), 2.0)
    expected = (2.0 * reference[0] + 0.5 * reference[1]) / 2
    assert float(parts.classification) == pytest.approx(expected, rel=1e-5)


def test_unknown_names_are_refused():
    logits = jnp.zeros((1, 4, 6, 1))
    with pytest.raises(ValueError, match="sizes='sqared' is unknown"):
        losses.dice_loss(logits, logits, sizes="sqared", smoothing=1.0)
