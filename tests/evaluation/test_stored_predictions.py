"""Stored predictions: what is read is what was written, to the stated precision."""

import numpy as np
import pytest

from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import stored_predictions
from mtbus_jax.training import steps


def members(count=3, *, seed=0):
    rng = np.random.default_rng(seed)
    return [
        steps.Predictions(
            rng.uniform(0, 1, (2, 3, 5, 1)).astype(np.float32),
            rng.normal(size=(2, 3)).astype(np.float32),
        )
        for _ in range(count)
    ]


def test_predictions_survive_the_file_on_their_side_of_the_threshold(tmp_path):
    half = np.float32(0.5)
    below, above = np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))
    written = members()
    written[0].probability[0] = np.resize(np.array([0, 1e-9, below, half, above, 1]), (3, 5, 1))
    uid = np.array(["benign_1", "NA"])
    stored_predictions.write(tmp_path, "test", uid, written, answer=written[0])
    found = stored_predictions.read(tmp_path)
    assert found.uid.tolist() == uid.tolist()
    expected = written[0].probability[..., 0]
    np.testing.assert_allclose(found.probability, expected, atol=1 / 512 + 1e-7)
    np.testing.assert_array_equal(found.mask, expected > 0.5)
    mean = np.mean([member.probability[..., 0] for member in written], axis=0)
    np.testing.assert_allclose(found.mean_probability, mean, atol=1 / 512 + 1e-6)
    assert (found.disagreement > 0).all()
    np.testing.assert_array_equal(found.class_logits, [m.class_logits for m in written])


def test_parts_lie_apart_and_a_single_version_disagrees_with_nobody(tmp_path):
    for seed, part in enumerate(("test", "validation")):
        written = members(1, seed=seed)
        stored_predictions.write(tmp_path, part, np.array(["a", "b"]), written, answer=written[0])
    found = stored_predictions.read(tmp_path, "validation")
    np.testing.assert_array_equal(found.class_logits[0], written[0].class_logits)
    np.testing.assert_array_equal(found.disagreement, 0)
    assert (stored_predictions.read(tmp_path).class_logits != found.class_logits).all()


def test_predictions_of_one_task_hold_that_task_only(tmp_path):
    both = members(2)
    masks = [m._replace(class_logits=None) for m in both]
    stored_predictions.write(tmp_path, "test", np.array(["a", "b"]), masks, answer=masks[0])
    assert stored_predictions.read(tmp_path).class_logits is None
    classes = [m._replace(probability=None) for m in both]
    stored_predictions.write(tmp_path, "test", np.array(["a", "b"]), classes, answer=classes[0])
    found = stored_predictions.read(tmp_path)
    assert found.probability is None
    assert found.disagreement is None


def test_missing_or_broken_predictions_say_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"missing.*--mode=evaluate"):
        stored_predictions.read(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"broken.*--mode=evaluate"):
        stored_predictions.read(tmp_path)


def test_a_background_of_almost_nothing_adds_nothing(tmp_path):
    """The sum over the pixels is the expected area, which trust and refining read."""
    probability = np.full((1, 32, 48, 1), 1e-4, np.float32)
    probability[0, 3:7, 5:9] = 0.3
    written = steps.Predictions(probability, np.zeros((1, 3), np.float32))
    stored_predictions.write(tmp_path, "test", np.array(["a"]), [written], answer=written)
    found = stored_predictions.read(tmp_path)
    assert found.probability.sum() == pytest.approx(16 * 0.3, rel=0.01)
    assert found.mean_probability.sum() == pytest.approx(16 * 0.3, rel=0.01)
