"""What a checkpoint records of the origin of its weights, and whether that fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbus_jax.errors import UserError
from mtbus_jax.models import channel_order
from mtbus_jax.training.packing import Damaged

ORDER = "channel_order"  # in the origin; checkpoints without it have order 1


def check(path: Path, origin: Any, wanted: Mapping[str, str]) -> None:
    """Refuses weights that were trained on something else.

    Args:
      path: of the checkpoint.
      origin: its record.
      wanted: fingerprints by name, as the run has them now; others are not compared.

    Raises:
      Damaged: if the checkpoint has no such record.
      UserError: naming what differs.
    """
    if not isinstance(origin, Mapping):
        raise Damaged("origin is not a dictionary")
    changed = [name for name in wanted if origin.get(name) != wanted[name]]
    if changed:
        raise UserError(
            f"the checkpoint in {path} was trained on a different {' and '.join(changed)} than "
            "the run has now. Restore it, or choose another --workdir."
        )


def channel_order_of(path: Path, origin: Mapping[str, Any], *, goes_on: bool) -> int:
    """The order of a checkpoint's channels, see `channel_order`.

    Args:
      path: of the checkpoint.
      origin: its record.
      goes_on: whether training will continue from it.

    Raises:
      UserError: for an unknown order, or one whose training cannot continue.
    """
    order = origin.get(ORDER, 1)
    if order not in range(1, channel_order.CURRENT + 1):
        raise UserError(
            f"the checkpoint in {path} has the channel order {order!r}, which this version of "
            "mtbus_jax does not know. Use the version that wrote it, or a newer one."
        )
    if goes_on and order < channel_order.CURRENT:
        raise UserError(
            f"the checkpoint in {path} was written by a version whose learning rate was "
            "lowered, and whose training stopped, one bad epoch earlier. Its training cannot "
            "go on here: train again in another --workdir, or go on with the version that "
            "wrote it. Its best weights can still be tested and used to predict."
        )
    return order
