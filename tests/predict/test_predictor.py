"""Prediction of one's own pictures with a tiny network: ensemble, refining, trust, run folders."""

import json
import pathlib
import threading

import numpy as np
import pytest
import scipy.interpolate
import scipy.special
import tiny
from PIL import Image
from predict_dummies import SIZE, by_hand, write_run, write_trust

from mtbus_jax import files, images, models, refine, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.images import preprocess
from mtbus_jax.images.enhancement import equalise_multi_peak
from mtbus_jax.images.preprocess import resize_area, resize_nearest
from mtbus_jax.predict import Predictor, measure, resample
from mtbus_jax.training import run_folder


class TestResample:
    def test_between_what_the_network_saw(self):
        """Against scipy: linear between the sampled rows and columns, constant beyond the last."""
        coarse = np.random.default_rng(0).random((16, 32))
        height, width = 50, 77
        sampled = np.arange(16) * height // 16, np.arange(32) * width // 32
        linear = scipy.interpolate.RegularGridInterpolator(sampled, coarse)
        rows = np.minimum(np.arange(height), sampled[0][-1])
        cols = np.minimum(np.arange(width), sampled[1][-1])
        expected = linear(np.stack(np.meshgrid(rows, cols, indexing="ij"), -1))
        found = resample.to_original(coarse, height, width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_every_value_is_found_again_where_it_was_sampled(self):
        coarse = np.random.default_rng(0).random((16, 32)).astype(np.float32)
        for height, width in ((16, 32), (17, 33), (50, 77)):
            found = resample.to_original(coarse, height, width)
            np.testing.assert_allclose(resize_nearest(found, 16, 32), coarse, atol=1e-6)

    def test_smaller_pictures_take_means(self):
        coarse = np.arange(12, dtype=np.float32).reshape(4, 3)
        found = resample.to_original(coarse, 2, 3)
        np.testing.assert_allclose(found, [coarse[:2].mean(0), coarse[2:].mean(0)], rtol=1e-6)

    def test_sides_of_their_own(self):
        """A side that shrinks beside one that grows, in no whole ratio, pixel by pixel."""
        coarse = np.random.default_rng(0).random((16, 6)).astype(np.float32)
        height, width = 11, 20
        found = resample.to_original(coarse, height, width)
        assert found.shape == (height, width)
        sampled_rows = [i * height // 16 for i in range(16)]
        sampled_cols = [i * width // 6 for i in range(6)]
        for row in range(height):
            line = coarse[[i for i in range(16) if sampled_rows[i] == row]].mean(0)
            expected = np.interp(range(width), sampled_cols, line)
            np.testing.assert_allclose(found[row], expected, atol=1e-6)

    def test_one_network_pixel(self):
        found = resample.to_original(np.float32([[0.25], [0.75]]), 4, 3)
        np.testing.assert_allclose(found, np.tile([[0.25], [0.5], [0.75], [0.75]], 3), atol=1e-7)

    def test_a_truth_survives_better_than_by_repeating_pixels(self):
        rows, cols = np.mgrid[:230, :310]
        truth = ((rows - 100) / 50) ** 2 + ((cols - 170) / 80) ** 2 < 1
        coarse = resize_nearest(truth, 32, 32)

        def dice(mask):
            return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

        smooth = dice(resample.to_original(coarse, *truth.shape) > 0.5)
        assert smooth > 0.97
        assert smooth > dice(resize_nearest(coarse, *truth.shape)) + 0.03


class TestPredictor:
    def test_means_over_the_folds(self, world, pictures):
        workdir, _, variables = world
        predictor = Predictor(workdir, refine="none")
        assert (predictor.folds, predictor.members) == ((0, 1), 2)
        predictions = predictor(pictures)
        assert len(predictions) == 3
        some = []
        for picture, prediction in zip(pictures, predictions, strict=True):
            maps, logits = by_hand(picture, variables)
            np.testing.assert_allclose(prediction.probability, maps.mean(0), atol=1e-5)
            expected = scipy.special.softmax(logits, -1).mean(0)
            np.testing.assert_allclose(prediction.class_probability, expected, atol=1e-5)
            assert prediction.class_id == expected.argmax()
            assert prediction.class_name == types.CLASS_NAMES[expected.argmax()]
            enlarged = resample.to_original(maps.mean(0), *picture.shape)
            np.testing.assert_allclose(prediction.probability_map(), enlarged, atol=1e-5)
            np.testing.assert_array_equal(prediction.mask, prediction.probability_map() > 0.5)
            np.testing.assert_array_equal(prediction.unrefined_mask, prediction.mask)
            some.append(prediction.mask.mean())
        assert any(0 < share < 1 for share in some)

    def test_chosen_folds(self, world, pictures):
        workdir, _, variables = world
        assert json.dumps(Predictor(workdir, folds=np.array([1])).folds) == "[1]"
        (prediction,) = Predictor(workdir, folds=[1])(pictures[:1])
        maps, _ = by_hand(pictures[0], {1: variables[1]})
        np.testing.assert_allclose(prediction.probability, maps[0], atol=1e-5)

    @pytest.mark.parametrize(
        "wrong",
        [{"folds": 0}, {"folds": [True]}, {"tta": "no"}, {"batch_size": 0}, {"batch_size": "8"}],
    )
    def test_values_that_are_none(self, world, wrong):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Predictor(world[0], **wrong)

    def test_flips_of_an_input_that_is_not_square(self, world, pictures):
        workdir, _, variables = world
        predictor = Predictor(workdir, tta=True, refine="none")
        assert predictor.members == 2 * 4
        (prediction,) = predictor(pictures[:1])
        maps, logits = by_hand(pictures[0], variables, numbers=range(4))
        np.testing.assert_allclose(prediction.probability, maps.mean(0), atol=1e-5)
        expected = scipy.special.softmax(logits, -1).mean(0)
        np.testing.assert_allclose(prediction.class_probability, expected, atol=1e-5)

    def test_after_upright_training_the_mirror_image_is_the_only_other_version(
        self, tmp_path, pictures
    ):
        config, variables = write_run(tmp_path, folds=(0,))
        config.train.augmentation = "upright"
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        predictor = Predictor(tmp_path, tta=True, refine="none")
        assert predictor.members == 2
        small = resize_nearest(pictures[0], *SIZE)
        (prediction,) = predictor([small])
        as_it_is, _ = by_hand(small, variables)
        mirrored, _ = by_hand(small[:, ::-1], variables)
        mean = (as_it_is[0] + mirrored[0][:, ::-1]) / 2
        np.testing.assert_allclose(prediction.probability, mean, atol=1e-5)

    def test_pictures_are_enhanced_as_in_training(self, tmp_path, pictures):
        config, variables = write_run(tmp_path, folds=(0,))
        config.data.enhancement = "multi_peak"
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        (prediction,) = Predictor(tmp_path, refine="none")(pictures[:1])
        as_it_is, _ = by_hand(equalise_multi_peak(pictures[0]), variables)
        np.testing.assert_allclose(prediction.probability, as_it_is[0], atol=1e-5)
        plain, _ = by_hand(pictures[0], variables)
        assert np.abs(plain - as_it_is).max() > 1e-3
        # A run from before there was a choice enhanced nothing.
        del config.data.enhancement
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        (prediction,) = Predictor(tmp_path, refine="none")(pictures[:1])
        np.testing.assert_allclose(prediction.probability, plain[0], atol=1e-5)

    def test_pictures_are_resized_as_in_training(self, tmp_path, pictures):
        config, variables = write_run(tmp_path, folds=(0,))
        config.data.resize = "area"
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        (prediction,) = Predictor(tmp_path, refine="none")(pictures[:1])
        as_it_is, _ = by_hand(resize_area(pictures[0], *SIZE), variables)
        np.testing.assert_allclose(prediction.probability, as_it_is[0], atol=1e-5)
        # A run from before there was a choice took the nearest neighbour.
        del config.data.resize
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        (prediction,) = Predictor(tmp_path, refine="none")(pictures[:1])
        as_it_is, _ = by_hand(pictures[0], variables)
        np.testing.assert_allclose(prediction.probability, as_it_is[0], atol=1e-5)

    def test_eight_symmetries_commute_with_the_picture(self, tmp_path):
        """A turned picture gets the turned mask, and the same class."""
        write_run(tmp_path, folds=(0,), size=(32, 32))
        picture = np.random.default_rng(2).integers(0, 256, (32, 32)).astype(np.uint8)
        predictor = Predictor(tmp_path, tta=True)
        assert predictor.members == 8
        one, turned = predictor([picture, np.rot90(picture)])
        np.testing.assert_allclose(turned.probability, np.rot90(one.probability), atol=1e-5)
        np.testing.assert_allclose(turned.class_probability, one.class_probability, atol=1e-5)
        plain_one, plain_turned = Predictor(tmp_path)([picture, np.rot90(picture)])
        difference = plain_turned.probability - np.rot90(plain_one.probability)
        assert np.abs(difference).max() > 1e-3

    def test_the_batch_does_not_matter(self, world, pictures):
        many = pictures * 3
        wanted = Predictor(world[0], batch_size=1)(many)
        for batch_size in (2, 8, 16):
            found = Predictor(world[0], batch_size=batch_size)(many)
            for one, other in zip(wanted, found, strict=True):
                np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)
                np.testing.assert_array_equal(one.frame.grey, other.frame.grey)

    def test_compiled_once(self, world, pictures, monkeypatch):
        traced = []

        class Counting(tiny.TinyNet):
            def __call__(self, image, *, train=False):
                traced.append(len(image))
                return super().__call__(image, train=train)

        monkeypatch.setitem(models.REGISTRY, "tiny", Counting)
        predictor = Predictor(world[0], batch_size=4)
        traced.clear()
        predictor(pictures * 3)  # 4, 4, 1: the last is filled up
        predictor(pictures[:1])
        # Once to prepare the weights, once to compile.
        assert traced == [4, 4]

    def test_a_stream_holds_a_few_batches_and_keeps_the_order(self, world, pictures):
        rolled = [np.roll(pictures[0], 3 * number, 1) for number in range(20)]
        taken = []

        def frames():
            for number, picture in enumerate(rolled):
                taken.append(number)
                yield images.from_array(picture)

        predictor = Predictor(world[0], batch_size=2)
        stream = predictor.stream(frames())
        found = [next(stream)]
        assert len(taken) <= 6
        found += stream
        for wanted, one in zip(predictor(rolled), found, strict=True):
            np.testing.assert_array_equal(one.frame.grey, wanted.frame.grey)
            np.testing.assert_array_equal(one.probability, wanted.probability)

    def test_a_stream_that_is_left_or_fails_ends(self, world, pictures):
        predictor = Predictor(world[0], batch_size=1)

        def frames():
            yield from [images.from_array(picture) for picture in pictures] * 4
            raise OSError("the disk is gone")

        before = set(threading.enumerate())  # of which some may end in the meantime
        left = predictor.stream(frames())
        next(left)
        left.close()
        with pytest.raises(OSError, match="the disk is gone"):
            list(predictor.stream(frames()))
        assert set(threading.enumerate()) <= before

    def test_paths_arrays_and_frames(self, world, pictures, tmp_path):
        Image.fromarray(pictures[0]).save(tmp_path / "a.png")
        frame = images.from_array(pictures[0])
        found = Predictor(world[0])([tmp_path / "a.png", pictures[0], frame])
        for each in found[1:]:
            np.testing.assert_array_equal(each.mask, found[0].mask)
        deep = pictures[0].astype(np.uint16) * 257
        (other,) = Predictor(world[0])([deep])
        np.testing.assert_array_equal(other.mask, found[0].mask)
        assert other.frame.notes == ("16-bit values scaled to 8 bits",)

    def test_colour_as_for_training(self, world, pictures):
        colour = np.stack([pictures[0], pictures[0] // 2, pictures[0] // 3], -1)
        luma = preprocess.to_greyscale(colour)
        one, other = Predictor(world[0])([colour, luma])
        np.testing.assert_array_equal(one.probability, other.probability)

    def test_wrong_pictures(self, world):
        predictor = Predictor(world[0])
        with pytest.raises(UserError, match="list of pictures"):
            predictor("a.png")
        with pytest.raises(UserError, match="no_such"):
            predictor(["no_such.png"])
        right = np.zeros((40, 60), np.uint8)
        for wrong in (np.zeros((1, 1), np.uint8), np.full((40, 60), np.nan), None):
            with pytest.raises(UserError, match="the picture at position 1 "):
                predictor([right, wrong])
        assert predictor([]) == []

    @pytest.mark.parametrize("tasks", [("seg",), ("cls",)])
    def test_single_tasks(self, tmp_path, pictures, tasks):
        write_run(tmp_path, tasks=tasks)
        (found,) = Predictor(tmp_path, refine="hard", tta=True)(pictures[:1])
        assert (found.mask is not None) == (tasks == ("seg",))
        assert (found.probability_map() is not None) == (tasks == ("seg",))
        assert (found.class_id is not None) == (tasks == ("cls",))
        assert found.refined == ""
        row = measure.measure(images.Source(pathlib.Path("a.png"), "a.png", "a"), found)
        assert ("class" in row) == (tasks == ("cls",))
        assert ("area_px" in row) == (tasks == ("seg",))


class TestRefining:
    """The rules on assessments made by hand: a mask or none, and class probabilities."""

    def refined(self, workdir, probability, classes, method, lesion_odds=None):
        predictor = Predictor(workdir, refine="none")
        predictor.refine = method  # probable would want a calibrated run
        known = {
            "probability": probability[None],
            "class_probability": np.array([classes]),
            "lesion_odds": lesion_odds,
        }
        assessed = trust.Assessment(**known)
        frame = images.from_array(np.arange(40 * 60, dtype=np.uint16).reshape(40, 60))
        return predictor._finish(frame, assessed, predictor._refined(assessed), None, 0)

    @pytest.fixture
    def lesion(self):
        probability = np.full(SIZE, 0.1, np.float32)
        probability[4:9, 10:20] = 0.8
        return probability

    def test_a_normal_image_loses_its_mask(self, world, lesion):
        found = self.refined(world[0], lesion, [0.2, 0.2, 0.6], "hard")
        assert found.refined == "mask removed"
        assert not found.mask.any()
        assert found.unrefined_mask.any()
        assert (found.class_name, found.unrefined_class_id) == ("normal", types.NORMAL)

    def test_an_image_without_mask_is_called_normal(self, world, lesion):
        found = self.refined(world[0], lesion / 2, [0.2, 0.6, 0.2], "hard")
        assert found.refined == "class changed from malignant to normal"
        assert found.class_name == "normal"
        assert found.unrefined_class_id == types.MALIGNANT

    @pytest.mark.parametrize("method", ["hard", "none"])
    def test_what_agrees_stays(self, world, lesion, method):
        found = self.refined(world[0], lesion, [0.2, 0.6, 0.2], method)
        assert found.refined == ("no" if method == "hard" else "off")
        assert found.class_name == "malignant"
        assert found.mask.any()
        np.testing.assert_array_equal(found.mask, found.unrefined_mask)

    def test_none_leaves_a_contradiction(self, world, lesion):
        found = self.refined(world[0], lesion, [0.2, 0.2, 0.6], "none")
        assert found.refined == "off"
        assert found.class_name == "normal"
        assert found.mask.any()

    def test_probable(self, world, lesion):
        # The class says lesion, loudly; the mask has none above one half: one is drawn.
        low = lesion * 0.6
        found = self.refined(world[0], low, [0.1, 0.88, 0.02], "probable", np.array([0.9]))
        assert found.refined == "mask drawn"
        assert found.mask.any()
        assert found.class_name == "malignant"
        coarse, _ = refine.refine_probable(
            low[None], np.array([[0.1, 0.88, 0.02]]), np.array([0.9])
        )
        expected = resample.to_original(np.asarray(coarse[0]), 40, 60) > 0.5
        np.testing.assert_array_equal(found.mask, expected)

    def test_the_run_decides_by_default(self, tmp_path):
        config, _ = write_run(tmp_path, folds=(0,))
        assert Predictor(tmp_path).refine == "hard"
        assert not Predictor(tmp_path).tta
        write_trust(tmp_path, (0,))
        assert not Predictor(tmp_path).fitted_otherwise
        assert Predictor(tmp_path, tta=True).fitted_otherwise
        config.eval.refine, config.eval.tta = False, True
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        assert Predictor(tmp_path).refine == "none"
        assert Predictor(tmp_path).tta
        assert Predictor(tmp_path, tta=False).fitted_otherwise

    def test_without_augmentation_there_is_one_version(self, tmp_path):
        config, _ = write_run(tmp_path, folds=(0,))
        config.train.augment = False
        files.write_json(tmp_path / run_folder.CONFIG, config.to_dict())
        assert Predictor(tmp_path, tta=True).members == 1

    def test_wrong_choices(self, world):
        with pytest.raises(UserError, match=r"soft.*none, hard, probable"):
            Predictor(world[0], refine="soft")
        with pytest.raises(UserError, match=r"trust\.json"):
            Predictor(world[0], refine="probable")
        with pytest.raises(UserError, match="batch_size"):
            Predictor(world[0], batch_size=0)


class TestTrust:
    def test_not_calibrated(self, world, pictures):
        predictor = Predictor(world[0])
        assert not predictor.calibrated
        (found,) = predictor(pictures[:1])
        assert found.warning == "not calibrated"
        assert found.uncertainty is None
        assert found.prediction_set is None

    def test_calibrated(self, tmp_path, pictures):
        _, variables = write_run(tmp_path)
        write_trust(tmp_path, (0, 1))
        predictor = Predictor(tmp_path, tta=True, refine="probable")
        assert predictor.calibrated
        found = predictor(pictures)
        members = [by_hand(picture, variables, numbers=range(4)) for picture in pictures]
        expected = trust.assess(
            np.stack([maps for maps, _ in members], 1),
            np.stack([logits for _, logits in members], 1),
            trust.read(tmp_path),
            [0, 1],
        )
        answer = refine.refine_probable(
            expected.probability, expected.class_probability, expected.lesion_odds
        )
        doubtful = trust.judge(expected, *map(np.asarray, answer), trust.read(tmp_path), [0, 1])
        for index, each in enumerate(found):
            np.testing.assert_allclose(
                each.class_probability, expected.class_probability[index], atol=1e-5
            )
            assert each.uncertainty == pytest.approx(doubtful.uncertainty[index], abs=1e-4)
            inside = {types.CLASS_NAMES[i] for i in np.flatnonzero(expected.prediction_set[index])}
            assert set(each.prediction_set) == inside

    @pytest.mark.parametrize(("threshold", "warning"), [(0.0, "uncertain"), (1.0, "")])
    def test_warnings(self, tmp_path, pictures, threshold, warning):
        write_run(tmp_path, folds=(0,))
        write_trust(tmp_path, (0,), warning_threshold=threshold)
        (found,) = Predictor(tmp_path)(pictures[:1])
        assert found.warning == warning

    def test_a_fold_that_was_not_calibrated(self, tmp_path):
        write_run(tmp_path)
        write_trust(tmp_path, (0,))
        assert not Predictor(tmp_path).calibrated
        assert Predictor(tmp_path, folds=[0]).calibrated
