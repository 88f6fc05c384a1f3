"""Trust: what is fitted on validation images, and what is said about others."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression

from mtbus_jax import files, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.evaluation.trust import fit
from mtbus_jax.metrics import calibration, segmentation

HEIGHT, WIDTH = 4, 6


def simulated(n=200, *, members=4, seed=0):
    """Images whose doubtful ones (a third) are wrong half of the time."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    doubtful = rng.random(n) < 1 / 3
    wrong = doubtful & (rng.random(n) < 0.5)
    said = np.where(wrong, (label + 1) % 3, label)
    sure = np.where(doubtful, 0.5, 4.0)
    noise = np.where(doubtful, 1.0, 0.1)[:, None]
    logits = np.eye(3)[said] * sure[:, None] + noise * rng.normal(size=(members, n, 3))
    has_lesion = label != types.NORMAL
    lesion = np.zeros((n, HEIGHT, WIDTH))
    lesion[:, 1:3, 2:5] = 0.9
    probability = np.where(has_lesion[:, None, None], lesion, 0.02)
    stack = np.clip(
        probability + 0.3 * noise[:, None] * rng.normal(size=(members, n, HEIGHT, WIDTH)), 0, 1
    )
    return stack, logits, label, has_lesion, wrong, doubtful


def answers(stack, logits):
    """What the first member says, unrefined."""
    mask = None if stack is None else stack[0] > 0.5
    return mask, None if logits is None else logits[0].argmax(axis=-1)


def judged(stack, logits, model):
    """How doubtful these answers are to one fold."""
    found = trust.assess(stack, logits, {0: model}, [0])
    return trust.judge(found, *answers(stack, logits), {0: model}, [0])


def fitted(**kwargs):
    stack, logits, label, has_lesion, wrong, _ = simulated(**kwargs)
    mask, class_id = answers(stack, logits)
    return fit.fit(
        stack.mean(axis=0),
        calibration.mask_disagreement(stack),
        logits,
        mask=mask,
        class_id=class_id,
        label=label,
        has_lesion=has_lesion,
        wrong_class=wrong,
        wrong_mask=np.zeros(len(wrong), bool),
    )


def test_doubtful_images_are_the_uncertain_ones_on_other_data():
    model = fitted(n=2000)
    stack, logits, label, _, wrong, doubtful = simulated(2000, seed=1)
    found = judged(stack, logits, model)
    assert found.uncertainty[doubtful].mean() > 3 * found.uncertainty[~doubtful].mean()
    assert ((found.uncertainty >= 0) & (found.uncertainty <= 1)).all()
    # It is a probability: its mean is the share of wrong ones.
    assert found.uncertainty.mean() == pytest.approx(wrong.mean(), abs=0.03)
    assert found.warning.mean() == pytest.approx(trust.WARNING_SHARE, abs=0.04)
    curve = calibration.risk_coverage(wrong, found.uncertainty)
    assert curve.at(0.8) < 0.7 * curve.at(1.0)
    sets = trust.assess(stack, logits, {0: model}, [0]).prediction_set
    covered = sets[np.arange(len(label)), label].mean()
    # The promised 0.9, up to the sampling of both sets.
    assert covered == pytest.approx(0.9, abs=0.03)


