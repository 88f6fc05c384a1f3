import collections
import itertools
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage import measure

from mtbus_jax import types
from mtbus_jax.images import phantom
from mtbus_jax.images.phantom import lesion as lesion_lib
from mtbus_jax.images.phantom import scanner as scanner_lib
from mtbus_jax.images.phantom import tissue as tissue_lib

_ROOT = pathlib.Path(phantom.__file__).resolve().parents[1]
_SEED = 3
_COUNT = 60


@pytest.fixture(scope="module")
def phantoms():
    return list(phantom.make_phantoms(_COUNT, seed=_SEED))


def _lesions(phantoms, label):
    """Pairs of image and mask, one per lesion of a class."""
    return [(p.image, mask) for p in phantoms if p.label == label for mask in p.masks]


def _region(mask):
    (region,) = measure.regionprops(measure.label(mask))
    return region


def test_the_same_arguments_give_the_same_image():
    one = phantom.make_phantom(4, label=types.MALIGNANT, seed=7)
    two = phantom.make_phantom(4, label=types.MALIGNANT, seed=7)
    assert one.uid == two.uid == "malignant_5"
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.masks, two.masks)


@pytest.mark.parametrize(
    "other",
    [
        {"index": 4, "label": types.MALIGNANT, "seed": 8},
        {"index": 5, "label": types.MALIGNANT, "seed": 7},
        {"index": 4, "label": types.BENIGN, "seed": 7},
    ],
)
def test_index_label_and_seed_each_change_the_image(other):
    one = phantom.make_phantom(4, label=types.MALIGNANT, seed=7).image
    two = phantom.make_phantom(**other).image
    assert one.shape != two.shape or not np.array_equal(one, two)


def test_a_uid_means_the_same_image_in_a_dataset_of_any_size(phantoms):
    by_uid = {p.uid: p for p in phantoms}
    for few in phantom.make_phantoms(6, seed=_SEED):
        np.testing.assert_array_equal(few.image, by_uid[few.uid].image)
        assert few.label == by_uid[few.uid].label


def test_plan_of_the_default_size():
    plan = phantom.phantom_plan()
    assert collections.Counter(label for _, label in plan) == {0: 112, 1: 80, 2: 48}
    assert len({uid for uid, _ in plan}) == 240
    labels = [label for _, label in plan]
    assert labels == sorted(labels)
    assert plan[0] == ("benign_1", 0)
    assert plan[112] == ("malignant_1", 1)
    assert plan[-1] == ("normal_48", 2)


# Shares 7 : 5 : 3 by hand: of 16 images 7.47, 5.33 and 3.2, so the first gets the one left over.
@pytest.mark.parametrize(
    ("count", "numbers"), [(0, []), (3, [1, 1, 1]), (15, [7, 5, 3]), (16, [8, 5, 3])]
)
def test_plan_rounds_by_the_largest_remainder(count, numbers):
    labels = [label for _, label in phantom.phantom_plan(count)]
    assert [len(list(group)) for _, group in itertools.groupby(labels)] == numbers


def test_images_follow_the_plan(phantoms):
    assert [(p.uid, p.label) for p in phantoms] == phantom.phantom_plan(_COUNT)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"3.*malignant"):
        phantom.make_phantom(0, label=3)
    with pytest.raises(ValueError, match="-1"):
        phantom.make_phantom(-1, label=types.BENIGN)
    with pytest.raises(ValueError, match="-2"):
        phantom.phantom_plan(-2)


def test_shapes_and_types(phantoms):
    for p in phantoms:
        height, width = p.image.shape
        assert 160 <= height <= 260
        assert 200 <= width <= 340
        assert height < width
        assert p.image.dtype == np.uint8
        for mask in p.masks:
            assert mask.shape == p.image.shape
            assert mask.dtype == bool
    assert len({p.image.shape for p in phantoms}) > _COUNT // 2


def test_the_grey_scale_is_used_and_not_saturated(phantoms):
    for p in phantoms:
        assert 40 < p.image.mean() < 190
        assert np.ptp(np.percentile(p.image, (1, 99))) > 110
        assert (p.image == 255).mean() < 0.02


