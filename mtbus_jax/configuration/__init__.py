"""A run's configuration as the command line gives it: a file, and fields that are changed.

    config = read(given)        with `given, rest = take(sys.argv[1:])`

``--config=FILE.py`` names a file with a function ``get_config()``, ``--config=mt_unetpp`` one that
comes with this package, and ``--config.train.epochs=50`` changes a field. Values are read by
``ml_collections.config_flags``. This is the only place that reads configurations, so errors in one
are found here, whatever the command, and reported in one paragraph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtbus_jax.commandline import nearest
from mtbus_jax.configuration import values
from mtbus_jax.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel has the configurations inside the package; in a clone they are beside it.
SHIPPED = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())

# Fields that name a file or folder.
PATHS = values.PATHS
_FLAG = re.compile(r"--?(no)?config(?:\.([^=]+))?(?:=(.*))?", re.DOTALL)
# Each network has options of its own, which `mtbus_jax.models.create` checks by name.
_OPEN_SECTION = "model."


@dataclasses.dataclass(frozen=True)
class Given:
    """What a command line says about the configuration, not read yet.

    Attributes:
      file: value of ``--config``, None if it is not given.
      changes: text by field, such as ``{"train.epochs": "50"}``, as given last; True for a flag
        ``--config.eval.tta`` without text, False for ``--noconfig.eval.tta``.
    """

    file: str | None
    changes: Mapping[str, str | bool]


def take(argv: Sequence[str]) -> tuple[Given, list[str]]:
    """Takes ``--config…`` out of a command line, wherever it stands; the last of each counts.

    Args:
      argv: arguments without the program's name.

    Returns:
      What they say about the configuration, and the other arguments in their order.

    Raises:
      UserError: for ``--config`` without a value.
    """
    file, changes, rest = None, {}, []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        match = _FLAG.fullmatch(argument)
        if match is None or (match[1] and (match[2] is None or match[3] is not None)):
            rest.append(argument)
            continue
        no, field, value = match.groups()
        if no:
            value = False
        elif value is None and waiting and not re.match(r"-\D", waiting[0]):
            value = waiting.pop(0)
        if field is not None:
            changes.pop(field, None)  # the order is that of the last ones
            changes[field] = True if value is None else value
        elif value:
            file = value
        else:
            raise UserError("--config needs a value, such as --config=configs/mt_unetpp.py.")
    return Given(file, changes), rest


def read(given: Given, *, default: str | None = None) -> config_dict.ConfigDict:
    """Loads the file, changes the fields, checks the names of all fields.

    Args:
      given: from `take`.
      default: file to use if the command line names none; None requires it to name one.

    Returns:
      The configuration, locked, with ``~`` expanded in fields that name files.

    Raises:
      UserError: for a file that is missing or cannot be loaded, a field that does not exist or is
        missing, or a value of another type.
    """
    file = given.file or default
    if file is None:
        before = f" before --config.{next(iter(given.changes))}" if given.changes else ""
        raise UserError(f"--config is missing{before}, such as --config=configs/mt_unetpp.py.")
    path, _, argument = file.partition(":")
    config = _load(_find(path), path, argument)
    _check_fields(config, defaults(), path)
    return changed(config, given.changes)


def load_config(
    name: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
) -> config_dict.ConfigDict:
    """A configuration for Python code, as ``--config=`` gives it on a command line.

    Args:
      name: a file with ``get_config()``, or the name of a shipped one, such as ``best``.
      changes: values by field, such as ``{"train.epochs": 40, "data.folds": (0,)}``.

    Raises:
      UserError: see `read`.
    """
    texts = {field: values.as_text(value) for field, value in (changes or {}).items()}
    return read(Given(os.fspath(name), texts))


def changed(
    config: config_dict.ConfigDict, changes: Mapping[str, str | bool]
) -> config_dict.ConfigDict:
    """Sets fields of a configuration as on the command line; raises as `read` does.

    With another ``model.name``, options that the file set for its own network return to those of
    ``configs/base.py``, which stand for the other network's own defaults.

    Args:
      config: to start from; changed in place.
      changes: see `Given`.
    """
    base, before = defaults(), config.model.name
    for field, text in changes.items():
        values.change(config, base, field, text)
    if config.model.name != before:
        given = {field.removeprefix("model.") for field in changes} | {"name"}
        with config.unlocked(), config.ignore_type():
            for option in set(config.model) - given:
                config.model[option] = base.model.get(option)
    _check_fields(config, base, "--config")
    for field in PATHS:
        section, name = field.split(".")
        config[section][name] = os.path.expanduser(config[section][name])
    return config.lock()


def defaults() -> config_dict.ConfigDict:
    """The default of every field, as in ``configs/base.py``: the published recipe."""
    return _load(SHIPPED / "base.py", str(SHIPPED / "base.py"), "")


def _find(path: str) -> Path:
    """The file that ``--config`` means."""
    if not path.endswith(".py") and "/" not in path and os.sep not in path:
        shipped = SHIPPED / f"{path}.py"
        if not shipped.is_file():
            known = shipped_names()
            raise UserError(
                f"--config={path}: there is no such configuration.{nearest(path, known)} Known: "
                f"{', '.join(known)}; or name a file of your own, such as configs/{path}.py."
            )
        return shipped
    found = Path(path).expanduser()
    if not found.is_file():
        known = shipped_names()
        raise UserError(
            f"--config={path}: there is no such file.{nearest(found.stem, known)} The "
            "configurations of this project lie in configs/, such as configs/mt_unetpp.py; "
            f"--config=NAME finds them from anywhere: {', '.join(known)}."
        )
    if found.suffix != ".py":
        raise UserError(
            f"--config={path} is not a Python file with get_config(). A run's own configuration is "
            "read from --workdir; a new run starts from a recipe, such as --config=mt_unetpp."
        )
    return found


def shipped_names() -> list[str]:
    """Names of the configurations that come with the package, such as ``best``."""
    return sorted(path.stem for path in SHIPPED.glob("*.py") if path.stem != "__init__")


def _load(path: Path, shown: str, argument: str) -> config_dict.ConfigDict:
    """What ``get_config`` of a file returns."""
    spec = importlib.util.spec_from_file_location("_configuration", path)
    module = importlib.util.module_from_spec(spec)
    with _configs_importable(path.resolve().parent):
        try:
            spec.loader.exec_module(module)
            config = module.get_config(*([argument] if argument else []))
        except Exception as error:  # a user's file may raise anything
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename) == path
            ]
            where = f"line {lines[-1]}: " if lines else ""
            raise UserError(
                f"--config={shown} cannot be loaded: {where}{type(error).__name__}: {error}"
            ) from None
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(
            f"--config={shown}: get_config() returns {type(config).__name__}, not a ConfigDict. "
            "Start from `config = base.get_config()`, as the files in configs/ do."
        )
    return config


@contextlib.contextmanager
def _configs_importable(folder: Path) -> Iterator[None]:
    """Inside, ``from configs import base`` finds the file in ``folder``, else the shipped one.

    So a configuration loads from any folder, and a clone's files use that clone's base.
    """

    def own() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == "configs"]

    kept = {name: sys.modules.pop(name) for name in own()}
    package = types.ModuleType("configs")
    package.__path__ = [str(folder), str(Path.cwd() / "configs"), str(SHIPPED)]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in own():
            del sys.modules[name]
        sys.modules.update(kept)


def _check_fields(config: config_dict.ConfigDict, base: config_dict.ConfigDict, shown: str) -> None:
    """Refuses a configuration that lacks fields of ``configs/base.py`` or has others.

    A section that was replaced as a whole may omit options of the network.
    """
    known = values.leaves(base)
    found = values.leaves(config)
    for field, value in found.items():
        if field in known and value is None and known[field] is not None:
            raise UserError(f"{shown}: config.{field} is None; it needs a value.")
        if field not in known and not field.startswith(_OPEN_SECTION):
            raise UserError(
                f"{shown}: config.{field} does not exist.{values.nearest_field(field, known)}"
            )
    for field in known:
        if field not in found and (field == "model.name" or not field.startswith(_OPEN_SECTION)):
            raise UserError(
                f"{shown}: config.{field} is missing. Start from `config = base.get_config()`, as "
                "the files in configs/ do."
            )