def test_an_assessment_by_hand():
    class_error = trust.Logistic(-1.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    mask_error = trust.Logistic(-2.0, (0.0, 1.0, 2.0, 0.0, 3.0))
    presence_model = trust.Presence(trust.Logistic(-1.0, (2.0, 3.0)), 0.8)
    model = trust.FoldTrust(2.0, 0.3, presence_model, class_error, mask_error, 0.4, 68)
    stack = np.zeros((2, 1, HEIGHT, WIDTH))
    stack[:, 0, 0, :2] = [[1.0, 1.0], [1.0, 0.0]]  # two pixels, and one of them
    logits = np.log(np.array([[[0.64, 0.04, 0.04]], [[0.16, 0.36, 0.04]]]))
    found = trust.assess(stack, logits, {3: model}, [3])
    # √p: (8, 2, 2)/12 and (4, 6, 2)/12.
    mean = np.array([6, 4, 2]) / 12
    np.testing.assert_allclose(found.class_probability, [mean])
    np.testing.assert_allclose(found.probability[0, 0, :3], [1, 0.5, 0])
    # The mean mask is the first pixel alone (.5 is not above 1/2): Dice 2/3 and 1. The mass is 1
    # and 1/2, its concentration 1.25/1.5.
    presence = scipy.special.expit(-1 + 2 * 1.25 / 1.5 + 3 * (1 - 1 / 6))
    np.testing.assert_allclose(found.presence, [presence])
    np.testing.assert_allclose(found.lesion_odds, [presence / (1 - presence) * 0.2 / 0.8])
    assert found.prediction_set.tolist() == [[True, True, False]]
    conflict = abs(presence - (1 - mean[2]))
    pixels = np.zeros((1, HEIGHT, WIDTH), bool)
    pixels[0, 0, :3] = True
    for mask, class_id, said, dice in (
        (pixels, 1, mean[1], presence * 2 * 1.5 / (1.5 + 3)),  # three pixels, mass 1.5 inside
        (pixels & False, 2, mean[2], 1 - presence),
    ):
        doubt = [1 - said, (2 / 12 + 2 / 12) / 2, 1 / 6, conflict, 1 - dice]
        wrong_class = scipy.special.expit(-1 + np.dot([1, 2, 3, 4, 5], doubt))
        wrong_mask = scipy.special.expit(-2 + np.dot([0, 1, 2, 0, 3], doubt))
        expected = 1 - (1 - wrong_class) * (1 - wrong_mask)
        for threshold in (expected - 0.01, expected + 0.01):
            strict = {3: dataclasses.replace(model, warning_threshold=threshold)}
            judgement = trust.judge(found, mask, np.array([class_id]), strict, [3])
            np.testing.assert_allclose(judgement.uncertainty, [expected])
            assert judgement.warning.tolist() == [bool(expected > threshold)]


def test_the_expected_dice_of_a_sure_network_is_the_dice():
    rng = np.random.default_rng(0)
    truth, mask = rng.random((2, 5, HEIGHT, WIDTH)) < 0.3
    truth[3], mask[4] = False, False
    found = trust.expected_dice(truth.astype(float), mask, truth.any(axis=(1, 2)).astype(float))
    expected = [segmentation.dice(t, m) for t, m in zip(truth, mask, strict=True)]
    np.testing.assert_allclose(found, expected)
    nothing = np.zeros((2, HEIGHT, WIDTH))
    found = trust.expected_dice(nothing, nothing > 0, np.array([0.0, 0.7]))
    np.testing.assert_allclose(found, [1, 0.3])


def test_folds_of_an_ensemble_each_bring_their_own_temperature():
    one = fitted(n=60)
    cold, warm = (dataclasses.replace(one, temperature=t) for t in (0.5, 4.0))
    _, logits, *_ = simulated(n=5, seed=2)
    found = trust.assess(None, logits[[0, 1]], {0: cold, 2: warm}, [0, 2])
    expected = (
        sum(scipy.special.softmax(z / t, -1) for z, t in zip(logits, (0.5, 4.0), strict=False)) / 2
    )
    np.testing.assert_allclose(found.class_probability, expected)
    assert found.probability is None
    assert found.presence is None


def test_one_task_alone_is_fitted_too():
    stack, logits, label, has_lesion, wrong, _ = simulated(n=100)
    disagreement = calibration.mask_disagreement(stack)
    truth = {"label": label, "has_lesion": has_lesion}
    right = np.zeros(100, bool)
    truth_of_masks = {**truth, "wrong_class": right, "wrong_mask": wrong}
    truth_of_masks |= {"mask": answers(stack, None)[0], "class_id": None}
    masks = fit.fit(stack.mean(axis=0), disagreement, None, **truth_of_masks)
    assert trust.assess(stack, None, {0: masks}, [0]).prediction_set is None
    found = judged(stack, None, masks)
    assert found.uncertainty[wrong].mean() > found.uncertainty[~wrong].mean()
    truth |= {"mask": None, "class_id": answers(None, logits)[1]}
    classes = fit.fit(None, None, logits, **truth, wrong_class=wrong, wrong_mask=right)
    found = judged(None, logits, classes)
    assert found.uncertainty[wrong].mean() > found.uncertainty[~wrong].mean()


@pytest.mark.parametrize("outcome", [False, True])
def test_nothing_wrong_or_all_wrong_gives_laplaces_rule(outcome):
    stack, logits, label, *_ = simulated(n=48)
    mask, class_id = answers(stack, logits)
    model = fit.fit(
        stack.mean(axis=0),
        calibration.mask_disagreement(stack),
        logits,
        mask=mask,
        class_id=class_id,
        label=label,
        has_lesion=np.full(48, outcome),
        wrong_class=np.full(48, outcome),
        wrong_mask=np.full(48, outcome),
    )
    expected = 49 / 50 if outcome else 1 / 50
    found = trust.assess(stack, logits, {0: model}, [0])
    judgement = judged(stack, logits, model)
    np.testing.assert_allclose(judgement.uncertainty, 1 - (1 - expected) ** 2)
    np.testing.assert_allclose(found.lesion_odds, 1)
    np.testing.assert_allclose(found.presence, expected)
    assert not judgement.warning.any()


def test_the_file_gives_back_what_was_fitted(tmp_path):
    assert trust.read(tmp_path) is None
    models = {0: fitted(n=50), 2: fitted(n=50, seed=4)}
    content = {"folds": {str(k): dataclasses.asdict(v) for k, v in models.items()}}
    files.write_json(tmp_path / trust.TRUST, content)
    assert trust.read(tmp_path) == models
    assert trust.read(tmp_path)[2].presence(np.ones((1, 2, 3)), np.zeros(1)).shape == (1,)
    content = files.read_json(tmp_path / trust.TRUST)
    del content["folds"]["0"]["class_error"][1][0]  # one sign less, as in earlier versions
    files.write_json(tmp_path / trust.TRUST, content)
    with pytest.raises(
        UserError, match=r"trust\.json is broken or of an earlier version.*evaluate"
    ):
        trust.read(tmp_path)
    del content["folds"]["2"]["presence"]
    files.write_json(tmp_path / trust.TRUST, content)
    with pytest.raises(UserError, match=r"trust\.json is broken"):
        trust.read(tmp_path)


def test_no_sign_of_doubt_speaks_against_being_wrong():
    """The first sign, reversed, would help; the other one, the same with noise, is used."""
    rng = np.random.default_rng(0)
    wrong = rng.random(400) < 0.3
    against = 1 - wrong + 0.1 * rng.normal(size=400)
    speaks = wrong + 0.5 * rng.normal(size=400)
    model = fit.fit_logistic(np.stack([against, speaks], axis=-1), wrong)
    assert model.weights[0] == 0
    assert model.weights[1] > 0
    # With that sign alone: the optimum of scikit-learn's ridge, whose C is 1 on standard scores.
    scores = (speaks - speaks.mean()) / speaks.std()
    reference = LogisticRegression(C=1.0, tol=1e-8).fit(scores[:, None], wrong)
    expected = reference.predict_proba(scores[:, None])[:, 1]
    np.testing.assert_allclose(model(np.stack([against, speaks], axis=-1)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("conformal_threshold", 7.0),
        ("warning_threshold", -0.1),
        ("presence", [[0.0, [1.0, 1.0]], 0.0]),
        ("presence", [[0.0, [1.0, 1.0]], 1.0]),
        ("class_error", [0.0, [float("nan"), 0.0, 0.0, 0.0, 0.0]]),
        ("mask_error", [0.0, [-1.0, 0.0, 0.0, 0.0, 0.0]]),
    ],
)
def test_a_file_with_what_cannot_have_been_fitted_is_refused(field, value, tmp_path):
    values = dataclasses.asdict(fitted(n=50))
    (tmp_path / trust.TRUST).write_text(json.dumps({"folds": {"0": values | {field: value}}}))
    with pytest.raises(UserError, match=r"trust\.json is broken"):
        trust.read(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_a_prediction_set_holds_the_class_of_as_many_validation_images_as_promised(seed):
    """The image that sets the threshold is one of them, whatever rounding does."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, 67)
    logits = rng.normal(0, 2, (2, 67, 3)).astype(np.float32)
    logits[:, np.arange(67), label] += np.float32(3)
    right = np.zeros(67, bool)
    model = fit.fit(
        None,
        None,
        logits,
        mask=None,
        class_id=logits.mean(axis=0).argmax(-1),
        label=label,
        has_lesion=label > 0,
        wrong_class=right,
        wrong_mask=right,
    )
    found = trust.assess(None, logits, {0: model}, [0, 0]).prediction_set
    assert found[np.arange(67), label].sum() >= np.ceil(68 * (1 - trust.ERROR_RATE))


def test_several_folds_are_joined_as_documented():
    """The lowest of the thresholds for sets, the mean of all else."""
    models = {}
    for fold, threshold, warning, offset in ((0, 0.2, 0.3, -1.0), (1, 0.4, 0.9, 1.0)):
        curve = trust.Logistic(offset, (0.0,) * 5)
        presence = trust.Presence(trust.Logistic(offset, (0.0, 0.0)), 0.5)
        models[fold] = trust.FoldTrust(1.0, threshold, presence, curve, trust.NEVER, warning, 50)
    logits = np.log(np.array([[[0.5, 0.3, 0.2]]] * 2))
    stack = np.zeros((2, 1, HEIGHT, WIDTH))
    found = trust.assess(stack, logits, models, [0, 1])
    assert found.prediction_set.tolist() == [[True, True, True]]
    assert trust.assess(stack[:1], logits[:1], models, [1]).prediction_set.tolist() == [
        [True, False, False]
    ]
    low, high = scipy.special.expit([-1.0, 1.0])
    np.testing.assert_allclose(found.presence, [(low + high) / 2])
    judgement = trust.judge(found, stack[0] > 0, np.array([0]), models, [0, 1])
    np.testing.assert_allclose(judgement.uncertainty, [(low + high) / 2], rtol=1e-6)
    assert judgement.warning.tolist() == [(low + high) / 2 > 0.6]


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_the_class_for_no_lesion_may_have_any_code(normal):
    mean = np.array([[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(trust.lesion_by_class(mean, normal), 1 - mean[:, normal])
    model = trust.FoldTrust(
        1.0,
        0.0,
        trust.Presence(trust.Logistic(0.0, (0.0, 0.0)), 0.5),
        trust.NEVER,
        trust.NEVER,
        0.5,
        50,
    )
    stack = np.zeros((1, 1, HEIGHT, WIDTH))
    found = trust.assess(stack, np.log(mean)[None], {0: model}, [0], normal=normal)
    np.testing.assert_allclose(found.class_presence, 1 - mean[:, normal])
