"""Trust for a network that was trained on every image, so that no image is left to test it.

It is fitted on the predictions of a cross-validated run of the same recipe. Each of them is for an
image that its network was not trained on. A network trained on all images should err no more often.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mtbus_jax import splits, types
from mtbus_jax.evaluation import stored_predictions, trust
from mtbus_jax.evaluation.trust import measure
from mtbus_jax.training import run_folder


def content(
    workdir: Path, cases: types.Cases, folds: list[splits.Split], *, fold: int
) -> dict[str, Any]:
    """The content of a ``trust.json`` fitted on the test predictions of all folds together.

    Args:
      workdir: folder of the cross-validated run.
      cases: the run's dataset.
      folds: the run's splits, all of them tested.
      fold: number of the fold under which the content is stored.

    Raises:
      UserError: if predictions are missing or belong to other images.
    """
    stored, index = [], []
    for number, split in enumerate(folds):
        directory = run_folder.fold_dir(workdir, number)
        found = stored_predictions.read(directory, "test")
        stored_predictions.check_images(directory, "test", found, cases.uid[split.test])
        stored.append(found)
        index.append(split.test)
    known = measure.whose_truth_is_known(
        stored_predictions.join(stored), cases.take(np.concatenate(index))
    )
    return {
        "error_rate": trust.ERROR_RATE,
        "warning_share": trust.WARNING_SHARE,
        "wrong_dice": trust.WRONG_DICE,
        "folds": {str(fold): dataclasses.asdict(measure.fit_stored(*known))},
    }
