"""Where the data of a run are: they may be elsewhere on another machine, or have moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import config_dict

from mtbus_jax.data import stored
from mtbus_jax.errors import UserError

# Fields of config.data that say where things are, whatever the dataset.
PLACES = ("data_dir", "manual_dir", "cache_dir", "arrays_file")
# The dataset's name, which is also a place if the dataset is a user's folder.
NAME, FOLDS_FILE = "data.name", "data.folds_file"
START_FROM = "train.start_from"  # a run folder


def with_places(
    config: config_dict.ConfigDict, places: Mapping[str, str]
) -> config_dict.ConfigDict:
    """A copy of a run's configuration with its data elsewhere.

    Args:
      config: of a run.
      places: fields of ``config.data`` by name: `PLACES`, ``name`` for the new place of a folder
        of pictures, and ``folds_file``.

    Raises:
      UserError: for a place that the run does not have, or a ``name`` that is not a folder.
    """
    if "name" in places and not is_folder(config):
        raise UserError(
            f"{NAME}={places['name']}: the run is on {config.data.name}, which lies where "
            "data_dir says. Only a folder of your own pictures has a new place; to test the "
            "networks on other pictures, use mtbus external."
        )
    if "name" in places and not stored.is_folder(places["name"]):
        raise UserError(
            f"{NAME}={places['name']}: the run is on pictures in {config.data.name}; give the "
            "folder where they lie now."
        )
    if places.get("folds_file") and not config.data.folds_file:
        raise UserError(
            f"{FOLDS_FILE}={places['folds_file']}: the run has no file of folds; its folds are "
            "listed in its splits.json."
        )
    config = config.copy_and_resolve_references()
    config.data.update(places)
    return config


def is_folder(config: config_dict.ConfigDict) -> bool:
    """Whether a run is on a folder of the user's own pictures."""
    return stored.is_folder(config.data.name)


def may_have_moved(first: config_dict.ConfigDict, second: config_dict.ConfigDict) -> set[str]:
    """Fields that name a folder or file in both of two configurations and may differ.

    The content there is compared instead: pictures by the fingerprint in each checkpoint, folds by
    the run's own list.
    """
    found = set()
    if is_folder(first) and is_folder(second):
        found.add(NAME)
    if first.data.folds_file and second.data.folds_file:
        found.add(FOLDS_FILE)
    return found


def same_place(field: str, first: object, second: object) -> bool:
    """Whether two values of a field name the same folder or file."""
    if field not in (NAME, FOLDS_FILE, START_FROM) or not (first and second):
        return False
    if field == NAME and not (stored.is_folder(str(first)) and stored.is_folder(str(second))):
        return False
    one, other = (Path(str(value)).expanduser().resolve() for value in (first, second))
    return one == other


def final_names(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """A copy of a configuration that names no folder of the machine it comes from.

    The fields of `PLACES` are empty. Paths of other runs, of weights, of a table of folds and of a
    folder of pictures are cut to their final names.
    """
    config = config.copy_and_resolve_references()
    config.data.update(dict.fromkeys(PLACES, ""))
    config.data.name = Path(config.data.name).name
    config.data.folds_file = Path(config.data.folds_file).name
    start = Path(config.train.start_from)
    parts = 2 if start.name.startswith("fold_") else 1
    config.train.start_from = "/".join(start.parts[-parts:])
    config.loss.lossnet_weights = Path(config.loss.lossnet_weights).name
    if config.model.get("encoder_weights"):
        config.model.encoder_weights = Path(config.model.encoder_weights).name
    return config


def check_apart(workdir: Path, config: config_dict.ConfigDict) -> None:
    """Refuses a run folder among the pictures, since the dataset would change with each start.

    Raises:
      UserError: if it is the folder of pictures, or in it.
    """
    if is_folder(config) and config.data.name:
        pictures = Path(config.data.name).expanduser().resolve()
        if workdir.resolve().is_relative_to(pictures):
            raise UserError(
                f"--workdir={workdir} lies in the folder of pictures {config.data.name}; give one "
                "elsewhere."
            )
