"""The device programs of training, each made once."""

from __future__ import annotations

import jax

from mtbus_jax.runtime import compiled, parallel
from mtbus_jax.training import device_data, steps
from mtbus_jax.training.experiment import Experiment
from mtbus_jax.training.totals import Totals

# LLVM's third level, XLA's default, compiles a fifth longer than the second; steps are as fast.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 2}


class TrainPrograms:
    """The training programs of a run: one for each shape of a part and each image size."""

    def __init__(self, experiment: Experiment, data: steps.Dataset):
        """Compiles nothing yet.

        Args:
          experiment: of the run.
          data: the dataset, from `device_data.place`.
        """
        self._experiment, self._data = experiment, data
        self._made: dict[tuple, compiled.KeptProgram] = {}

    def get(
        self, part: device_data.Part, key: jax.Array, size: tuple[int, int] | None
    ) -> compiled.KeptProgram:
        """The program for parts of these shapes; made, or read from disk, once.

        Args:
          part: to be trained on.
          key: PRNG key of the fold.
          size: see `progressive.size`.
        """
        rest = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            (self._data, part.index, part.valid, key),
        )
        shapes = (size, *jax.tree.leaves(rest), str(jax.tree.structure(rest)))
        if shapes not in self._made:

            def arguments():
                state = self._experiment.abstract_state()
                return state, jax.eval_shape(Totals.zero), *rest

            experiment = self._experiment
            pmapped = parallel.pmap_train(
                experiment.train_steps(parallel.AXIS, size), experiment.devices
            )
            self._made[shapes] = experiment.kept(
                "train",
                pmapped,
                arguments,
                about=shapes,
                donate_argnums=(0, 1),
                compiler_options=COMPILER_OPTIONS,
            ) or compiled.KeptProgram(pmapped, arguments)
        return self._made[shapes]
