"""The picture: which images, whose masks, and that refining shows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from PIL import Image

from configs import base
from mtbus_jax import data
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import evaluate, stored_predictions
from mtbus_jax.reproduce import figure, gallery
from mtbus_jax.reproduce.facts import gather
from mtbus_jax.reproduce.plan import Scale, Study
from mtbus_jax.reproduce.results import RowResult
from mtbus_jax.reproduce.rows import Row, TableRun
from mtbus_jax.training import steps

SEG, MT = TableRun("curated_busi", "unetpp", ("seg",)), TableRun("curated_busi", "unetpp")
ROWS = Row("ST(Seg)", "ST(Seg)", SEG, None), Row("MT+PR", "MT+PR", MT, MT, True)
LABELS = ["benign"] * 4 + ["malignant"] * 3 + ["normal"] * 2


def test_median_cases_are_fixed_by_dice_and_name():
    frame = pd.DataFrame({"uid": list("dcbagfeih"), "label": LABELS})
    #                                 d    c    b    a    g    f    e   i  h
    frame["refined_dice"] = np.array([0.9, 0.1, 0.5, 0.6, 0.7, 0.7, 0.2, 1, 1])
    reference = RowResult(ROWS[1], (), frame)
    # benign: c .1, b .5, a .6, d .9; malignant: e .2, f .7, g .7; normal: h, i.
    assert gallery.median_cases(reference) == ["b", "f", "h"]
    two = RowResult(ROWS[1], (), frame[frame.label != "normal"])
    assert gallery.median_cases(two) == ["b", "f"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A study of two runs over tiny images, with predictions shifted by one column."""
    cases = dataclasses.replace(tiny.make_cases(), name="curated_busi")
    monkeypatch.setattr(data.arrays, "load_cases", lambda name, **kwargs: cases)
    size = (tiny.HEIGHT, tiny.WIDTH)
    study = Study(tmp_path, base.get_config(), scale=Scale(image_size=size, folds=(0, 1)))
    probability = np.roll(cases.mask, 1, axis=2).astype(np.float32)
    probability[cases.label == 2, :2, :3] = 1  # a false positive in each normal image
    logits = np.eye(3, dtype=np.float32)[cases.label]
    results = []
    for row in ROWS:
        frames = []
        for fold in (0, 1):
            folder = tmp_path / row.seg.name / f"fold_{fold}"
            folder.mkdir(parents=True)
            here = cases.test_fold == fold
            predictions = steps.Predictions(probability[here], logits[here] if row.cls else None)
            taken = cases.take(np.flatnonzero(here))
            stored_predictions.write(folder, "test", taken.uid, [predictions], answer=predictions)
            rows = evaluate.case_rows(taken, predictions)
            rows.insert(1, "fold", fold)
            frames.append(rows)
        results.append(RowResult(row, (), pd.concat(frames, ignore_index=True)))
    return study, results, cases


def drawn(monkeypatch):
    """What is given to `figure.draw`."""
    seen = {}

    def draw(cases, columns):
        seen.update(cases=cases, columns=columns)
        return Image.new("RGB", (3, 2))

    monkeypatch.setattr(figure, "draw", draw)
    return seen


def write(study, results, **options):
    facts = gather(study, (SEG, MT), command="the command")
    return gallery.write_figure(study, results, 6, facts=facts, **options)


def test_masks_and_captions(world, monkeypatch):
    study, results, cases = world
    seen = drawn(monkeypatch)
    chosen = (str(cases.uid[1]), str(cases.uid[0]), str(cases.uid[-3]))
    assert [int(cases.test_fold[i]) for i in (1, 0, -3)] == [1, 0, 1]
    write(study, results, uids=chosen)
    assert seen["columns"] == ["ST(Seg)", "MT+PR"]
    assert tuple(case.uid for case in seen["cases"]) == chosen
    for case, index in zip(seen["cases"], (1, 0, -3), strict=True):
        truth = cases.mask[index, ..., 0] > 0
        np.testing.assert_array_equal(case.truth, truth)
        np.testing.assert_array_equal(case.image, cases.image[index, ..., 0])
        shifted = np.roll(truth, 1, axis=1)
        if case.label == "normal":
            shifted[:2, :3] = True
        np.testing.assert_array_equal(case.predictions[0], shifted)
        # Classified normal, so refining empties the mask.
        refined = np.zeros_like(truth) if case.label == "normal" else shifted
        np.testing.assert_array_equal(case.predictions[1], refined)
    benign, normal = seen["cases"][0], seen["cases"][2]
    dice = 2 * np.sum(benign.truth & benign.predictions[0]) / (2 * benign.truth.sum())
    assert benign.captions == [f"Dice {dice:.2f}", f"benign, Dice {dice:.2f}"]
    assert normal.captions == ["Dice 0.00", "normal, Dice 1.00"]


def test_files(world):
    study, results, _ = world
    paths = write(study, results)
    assert [path.name for path in paths] == ["figure_6.png", "figure_6.md"]
    assert Image.open(paths[0]).width > 300
    legend = paths[1].read_text()
    assert legend.startswith("# Figure 6: segmentations of test images (16×32 pixels, 2 of 4 folds")
    assert "median Dice" in legend and "](figure_6.png)" in legend
    assert "the command" in legend and "not a medical device" in legend
    before = paths[0].read_bytes()
    write(study, results)
    assert paths[0].read_bytes() == before


def test_an_image_that_was_not_tested_is_refused(world):
    study, results, cases = world
    for uid in ("stranger", str(cases.uid[2])):  # the latter is of fold 2
        with pytest.raises(UserError, match=f"--cases: '{uid}'.*one is"):
            write(study, results, uids=(uid,))