def test_masks_by_class(phantoms):
    for p in phantoms:
        assert len(p.masks) in ((0,) if p.label == types.NORMAL else (1, 2))
        for mask in p.masks:
            # One piece of believable size, clear of the border.
            assert measure.label(mask, connectivity=1).max() == 1
            assert 0.003 < mask.mean() < 0.25
            assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        if p.masks:
            assert np.sum(p.masks, axis=0).max() == 1


def test_some_images_hold_two_lesions(phantoms):
    # Both classes with lesions, and most images with one.
    for label in (types.BENIGN, types.MALIGNANT):
        numbers = [len(p.masks) for p in phantoms if p.label == label]
        assert 1 <= numbers.count(2) <= len(numbers) // 3


def test_benign_lesions_lie_and_malignant_lesions_stand(phantoms):
    wider = {}
    for label in (types.BENIGN, types.MALIGNANT):
        extent = [np.ptp(np.argwhere(mask), axis=0) for _, mask in _lesions(phantoms, label)]
        wider[label] = np.mean([width > height for height, width in extent])
    assert wider[types.BENIGN] >= 0.95
    assert wider[types.MALIGNANT] <= 0.2


def test_benign_margins_are_smoother(phantoms):
    solidity, circularity = {}, {}
    for label in (types.BENIGN, types.MALIGNANT):
        regions = [_region(mask) for _, mask in _lesions(phantoms, label)]
        solidity[label] = np.median([r.solidity for r in regions])
        circularity[label] = np.median([4 * np.pi * r.area / r.perimeter**2 for r in regions])
    assert solidity[types.BENIGN] > solidity[types.MALIGNANT] + 0.015
    assert circularity[types.BENIGN] > circularity[types.MALIGNANT] + 0.03


