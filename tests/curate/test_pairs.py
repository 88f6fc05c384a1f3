"""Local features, candidates, the geometric check and groups, on planted copies."""

import itertools

import numpy as np
import pytest
from curation_phantoms import COPIES, make_copy, original_of, phantoms
from PIL import Image

from mtbus_jax.curate import candidates, groups
from mtbus_jax.curate.features import local_features
from mtbus_jax.curate.geometry import Geometry, compare


def check(first, second, **options):
    return compare(first, second, local_features(first), local_features(second), **options)


@pytest.mark.parametrize("kind", COPIES)
def test_every_kind_of_copy_lies_on_its_original(kind):
    original = original_of(kind).image
    copy = np.asarray(make_copy(kind, original))
    found = check(original, copy, mirrored=kind == "mirrored")
    assert found.detail > 0.9
    assert found.inliers > 50
    assert found.overlap > 0.7
    scale = copy.shape[1] / original.shape[1] if kind in ("resized", "enlarged") else 1
    assert found.scale == pytest.approx(scale, rel=0.01)
    assert abs(found.rotation) < 0.5


def test_a_shift_is_measured_in_rows_and_columns():
    original = original_of("shifted").image
    found = check(original, np.asarray(make_copy("shifted", original)))
    assert found.shift == pytest.approx((23, 41), abs=0.2)
    assert found.overlap < 0.95


def test_the_order_of_the_two_images_does_not_matter():
    original = original_of("cropped").image
    copy = np.asarray(make_copy("resized", np.asarray(make_copy("cropped", original))))
    there, back = check(original, copy), check(copy, original)
    assert there.detail == pytest.approx(back.detail, abs=0.03)
    assert there.scale == pytest.approx(1 / back.scale, rel=0.01)
    assert there.overlap == pytest.approx(back.overlap, abs=0.03)


def test_a_rotation_is_undone():
    original = phantoms()[8].image
    turned = np.asarray(Image.fromarray(original).rotate(7, Image.Resampling.BICUBIC))
    found = check(original, turned)
    assert found.detail > 0.85
    assert found.rotation == pytest.approx(-7, abs=0.3)  # rows run downwards


def test_different_frames_do_not_lie_on_each_other():
    frames = [(phantom.image, local_features(phantom.image)) for phantom in phantoms()[:8]]
    for (a, of_a), (b, of_b) in itertools.combinations(frames, 2):
        for mirrored in (False, True):
            assert abs(compare(a, b, of_a, of_b, mirrored=mirrored).detail) < 0.15


def test_new_speckle_on_the_same_anatomy_is_another_frame():
    # The large structures agree; what differs is what a second acquisition would change.
    rng = np.random.default_rng(0)
    smooth = np.asarray(
        Image.fromarray(phantoms()[0].image).resize((40, 30)).resize((300, 220)), float
    )
    frames = [
        np.clip(smooth * rng.rayleigh(0.8, smooth.shape), 0, 255).astype(np.uint8) for _ in range(2)
    ]
    assert abs(check(*frames).detail) < 0.15
    assert check(frames[0], frames[0]).detail > 0.99


def test_a_flat_image_has_no_features_and_no_detail():
    flat = np.full((90, 120), 77, np.uint8)
    assert len(local_features(flat).descriptor) == 0
    assert check(flat, flat).detail == 0
    assert check(flat, phantoms()[0].image).detail == 0


def test_mirrored_features_are_those_of_the_mirrored_image():
    image = phantoms()[3].image
    expected = local_features(np.ascontiguousarray(image[:, ::-1]))
    predicted = local_features(image).mirrored()
    likeness = expected.unit() @ predicted.unit().T
    best = likeness.argmax(1)
    assert np.median(likeness.max(1)) > 0.98
    distance = np.abs(expected.position - predicted.position[best]).max(1)
    assert np.median(distance) < 0.5


