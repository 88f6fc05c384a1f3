"""An ensemble of trained folds that turns pictures into masks and classes."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import scipy

from mtbus_jax import augment, images, refine, types
from mtbus_jax.errors import UserError
from mtbus_jax.evaluation import trust
from mtbus_jax.images import preprocess
from mtbus_jax.images.depth import UnusableError
from mtbus_jax.images.frame import Frame
from mtbus_jax.predict.prediction import NO_WARNING, NOT_CALIBRATED, UNCERTAIN, Prediction
from mtbus_jax.predict.program import Programs
from mtbus_jax.predict.resample import to_original
from mtbus_jax.training import bundled, steps, trained_folds

REFINE = ("none", "hard", "probable")
# Device programs that run at once on a CPU. One alone leaves cores idle, as XLA runs many
# convolutions of small batches on one core. On two cores, two programs were 1.3 times as fast as
# one; three were not.
_CPU_PROGRAMS = 2
# Masks ``(n, height, width)`` and classes ``(n,)`` of n pictures; None without the task.
_Answer = tuple[np.ndarray | None, np.ndarray | None]


class _Started(NamedTuple):
    """A batch on its way through the network.

    Attributes:
      frames: its pictures.
      members: futures of `steps.Predictions` for all pictures, one per network and version
        (flipped or turned), fold by fold.
    """

    frames: list[images.Frame]
    members: list[Future]


class Predictor:
    """The trained folds of a run as one ensemble; needs only the run folder or a bundle.

    Attributes:
      trained: configuration and weights of the folds in the ensemble.
      folds: their numbers.
      untested: folds with weights that are left out because they have not been tested.
      without_weights: folds that have been started but have no finished checkpoint.
      in_training: folds that are used although their training is not finished.
      members: number of predictions for each result: networks × flipped and turned versions.
      classes: the classes that the run distinguishes.
      tasks: what the run computes, of `types.TASKS`.
      image_size: network resolution, height and width in pixels.
      tta: whether flipped and turned versions of each picture are predicted too.
      refine: name of the refining, of `REFINE`.
      calibrated: whether probabilities are calibrated and uncertainties known.
      fitted_otherwise: whether the calibration was fitted with flipped and turned versions but they
        are not predicted now, or the other way round.
    """

    def __init__(
        self,
        run: str | os.PathLike[str] | None = None,
        *,
        folds: Sequence[int] | None = None,
        tta: bool | None = None,
        refine: str | None = None,
        batch_size: int = 8,
    ):
        """Reads the weights.

        Args:
          run: a run folder or a bundle; None for the network that comes with the library, see
            ``mtbus_jax/pretrained``.
          folds: folds of the ensemble; None takes all that are trained.
          tta: test-time augmentation: 8 flips and quarter turns, 4 if the network's input is not
            square. None does as the run's evaluation did, to which its calibration was fitted.
          refine: none; hard, the published rule (`refine.refine`); or probable
            (`refine.refine_probable`), which needs a calibrated run. None does as the run's
            configuration says.
          batch_size: pictures that go through the network together.

        Raises:
          UserError: see `trained_folds.load`, and for a wrong ``refine`` or ``batch_size``.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size={batch_size!r}: give a whole number from 1.")
        if tta not in (None, True, False):
            raise UserError(f"tta={tta!r}: give True, False, or None for what the run did.")
        if refine is not None and refine not in REFINE:
            raise UserError(f"refine={refine!r} is unknown. Known: {', '.join(REFINE)}.")
        run = bundled.PRETRAINED if run is None else Path(run)
        network = trained_folds.load(run, folds)
        config = network.config
        self.trained, self.folds = network, network.folds
        self.untested, self.without_weights = network.untested, network.without_weights
        self.in_training = network.in_training
        self.classes, self.tasks = network.classes, tuple(config.tasks)
        self.image_size = network.image_size
        self._how = {"resizing": config.data.resize, "enhancement": config.data.enhancement}
        self.tta = bool(config.eval.get("tta", False)) if tta is None else tta
        self.refine = refine or ("hard" if config.eval.refine else "none")
        self._trust = trust.read(run)
        self.calibrated = self._trust is not None and set(self.folds) <= self._trust.keys()
        self.fitted_otherwise = self.calibrated and self.tta != bool(config.eval.get("tta", False))
        if self.refine == "probable" and not self.calibrated:
            raise UserError(
                f"refine=probable: {run} has no {trust.TRUST} for these folds, which it needs; "
                "main.py --mode=evaluate writes it. Or take refine=hard."
            )
        shown = network.symmetries
        self._symmetries = shown if self.tta else shown[:1]
        self.members = len(network.members) * len(self._symmetries)
        self._batch_size = batch_size
        self._programs = Programs(network, batch_size)
        on_cpu = jax.default_backend() == "cpu"
        self._at_once = min(_CPU_PROGRAMS, os.cpu_count() or 1) if on_cpu else 1

    def __call__(
        self, images: Sequence[str | os.PathLike[str] | np.ndarray | images.Frame]
    ) -> list[Prediction]:
        """Predicts pictures of any sizes.

        Args:
          images: paths of files, which may hold several frames; pixel arrays as
            `images.from_array` takes them; or frames.

        Returns:
          One prediction per picture or frame, in order.

        Raises:
          UserError: if one of the pictures cannot be read.
        """
        if isinstance(images, str | os.PathLike | Frame):
            raise UserError("Predictor takes a list of pictures: give [path].")
        if isinstance(images, np.ndarray) and images.ndim < 3:
            raise UserError("Predictor takes a list of pictures: give [array].")
        numbered = enumerate(images)
        return list(self.stream([f for number, image in numbered for f in _frames(number, image)]))

    def stream(
        self, frames: Iterable[images.Frame], *, full: bool = False, prepared: bool = False
    ) -> Iterator[Prediction]:
        """Predicts frames as they come; any number is fine, as only a few batches are in memory.

        The network works while the next frames are read and earlier results are used.

        Args:
          frames: see `images.read` and `images.from_array`.
          full: compile for full batches even if no batch is full, so that results equal those of
            full batches to the last bit.
          prepared: frames are already network inputs, as `data.load_cases` makes them with the
            run's image size, way of resizing and enhancement.

        Yields:
          One prediction per frame, in order.
        """
        frames = iter(frames)
        waiting: collections.deque[_Started] = collections.deque()
        pool = ThreadPoolExecutor(self._at_once)
        if full:
            self._programs.at_least(self._batch_size)
        try:
            while batch := list(itertools.islice(frames, self._batch_size)):
                waiting.append(self._start(batch, pool, prepared=prepared))
                if len(waiting) > self._at_once:
                    yield from self._end(waiting.popleft())
            while waiting:
                yield from self._end(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(
        self, frames: list[images.Frame], pool: ThreadPoolExecutor, *, prepared: bool
    ) -> _Started:
        pictures = [frame.grey for frame in frames]
        if not prepared:
            size, how = self.image_size, self._how
            pictures = [preprocess.to_input(grey, *size, **how) for grey in pictures]
        pictures = np.stack(pictures)
        # Compiled here, because the threads would compile it twice.
        program = self._programs.at_least(len(frames))
        missing = np.repeat(pictures[:1], program.size - len(frames), axis=0)
        filled = np.concatenate([pictures, missing])
        members = [
            pool.submit(self._run_member, program.compiled, variables, filled[..., None], number)
            for variables in program.variables
            for number in self._symmetries
        ]
        return _Started(frames, members)

    def _run_member(
        self, program: jax.stages.Compiled, variables, pictures: np.ndarray, number: int
    ) -> steps.Predictions:
        """Transforms ``(n, height, width, 1)`` pictures by a symmetry; turns the outputs back."""
        turned = np.ascontiguousarray(augment.symmetry(pictures, number))
        outputs = jax.device_get(program(variables, turned))
        if outputs.probability is None:
            return outputs
        return outputs._replace(probability=augment.undo_symmetry(outputs.probability, number))

    def _end(self, started: _Started) -> Iterator[Prediction]:
        members = [member.result() for member in started.members]
        count = len(started.frames)
        probability = logits = None
        if members[0].probability is not None:
            probability = np.stack([member.probability[:count, ..., 0] for member in members])
        if members[0].class_logits is not None:
            logits = np.stack([member.class_logits[:count] for member in members])
        assessed = self._assess(probability, logits)
        answer, judged = self._refined(assessed), None
        if self.calibrated:
            judged = trust.judge(assessed, *answer, self._trust, list(self.folds))
        for index, frame in enumerate(started.frames):
            yield self._finish(frame, assessed, answer, judged, index)

    def _assess(
        self, probability: np.ndarray | None, logits: np.ndarray | None
    ) -> trust.Assessment:
        if self.calibrated:
            folds, normal = list(self.folds), self.classes.normal
            return trust.assess(probability, logits, self._trust, folds, normal=normal)
        mean = None if probability is None else probability.mean(axis=0)
        classes = None if logits is None else scipy.special.softmax(logits, axis=-1).mean(axis=0)
        return trust.Assessment(mean, classes)

    def _refined(self, assessed: trust.Assessment) -> _Answer:
        """Masks at network resolution and classes of the pictures, after refining."""
        mask = class_id = None
        if assessed.probability is not None:
            mask = assessed.probability > types.MASK_THRESHOLD
        if assessed.class_probability is not None:
            class_id = np.argmax(assessed.class_probability, axis=-1)
        if mask is None or class_id is None or self.refine == "none":
            return mask, class_id
        if self.refine == "hard":
            new = refine.refine(mask, assessed.class_probability, normal=self.classes.normal)
        else:
            new = refine.refine_probable(
                assessed.probability,
                assessed.class_probability,
                assessed.lesion_odds,
                normal=self.classes.normal,
            )
        return np.asarray(new[0]), np.asarray(new[1])

    def _finish(
        self,
        frame: images.Frame,
        assessed: trust.Assessment,
        answer: _Answer,
        judged: trust.Judgement | None,
        index: int,
    ) -> Prediction:
        """Builds the result for one picture, with the mask at the picture's own size."""
        coarse = None if answer[0] is None else answer[0][index]
        class_id = None if answer[1] is None else int(answer[1][index])
        size = frame.grey.shape
        mask = unrefined = before = classes = class_before = None
        if coarse is not None:
            probability = assessed.probability[index]
            before = probability > types.MASK_THRESHOLD
            unrefined = to_original(probability, *size) > types.MASK_THRESHOLD
            mask = unrefined
            if (coarse != before).any():
                mask = to_original(coarse, *size) > types.MASK_THRESHOLD
        if class_id is not None:
            classes = assessed.class_probability[index]
            class_before = int(np.argmax(classes))
        names = None
        if assessed.prediction_set is not None:
            names = tuple(np.array(self.classes.names)[assessed.prediction_set[index]].tolist())
        uncertainty, warning = None, NOT_CALIBRATED
        if judged is not None:
            uncertainty = float(judged.uncertainty[index])
            warning = UNCERTAIN if judged.warning[index] else NO_WARNING
        return Prediction(
            frame=frame,
            mask=mask,
            probability=None if coarse is None else assessed.probability[index],
            class_names=self.classes.names,
            class_id=class_id,
            class_probability=classes,
            prediction_set=names,
            refined=self._change(before, coarse, class_before, class_id),
            unrefined_class_id=class_before,
            unrefined_mask=unrefined,
            uncertainty=uncertainty,
            warning=warning,
        )

    def _change(self, before, after, class_before, class_after) -> str:
        """Describes what refining changed."""
        if len(self.tasks) < len(types.TASKS):
            return ""
        if self.refine == "none":
            return "off"
        changes = []
        if (before != after).any():
            changes.append("mask drawn" if after.any() else "mask removed")
        if class_before != class_after:
            old, new = (self.classes.names[each] for each in (class_before, class_after))
            changes.append(f"class changed from {old} to {new}")
        return ", ".join(changes) or "no"


def _frames(
    number: int, image: str | os.PathLike[str] | np.ndarray | images.Frame
) -> Iterator[images.Frame]:
    if isinstance(image, images.Frame):
        yield image
    elif isinstance(image, str | os.PathLike):
        yield from images.read(image)
    else:
        try:
            yield images.from_array(image)
        except UnusableError as error:
            raise UserError(f"Predictor: the picture at position {number} {error}.") from None
