"""The rows of ``cases.csv`` from hand-made masks and logits."""

import io

import numpy as np
import pandas as pd
import pytest

from mtbus_jax import types
from mtbus_jax.evaluation import evaluate, stored_predictions
from mtbus_jax.training import steps

HEIGHT, WIDTH = 6, 10
METRICS = [
    "dice",
    "jaccard",
    "hausdorff",
    "hausdorff95",
    "average_surface_distance",
    "recall",
    "precision",
    "specificity",
    "legacy_hausdorff",
    "legacy_recall",
    "legacy_precision",
]
# Softmax of (log 6, log 3, log 1) is .6, .3, .1.
LOG = np.log(np.array([6.0, 3.0, 1.0]))


def box(top, left, bottom, right, value=1.0):
    mask = np.zeros((HEIGHT, WIDTH, 1), np.float32)
    mask[top:bottom, left:right] = value
    return mask


# uid, truth, tumour probability, logits (benign, malignant, normal), label
EXAMPLES = [
    # A hit: 2×4 against 2×4 with 2×3 in common, benign right.
    ("benign_1", box(1, 2, 3, 6), box(1, 3, 3, 7, 0.9), LOG[[0, 1, 2]], 0),
    # The same masks, but called normal: incoherent, refined to nothing.
    ("benign_2", box(1, 2, 3, 6), box(1, 3, 3, 7, 0.9), LOG[[1, 2, 0]], 0),
    # Missed (0.5 is not above the threshold), called malignant: incoherent, refined to normal.
    ("malignant_1", box(1, 2, 3, 6), box(1, 2, 3, 6, 0.5), LOG[[1, 0, 2]], 1),
    # Normal and seen as normal.
    ("normal_1", box(0, 0, 0, 0), box(0, 0, 0, 0), LOG[[2, 1, 0]], 2),
    # Normal with a false spot, class normal: incoherent, refined to nothing.
    ("normal_2", box(0, 0, 0, 0), box(4, 7, 6, 10, 0.51), LOG[[2, 1, 0]], 2),
    # Normal with a false spot, class benign.
    ("normal_3", box(0, 0, 0, 0), box(4, 7, 6, 10, 0.51), LOG[[0, 1, 2]], 2),
]


def cases_and_predictions():
    uid, truth, probability, logits, label = zip(*EXAMPLES, strict=True)
    count = len(uid)
    cases = types.Cases(
        name="small",
        uid=np.array(uid),
        image=np.zeros((count, HEIGHT, WIDTH, 1), np.uint8),
        mask=np.stack(truth).astype(np.uint8),
        label=np.array(label, np.int32),
        original_size=np.full((count, 2), 99, np.int32),
        group=np.array(uid),
        test_fold=np.zeros(count, np.int32),
    )
    logits = np.stack(logits).astype(np.float32)
    return cases, steps.Predictions(np.stack(probability).astype(np.float32), logits)


@pytest.fixture(scope="module")
def rows():
    cases, predictions = cases_and_predictions()
    return evaluate.case_rows(cases, predictions).set_index("uid")


def test_columns_and_their_order():
    cases, predictions = cases_and_predictions()
    rows = evaluate.case_rows(cases, predictions)
    assert list(rows.columns) == [
        *("uid", "label", "predicted"),
        *("probability_benign", "probability_malignant", "probability_normal"),
        "true_pixels",
        "predicted_pixels",
        *METRICS,
        *("incoherent", "refined_predicted"),
        *(f"refined_{name}" for name in METRICS),
    ]
    assert rows.uid.tolist() == [example[0] for example in EXAMPLES]


def test_classes_and_probabilities(rows):
    assert rows.label.tolist() == ["benign", "benign", "malignant", "normal", "normal", "normal"]
    assert rows.predicted.tolist() == [
        *("benign", "normal", "malignant"),
        *("normal", "normal", "benign"),
    ]
    columns = ["probability_benign", "probability_malignant", "probability_normal"]
    expected = [
        *([0.6, 0.3, 0.1], [0.3, 0.1, 0.6], [0.3, 0.6, 0.1]),
        *([0.1, 0.3, 0.6], [0.1, 0.3, 0.6], [0.6, 0.3, 0.1]),
    ]
    np.testing.assert_allclose(rows[columns], expected, rtol=1e-5)


def test_mask_threshold_is_above_one_half(rows):
    assert rows.predicted_pixels.tolist() == [8, 8, 0, 0, 6, 6]