@pytest.fixture(scope="module")
def features():
    """Of twelve phantoms and a copy of three of them: indices 12, 13 and 14."""
    images = [phantom.image for phantom in phantoms()[:12]]
    images += [
        np.asarray(make_copy("cropped", images[0])),
        np.asarray(make_copy("mirrored", images[4])),
        np.asarray(make_copy("resized", images[9])),
    ]
    return [local_features(image) for image in images]


def test_votes_propose_the_copies_and_little_else(features):
    index = candidates.FeatureVotes(features)
    direct = candidates.strongest(index.votes(), per_image=5, least=20.0)
    assert direct.tolist() == [[0, 12], [9, 14]]
    mirrored = candidates.strongest(index.votes(mirrored=True), per_image=5, least=20.0)
    assert mirrored.tolist() == [[4, 13]]


def test_the_inverted_index_of_large_archives_agrees_with_exact_search(features, monkeypatch):
    exact = candidates.FeatureVotes(features).votes().toarray()
    monkeypatch.setattr(candidates, "_EXACT_VECTORS", 100)
    cells = candidates.FeatureVotes(features).votes().toarray()
    for pair in ((0, 12), (9, 14)):
        assert cells[pair] == pytest.approx(exact[pair], rel=0.35)
        assert cells[pair] > 10 * np.median(exact[exact > 0])


def test_many_copies_of_one_frame_still_vote_for_each_other():
    others = [local_features(phantom.image) for phantom in phantoms()[1:]]
    first = len(others)
    features = [*others, *[local_features(phantoms()[0].image)] * 20]
    votes = candidates.FeatureVotes(features).votes()
    pairs = candidates.strongest(votes, per_image=20, least=2.0)
    certain = Geometry(detail=1.0, overlap=1.0)
    accepted = [groups.Pair(a, b, 1.0, 1.0, certain) for a, b in pairs if a >= first]
    formed = groups.form_groups(len(features), accepted)
    assert [len(g.members) for g in formed] == [20]


def test_look_alikes_are_the_nearest_by_thumbnail():
    images = np.random.default_rng(1).integers(0, 256, (6, 64, 48)).astype(np.uint8)
    images = np.repeat(np.repeat(images[:, ::8, ::8], 8, 1), 8, 2)
    images[5] = images[2] // 2 + 60  # darker, same pattern
    assert [2, 5] in candidates.look_alikes(images, per_image=1).tolist()


def pair(first, second, detail=0.9, overlap=1.0, identical=False):
    return groups.Pair(first, second, 0.5, 9.0, Geometry(detail, overlap), identical)


def test_groups_are_connected_sets_the_largest_first():
    formed = groups.form_groups(9, [pair(7, 8), pair(0, 4), pair(4, 6), pair(0, 6), pair(1, 2)])
    assert [(g.name, g.members) for g in formed] == [
        ("triplet_001", (0, 4, 6)),
        ("duplet_001", (1, 2)),
        ("duplet_002", (7, 8)),
    ]
    assert [len(g.pairs) for g in formed] == [3, 1, 1]
    assert groups.structure(formed) == {"triplet": 1, "duplet": 2}
    assert groups.group_column(9, formed).tolist() == [
        "triplet_001", "duplet_001", "duplet_001", "", "triplet_001", "", "triplet_001",
        "duplet_002", "duplet_002",
    ]  # fmt: skip


def test_conflicts_ignore_unknown_labels():
    formed = groups.form_groups(6, [pair(0, 1), pair(2, 3), pair(4, 5)])
    label = ["benign", "malignant", "benign", "", "normal", "normal"]
    assert [g.members for g in groups.conflicts(formed, label)] == [(0, 1)]


def test_the_rule():
    assert pair(0, 1, detail=0.31).is_copy()
    assert not pair(0, 1, detail=0.29).is_copy()
    assert not pair(0, 1, detail=0.9, overlap=0.1).is_copy()
    assert pair(0, 1, detail=0.0, identical=True).is_copy()


def test_mask_iou_by_hand():
    first, second = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    assert groups.mask_iou(first, second) == 1
    first[0, :4] = True
    assert groups.mask_iou(first, second) == 0
    second[0, 2:6] = True
    assert groups.mask_iou(first, second) == pytest.approx(2 / 6)