def _posterior_difference(image, mask, others):
    """Mean grey below the lesion less that at the same depth beside it, or None without room."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = len(cols)
    band = slice(rows[-1] + 4, rows[-1] + 25)
    below = image[band, cols[0] + extent // 4 : cols[-1] - extent // 4]
    beside = np.zeros(image.shape, bool)
    beside[band, max(cols[0] - 8 - extent // 2, 0) : max(cols[0] - 8, 0)] = True
    beside[band, cols[-1] + 8 : cols[-1] + 8 + extent // 2] = True
    beside &= ~others
    if not below.size or not beside.any():
        return None
    return below.mean() - image[beside].mean()


def test_sound_passes_benign_lesions_and_not_malignant_ones(phantoms):
    median = {}
    for label in (types.BENIGN, types.MALIGNANT):
        differences = []
        for p in phantoms:
            if p.label == label:
                union = np.logical_or.reduce(p.masks)
                differences += [_posterior_difference(p.image, mask, union) for mask in p.masks]
        differences = [value for value in differences if value is not None]
        assert len(differences) > 15
        median[label] = np.median(differences)
    assert median[types.BENIGN] > 8
    assert median[types.MALIGNANT] < -8


def test_lesions_are_darker_than_their_surroundings_but_not_by_one_threshold(phantoms):
    inside, contrast = [], []
    for label in (types.BENIGN, types.MALIGNANT):
        for image, mask in _lesions(phantoms, label):
            inside.append(image[mask].mean())
            rows, cols = np.nonzero(mask)
            box = np.s_[
                max(rows.min() - 10, 0) : rows.max() + 11, max(cols.min() - 10, 0) : cols.max() + 11
            ]
            contrast.append(image[box][~mask[box]].mean() - inside[-1])
    assert np.mean(np.array(contrast) > 10) > 0.95
    # Normal tissue has regions as dark as a lesion: means over 9 × 9 pixels reach the median one.
    darkest = [
        measure.block_reduce(p.image, (9, 9), np.mean, cval=255).min()
        for p in phantoms
        if p.label == types.NORMAL
    ]
    assert np.mean(np.array(darkest) < np.median(inside)) > 0.3


def test_solid_masses_are_darker_than_fat():
    """By 3 dB or more; nothing would tell one as bright as fat from a lobule."""
    height, width, pitch = 220, 300, 4 / 220
    fat = np.full((height, width), tissue_lib.FAT[0], np.float32)
    breast = tissue_lib.Anatomy(
        scanner_lib.Tissue(echo=fat, specular=0 * fat, attenuation=0 * fat + tissue_lib.FAT[1]),
        fat_top=12.0,
        muscle_top=180.0,
    )
    contrast = []
    for number in range(40):
        for label in (types.BENIGN, types.MALIGNANT):
            rng = np.random.default_rng([number, label])
            tissue, masks = lesion_lib.draw_lesions(rng, breast, label, pitch)
            for mask in masks:
                inside = ndimage.binary_erosion(mask, iterations=3)  # margins are soft
                contrast.append(np.median(tissue.echo[inside]) - tissue_lib.FAT[0])
    # Not the maximum: a texture of zero mean lies on top, which may be brighter within one mass.
    assert -5 < np.quantile(contrast, 0.95) < -2.5


def _homogeneous_echo(height=1200, width=640):
    rng = np.random.default_rng(11)
    sigma = np.full(height, 2.0)
    return scanner_lib.speckle(
        np.full((height, width), 3.0), rng, axial_sigma=1.4, lateral_sigma=sigma
    )


def test_speckle_is_fully_developed():
    envelope = np.abs(_homogeneous_echo())
    # The Rayleigh distribution's mean over standard deviation, √(π / (4 - π)) = 1.91.
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.01)
    assert np.mean(envelope**2) == pytest.approx(9.0, rel=0.02)
    # Samples eight standard deviations of the point-spread function apart are independent.
    samples = envelope[::12, ::16].ravel()
    assert stats.kstest(samples, stats.rayleigh(scale=3 / np.sqrt(2)).cdf).pvalue > 0.01
    # The test can tell: a Gaussian of the same moments fails.
    assert stats.kstest(samples, stats.norm(samples.mean(), samples.std()).cdf).pvalue < 1e-4


def test_speckle_grains_have_the_size_of_the_point_spread_function():
    echo = _homogeneous_echo()
    power = np.mean(np.abs(echo) ** 2)
    # A Gaussian of deviation σ has the autocorrelation exp(-lag² / 4σ²); side lobes add a little.
    axial = np.mean(echo[3:] * echo[:-3].conj()).real / power
    lateral = np.mean(echo[:, 3:] * echo[:, :-3].conj()).real / power
    assert axial == pytest.approx(np.exp(-9 / (4 * 1.4**2)), abs=0.03)
    assert lateral == pytest.approx(np.exp(-9 / (4 * 2.0**2)), abs=0.06)


def test_the_beam_is_narrowest_at_the_focus():
    scanner = scanner_lib.draw_scanner(np.random.default_rng(0), 200, 300)
    sigma = scanner_lib.beam_sigma(scanner, 200)
    assert abs(int(np.argmin(sigma)) - scanner.focus) <= 1
    assert sigma.min() == pytest.approx(scanner.lateral_sigma, rel=1e-3)
    assert sigma[-1] > 1.1 * sigma.min()


def test_speckle_is_wider_than_deep(phantoms):
    wider = []
    for p in phantoms:
        if p.label == types.NORMAL:
            # The median difference of neighbours is that of speckle, not of layers and septa.
            grey = p.image.astype(float)
            down = np.median(np.abs(np.diff(grey, axis=0)))
            along = np.median(np.abs(np.diff(grey, axis=1)))
            wider.append(down > along)
    assert np.mean(wider) > 0.9


def test_contact_sheet_from_the_command_line(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["phantom", f"--contact_sheet={path}"])
    runpy.run_module("mtbus_jax.images.phantom", run_name="__main__")
    assert path.stat().st_size < 700_000
    with Image.open(path) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors()}
        assert sheet.width > sheet.height
    # Greys and the one colour of the outlines.
    assert len([colour for colour in colours if len(set(colour)) > 1]) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--contact_sheet=nowhere/sheet.png"], "nowhere/sheet.png cannot be written"),
        (["--contact_sheet=sheet.png", "--seed=-1"], "--seed=-1 must be at least 0"),
    ],
)
def test_wrong_use_of_the_command_line(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["phantom", *flags])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("mtbus_jax.images.phantom", run_name="__main__")
    assert caught.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_the_module_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys, mtbus_jax.images.phantom;"
        "assert not {'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT)
