"""The errors for losses and weights that are no longer finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtbus_jax.errors import UserError

_SHOWN = 12  # uids of a batch


def check_weights(fold: int, variables: Any) -> None:
    """Refuses to start or continue with weights that hold NaN or infinity.

    Args:
      fold: its number.
      variables: of the network.

    Raises:
      UserError: naming the first such array.
    """
    for path, leaf in jax.tree.leaves_with_path(variables):
        if not np.isfinite(np.asarray(leaf)).all():
            raise UserError(
                f"fold {fold}: the weights that training starts from hold values that are not "
                f"finite, in {jax.tree_util.keystr(path)}. They come from train.start_from, "
                "model.encoder_weights or the last checkpoint; give others, or train in another "
                "--workdir."
            )


def not_finite(
    where: str,
    losses: dict[str, float],
    *,
    step: int,
    batches: Sequence[Sequence[str]],
    learning_rate: float,
) -> UserError:
    """The error to raise when a loss is no longer finite.

    Args:
      where: text naming fold and epoch.
      losses: of the epoch, by part.
      step: first step of the epoch, from 1, whose training loss is not finite; 0 if all are.
      batches: uids of the images of that step, then of the step before, whose gradient may have
        caused it.
      learning_rate: of the epoch's first step.
    """
    found = ", ".join(f"{name} {loss}" for name, loss in losses.items())
    if step:
        listed = [
            ", ".join(uids[:_SHOWN]) + " and others" * (len(uids) > _SHOWN) for uids in batches
        ]
        since = f" since step {step}, whose images are {listed[0]}"
        since += f"; those of the step before are {listed[1]}" if len(listed) > 1 else ""
    else:
        since = " on the validation images alone"
    return UserError(
        f"{where}: the loss is no longer finite ({found}){since}. The weights were finite before. "
        f"A learning rate that is too high can cause this (it was {learning_rate:.1e}), and so can "
        "the weights of the loss. The last checkpoint is kept; start over in another --workdir."
    )
