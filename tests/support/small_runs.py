"""A run of the tiny network that trains in moments, to be damaged."""

import dataclasses
import pathlib
import shutil

import tiny

CASES = tiny.make_cases()


@dataclasses.dataclass(frozen=True)
class World:
    """One run of two folds, trained once.

    Attributes:
      run: its folder; tests work on copies.
      arrays: a file with its dataset.
    """

    run: pathlib.Path
    arrays: pathlib.Path

    def copy(self, folder: pathlib.Path) -> pathlib.Path:
        return shutil.copytree(self.run, folder / "run")


def make_config(**train):
    config = tiny.make_config(**({"epochs": 3} | train))
    config.data.folds = (0, 1)
    config.eval.tta = False
    config.log.tensorboard = False
    return config