def test_raw_metrics_by_hand(rows):
    # TP 6, FP 2, FN 2, TN 50; every shifted column is 1 px away.
    hit = rows.loc["benign_1"]
    assert hit.dice == pytest.approx(12 / 16)
    assert hit.jaccard == pytest.approx(6 / 10)
    assert (hit.recall, hit.precision) == (0.75, 0.75)
    assert hit.specificity == pytest.approx(50 / 52)
    assert hit.hausdorff == 1
    assert hit.average_surface_distance == pytest.approx(4 / 16)
    missed = rows.loc["malignant_1"]
    assert (missed.dice, missed.jaccard, missed.recall, missed.specificity) == (0, 0, 0, 1)
    assert missed[["hausdorff", "hausdorff95", "precision", "legacy_recall"]].isna().all()
    normal = rows.loc["normal_1"]
    assert (normal.dice, normal.jaccard, normal.hausdorff, normal.specificity) == (1, 1, 0, 1)
    assert normal[["recall", "precision"]].isna().all()
    spot = rows.loc["normal_2"]
    assert (spot.dice, spot.precision, spot.specificity) == (0, 0, 54 / 60)
    assert spot[["recall", "hausdorff"]].isna().all()


def test_incoherent_rows(rows):
    assert rows.incoherent.tolist() == [False, True, True, False, True, False]


def test_refined_classes_and_metrics_by_hand(rows):
    assert rows.refined_predicted.tolist() == [
        *("benign", "normal", "normal"),
        *("normal", "normal", "benign"),
    ]
    # benign_2's mask is emptied, and so is normal_2's; the others stay as they are.
    assert rows.refined_dice.tolist() == [0.75, 0, 0, 1, 1, 0]
    assert rows.refined_recall[:3].tolist() == [0.75, 0, 0]
    assert rows.refined_hausdorff.isna().tolist() == [False, True, True, False, False, True]
    assert rows.refined_hausdorff.dropna().tolist() == [1, 0, 0]
    # The raw columns tell what was before.
    assert rows.loc["benign_2", "dice"] == 0.75
    assert rows.loc["normal_2", "dice"] == 0


def test_one_task(rows):
    cases, predictions = cases_and_predictions()
    masks_only = evaluate.case_rows(cases, predictions._replace(class_logits=None)).set_index("uid")
    pd.testing.assert_frame_equal(
        masks_only, rows[["label", "true_pixels", "predicted_pixels", *METRICS]]
    )
    classes_only = evaluate.case_rows(cases, predictions._replace(probability=None)).set_index(
        "uid"
    )
    classes = ["label", "predicted"]
    classes += [f"probability_{name}" for name in ("benign", "malignant", "normal")]
    pd.testing.assert_frame_equal(classes_only, rows[classes])


def test_undefined_metrics_are_empty_cells_and_the_file_reads_back(rows):
    text = rows.reset_index().to_csv(index=False)
    header, *lines = text.splitlines()
    cells = dict(zip(header.split(","), lines[2].split(","), strict=True))
    assert cells["uid"] == "malignant_1"
    assert cells["hausdorff"] == cells["precision"] == ""
    assert cells["recall"] == "0.0"
    back = pd.read_csv(io.StringIO(text)).set_index("uid")
    pd.testing.assert_frame_equal(back, rows, rtol=1e-6, check_dtype=False)


def test_holes_are_filled_and_nothing_else():
    """A ring, a bay open to the border, a hole that touches its rim at a corner; 5 by 9."""
    drawn = [
        "#########",
        "#.##..##.",
        "####.####",
        "##.######",
        "######...",
    ]
    filled = [
        "#########",
        "######## ".replace(" ", "."),
        "#########",
        "#########",
        "######...",
    ]

    def parse(rows):
        return np.array([[cell == "#" for cell in row] for row in rows])

    mask = parse(drawn)
    probability = np.where(mask, 0.9, 0.1).astype(np.float32)[None, ..., None]
    empty = np.full_like(probability, 0.2)
    both = np.concatenate([probability, empty])
    found = evaluate.with_holes_filled(steps.Predictions(both, None)).probability
    np.testing.assert_array_equal(found[0, ..., 0] > 0.5, parse(filled))
    np.testing.assert_array_equal(found[0, ..., 0][mask], both[0, ..., 0][mask])
    np.testing.assert_array_equal(found[1], empty[0])
    stored = stored_predictions._to_bytes(found[0, ..., 0])
    np.testing.assert_array_equal(stored >= 128, parse(filled))
    only_class = steps.Predictions(None, np.zeros((2, 3)))
    assert evaluate.with_holes_filled(only_class) is only_class
