"""The result for one picture."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtbus_jax import images
from mtbus_jax.predict.resample import to_original

# What `Prediction.warning` says.
NO_WARNING, UNCERTAIN, NOT_CALIBRATED = "", "uncertain", "not calibrated"


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The ensemble's result for one picture; values that it does not compute are None.

    Attributes:
      frame: the picture.
      mask: ``(height, width)`` bool at the picture's own size, after refining.
      probability: ``(network_height, network_width)`` float32, mean tumour probability over the
        members, before refining.
      class_names: the run's classes, in the order of their codes.
      class_id: index into ``class_names``, after refining.
      class_probability: ``(classes,)`` float, mean over the members, before refining.
      prediction_set: names of the classes that cannot be ruled out, see `trust`; None if the run
        is not calibrated.
      refined: what refining changed, such as ``mask removed``; ``no`` if nothing, ``off`` if
        refining is off, "" if the run has one task only.
      unrefined_class_id: the class before refining.
      unrefined_mask: ``(height, width)`` bool, the mask before refining.
      uncertainty: probability in [0, 1] that the prediction is wrong; None if not calibrated.
      warning: ``uncertain``, "" or ``not calibrated``.
    """

    frame: images.Frame
    mask: np.ndarray | None
    probability: np.ndarray | None
    class_names: tuple[str, ...]
    class_id: int | None
    class_probability: np.ndarray | None
    prediction_set: tuple[str, ...] | None
    refined: str
    unrefined_class_id: int | None
    unrefined_mask: np.ndarray | None
    uncertainty: float | None
    warning: str

    @property
    def class_name(self) -> str | None:
        """The class after refining."""
        return None if self.class_id is None else self.class_names[self.class_id]

    def probability_map(self) -> np.ndarray | None:
        """``(height, width)`` float32 tumour probability at the picture's own size."""
        if self.probability is None:
            return None
        return to_original(self.probability, *self.frame.grey.shape)
