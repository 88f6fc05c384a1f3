"""Prediction refining against its truth table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbus_jax import refine, types

HEIGHT, WIDTH = 3, 5


def spot():
    mask = np.zeros((HEIGHT, WIDTH, 1), bool)
    mask[2, 4] = True
    return mask


def empty():
    return np.zeros((HEIGHT, WIDTH, 1), bool)


# mask, class → refined mask, refined class, incoherent
TABLE = [
    (spot(), types.BENIGN, spot(), types.BENIGN, False),
    (spot(), types.MALIGNANT, spot(), types.MALIGNANT, False),
    (spot(), types.NORMAL, empty(), types.NORMAL, True),
    (empty(), types.BENIGN, empty(), types.NORMAL, True),
    (empty(), types.MALIGNANT, empty(), types.NORMAL, True),
    (empty(), types.NORMAL, empty(), types.NORMAL, False),
]


def logits_of(class_id):
    return np.where(np.arange(3) == class_id, 2.0, -1.0)


@pytest.mark.parametrize(("mask", "class_id", "new_mask", "new_class", "clash"), TABLE)
def test_each_combination(mask, class_id, new_mask, new_class, clash):
    refined_mask, refined_class = refine.refine(mask[None], logits_of(class_id)[None])
    np.testing.assert_array_equal(refined_mask, new_mask[None])
    np.testing.assert_array_equal(refined_class, [new_class])
    np.testing.assert_array_equal(refine.incoherent(mask[None], np.array([class_id])), [clash])


@pytest.mark.parametrize("jit", [False, True])
def test_a_batch_of_all_combinations(jit):
    masks, classes, new_masks, new_classes, clashes = map(np.stack, zip(*TABLE, strict=True))
    logits = np.stack([logits_of(c) for c in classes])
    wrap = jax.jit if jit else (lambda f: f)
    refined_mask, refined_class = wrap(refine.refine)(masks, logits)
    np.testing.assert_array_equal(refined_mask, new_masks)
    np.testing.assert_array_equal(refined_class, new_classes)
    np.testing.assert_array_equal(wrap(refine.incoherent)(masks, classes), clashes)
    assert refined_mask.dtype == bool
    assert refined_class.dtype == jnp.int32


def test_both_rules_look_at_the_unrefined_pair():
    # Emptying the mask for the class must not, and need not, be what makes the class normal;
    # and a class that turns normal for an empty mask must not touch another image's mask.
    masks = np.stack([spot(), empty(), spot()])
    logits = np.stack([logits_of(types.NORMAL), logits_of(types.BENIGN), logits_of(types.BENIGN)])
    refined_mask, refined_class = refine.refine(masks, logits)
    assert np.asarray(refined_mask).any(axis=(1, 2, 3)).tolist() == [False, False, True]
    assert np.asarray(refined_class).tolist() == [types.NORMAL, types.NORMAL, types.BENIGN]


def test_refined_pairs_are_coherent_and_refining_twice_changes_nothing():
    rng = np.random.default_rng(0)
    masks = rng.random((40, HEIGHT, WIDTH, 1)) < 0.03
    logits = rng.normal(size=(40, 3))
    once_mask, once_class = refine.refine(masks, logits)
    assert refine.incoherent(masks, logits.argmax(-1)).any()
    assert not refine.incoherent(once_mask, once_class).any()
    again_mask, again_class = refine.refine(once_mask, jax.nn.one_hot(once_class, 3))
    np.testing.assert_array_equal(again_mask, once_mask)
    np.testing.assert_array_equal(again_class, once_class)


def test_masks_without_a_channel_axis_and_probabilities_do_too():
    masks = np.stack([spot(), empty()])[..., 0]
    probability = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    refined_mask, refined_class = refine.refine(masks, probability)
    assert refined_mask.shape == (2, HEIGHT, WIDTH)
    assert not np.asarray(refined_mask).any()
    np.testing.assert_array_equal(refined_class, [types.NORMAL, types.NORMAL])


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_what_is_no_mask_is_refused(kind):
    with pytest.raises(TypeError, match=f"{np.dtype(kind)}, not bool"):
        refine.refine(np.full((1, 4, 6), 0.1).astype(kind), np.zeros((1, 3)))


@pytest.mark.parametrize(("mask", "logits"), [((4, 6), (1, 3)), ((2, 4, 6), (2,))])
def test_mask_and_classes_are_of_as_many_images(mask, logits):
    with pytest.raises(ValueError, match="do not fit"):
        refine.refine(np.zeros(mask, bool), np.zeros(logits))


def test_one_pixel_in_a_corner_is_a_mask():
    for row, col in [(0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0)]:
        mask = empty()
        mask[row, col] = True
        _, refined_class = refine.refine(mask[None], logits_of(types.MALIGNANT)[None])
        np.testing.assert_array_equal(refined_class, [types.MALIGNANT])


def pair(probability, classes, lesion_odds):
    mask, class_id = jax.jit(refine.refine_probable)(
        np.asarray(probability, np.float32)[None, ..., None],
        np.asarray(classes, np.float32)[None],
        np.asarray([lesion_odds], np.float32),
    )
    return np.asarray(mask)[0, ..., 0], int(class_id[0])


FAINT = np.array([[0.1, 0.2, 0.3, 0.45, 0.4], [0.1, 0.1, 0.1, 0.35, 0.1], [0.0] * 5])
CLEAR = np.array([[0.1, 0.2, 0.6, 0.9, 0.7], [0.1, 0.1, 0.1, 0.8, 0.1], [0.0] * 5])


@pytest.mark.parametrize(
    ("probability", "classes", "lesion_odds", "expected"),
    [
        # Hard rules would empty this mask, normal being the arg max; .4 < .35 · 2.
        (CLEAR, [0.35, 0.25, 0.4], 2.0, types.BENIGN),
        # Normal so sure that the mask goes: .95 > .04 · 3.
        (CLEAR, [0.04, 0.01, 0.95], 3.0, types.NORMAL),
        # Hard rules would call this normal, the mask being empty; .1 < .7 · .5.
        (FAINT, [0.2, 0.7, 0.1], 0.5, types.MALIGNANT),
        (FAINT, [0.2, 0.3, 0.5], 1.0, types.NORMAL),
        # A mask that says nothing leaves it to the class.
        (CLEAR, [0.3, 0.3, 0.4], 1.0, types.NORMAL),
        # Where both agree, nothing changes.
        (CLEAR, [0.1, 0.8, 0.1], 99.0, types.MALIGNANT),
    ],
)
def test_the_most_probable_coherent_pair(probability, classes, lesion_odds, expected):
    mask, class_id = pair(probability, classes, lesion_odds)
    scores = np.array([classes[0] * lesion_odds, classes[1] * lesion_odds, classes[2]])
    assert class_id == expected == scores.argmax()
    assert mask.any() == (class_id != types.NORMAL)
    if class_id != types.NORMAL and (probability > 0.5).any():
        np.testing.assert_array_equal(mask, probability > 0.5)


def test_a_restored_mask_has_the_expected_area():
    mask, _ = pair(FAINT, [0.2, 0.7, 0.1], 2.0)
    assert FAINT.sum() == pytest.approx(2.2)
    np.testing.assert_array_equal(mask, FAINT >= 0.4)  # the two most probable pixels
    mask, _ = pair(FAINT / 100, [0.2, 0.7, 0.1], 2.0)
    np.testing.assert_array_equal(mask, FAINT == 0.45)  # at least one


def test_probable_pairs_are_always_coherent():
    rng = np.random.default_rng(3)
    probability = rng.random((60, HEIGHT, WIDTH, 1)).astype(np.float32) ** 6
    classes = rng.dirichlet([1, 1, 1], 60).astype(np.float32)
    mask, class_id = refine.refine_probable(probability, classes, rng.gamma(1, 1, 60))
    assert not refine.incoherent(mask, class_id).any()
    assert 0 < np.mean(class_id == types.NORMAL) < 1
    # Among them are pairs that the hard rules would have decided otherwise.
    _, hard = refine.refine(probability > 0.5, classes)
    assert (np.asarray(hard) != np.asarray(class_id)).any()


def test_without_a_class_for_no_lesion_hard_refining_changes_nothing():
    masks = np.zeros((2, 3, 4), bool)
    masks[1, 1, 2] = True
    logits = np.array([[2.0, 1.0], [0.0, 1.0]])
    mask, class_id = refine.refine(masks, logits, normal=None)
    np.testing.assert_array_equal(mask, masks)
    assert class_id.tolist() == [0, 1]
    assert refine.incoherent(masks, class_id, normal=None).tolist() == [True, False]


def test_without_a_class_for_no_lesion_the_probable_mask_is_never_empty():
    probability = np.zeros((2, 3, 4), np.float32)
    probability[0, 1, 1:3] = 0.45, 0.4  # Σ p = 0.85: one pixel
    classes = np.array([[0.3, 0.7], [0.6, 0.4]], np.float32)
    mask, class_id = refine.refine_probable(
        probability, classes, np.array([0.01, 0.5]), normal=None
    )
    assert class_id.tolist() == [1, 0]
    assert np.argwhere(mask[0]).tolist() == [[1, 1]]


def test_the_class_for_no_lesion_may_have_any_code():
    masks = np.ones((2, 3, 4), bool)
    masks[1] = False
    mask, class_id = refine.refine(masks, np.array([[3.0, 0.0], [0.0, 3.0]]), normal=0)
    assert not mask.any()
    assert class_id.tolist() == [0, 0]


def test_equally_probable_pixels_are_taken_in_reading_order():
    flat = np.zeros((2, HEIGHT, WIDTH, 1), np.float32)
    flat[1, 1, 1:4] = 0.4  # expected area 1.2: one pixel of three
    lesion = np.array([[0.0, 1.0, 0.0]] * 2, np.float32)
    mask, class_id = refine.refine_probable(flat, lesion, np.ones(2, np.float32))
    assert class_id.tolist() == [1, 1]
    assert np.argwhere(np.asarray(mask)).tolist() == [[0, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("normal", [0, 1])
def test_the_most_probable_pair_with_any_code_for_no_lesion(normal):
    probability = np.zeros((2, HEIGHT, WIDTH, 1), np.float32)
    probability[:, 1, 2] = 0.9
    classes = np.full((2, 3), 0.2, np.float32)
    classes[:, normal] = 0.6
    odds = np.array([0.1, 10.0], np.float32)
    mask, class_id = refine.refine_probable(probability, classes, odds, normal=normal)
    assert (np.asarray(class_id) == normal).tolist() == [True, False]
    assert np.asarray(mask).any(axis=(1, 2, 3)).tolist() == [False, True]
