"""Trains one fold with this library, prints figures and processor time; for time_to_published.py.

    python our_time_to_published.py FOLD LAST_EPOCH --config=configs/best.py [overrides]

The run folder is temporary, with checkpoints and logbook as in any training run; nothing is tested.
Prints lines of JSON: facts first, then a row for each epoch (see `reaching`), then whether training
finished.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import reaching
from absl import logging

from mtbus_jax import configuration, data, splits, types
from mtbus_jax.runtime import backend
from mtbus_jax.training import device_data, run_splits
from mtbus_jax.training.evaluator import Evaluator
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.fold import FoldLoop, FoldRun


class RefinedEvaluator:
    """An `Evaluator` whose means include the refined figures."""

    def __init__(self, evaluator: Evaluator, cases: types.Cases):
        """Runs nothing.

        Args:
          evaluator: of the cases.
          cases: the dataset.
        """
        self._evaluator, self._cases = evaluator, cases

    def __call__(self, variables, index):
        """Means over the images at ``index``, and None, as a training loop asks for them."""
        means, found = self._evaluator(variables, index, predictions=True)
        figures = reaching.figures(
            found.probability[..., 0] > types.MASK_THRESHOLD,
            found.class_logits.argmax(axis=-1),
            self._cases.mask[index, ..., 0] > 0,
            self._cases.label[index],
            normal=self._cases.classes.normal,
        )
        return figures | means, None


class TimedRun(FoldRun):
    """A fold that prints a row for each epoch and can end before its recipe does."""

    def __init__(self, *args, last_epoch: int, **options):
        """See `FoldRun`; ``last_epoch`` is the last one to be trained."""
        super().__init__(*args, **options)
        self._last_epoch, self._started = last_epoch, time.monotonic()

    @property
    def at_its_end(self) -> bool:
        """Whether the recipe ends here."""
        return super().finished

    @property
    def finished(self) -> bool:
        """Whether training should stop."""
        return self.at_its_end or self.epochs_done >= self._last_epoch

    def close_epoch(self, standing, *, validation_means: dict[str, float], **rest) -> None:
        """Records the epoch and prints its row."""
        super().close_epoch(standing, validation_means=validation_means, **rest)
        names = ("dice", "accuracy", "refined_dice", "refined_accuracy")
        row = {
            "epoch": self.epochs_done,
            "processor_seconds": time.process_time(),
            "seconds": time.monotonic() - self._started,
            **{name: validation_means[name] for name in names},
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    """Trains the fold."""
    given, (fold, last_epoch) = configuration.take(sys.argv[1:])
    logging.set_verbosity(logging.WARNING)
    backend.prepare_for_training()
    config = configuration.read(given)
    cases = data.load_configured(config)
    config = data.resolve(config, cases)
    config.log.progress = False
    experiment = Experiment.from_config(config)
    placed = device_data.place(cases, experiment.devices)
    parts = splits.make_folds(cases, **run_splits.drawing(config.data))
    with tempfile.TemporaryDirectory() as folder:
        run = TimedRun(
            experiment,
            cases,
            parts[int(fold)],
            fold=int(fold),
            directory=Path(folder),
            origin={},
            last_epoch=int(last_epoch),
        )
        loop = FoldLoop(experiment, placed, RefinedEvaluator(Evaluator(experiment, placed), cases))
        facts = {
            "start_seconds": time.process_time(),
            "validation_images": len(run.validation),
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        }
        print(json.dumps(facts), flush=True)
        with run.open():
            loop.train(run)
            print(json.dumps({"finished": run.at_its_end}), flush=True)


if __name__ == "__main__":
    main()
