"""A run's configuration as the command line gives it: a file, and fields that are changed.

    config = read(given)        with `given, rest = take(sys.argv[1:])`

``--config=FILE.py`` names a file with a function ``get_config()``, ``--config=mt_unetpp`` one that
this package brings along, and ``--config.train.epochs=50`` changes a field. Values are read by
``ml_collections.config_flags``. This is the only place that reads configurations, so what is wrong
with one is found here, whatever the command, and told in one paragraph.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from mtbus_jax.commandline import nearest
from mtbus_jax.errors import UserError

_HERE = Path(__file__).resolve().parent
# A wheel brings the configurations inside the package; in a clone they lie beside it.
SHIPPED = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"

# Fields that name a file or folder.
PATHS = (
    "data.data_dir",
    "data.manual_dir",
    "data.arrays_file",
    "data.cache_dir",
    "data.folds_file",
    "train.start_from",
)
# Elements of fields whose value may be empty, of their type.
_ELEMENTS = dict.fromkeys(("data.classes", "data.class_names"), ("benign", "malignant"))
_ELEMENTS |= {"data.folds": (0, 1), "loss.class_weights": (0.6, 1.2)}
_FLAG = re.compile(r"--?(no)?config(?:\.([^=]+))?(?:=(.*))?", re.DOTALL)
_NONE = ("none", "None")
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "values with commas",
    config_dict.ConfigDict: "a dictionary of all its fields",
}
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
      default: file for a command line that names none; with None it has to name one.

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
    base = _load(SHIPPED / "base.py", str(SHIPPED / "base.py"), "")
    config = _load(_find(path), path, argument)
    _check_fields(config, base, path)
    for field, text in given.changes.items():
        _change(config, base, field, text)
    _check_fields(config, base, "--config")
    for field in PATHS:
        section, name = field.split(".")
        config[section][name] = os.path.expanduser(config[section][name])
    return config.lock()


def _find(path: str) -> Path:
    """The file that ``--config`` means."""
    if not path.endswith(".py") and "/" not in path and os.sep not in path:
        shipped = SHIPPED / f"{path}.py"
        if not shipped.is_file():
            known = _shipped_names()
            raise UserError(
                f"--config={path}: there is no such configuration.{nearest(path, known)} Known: "
                f"{', '.join(known)}; or name a file of your own, such as configs/{path}.py."
            )
        return shipped
    found = Path(path).expanduser()
    if not found.is_file():
        known = _shipped_names()
        raise UserError(
            f"--config={path}: there is no such file.{nearest(found.stem, known)} The "
            "configurations of this project lie in configs/, such as configs/mt_unetpp.py; "
            f"--config=NAME finds them from anywhere: {', '.join(known)}."
        )
    return found


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.py") if path.stem != "__init__")


def _load(path: Path, shown: str, argument: str) -> config_dict.ConfigDict:
    """What ``get_config`` of a file returns."""
    spec = importlib.util.spec_from_file_location("_configuration", path)
    module = importlib.util.module_from_spec(spec)
    with _configs_importable(path.resolve().parent):
        try:
            spec.loader.exec_module(module)
            config = module.get_config(*([argument] if argument else []))
        except Exception as error:  # whatever a user's file does
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

    So a configuration loads from any folder, and a clone's files go with that clone's base.
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


def _leaves(config: config_dict.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; sections are not among them."""
    found = {}
    for name, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _check_fields(config: config_dict.ConfigDict, base: config_dict.ConfigDict, shown: str) -> None:
    """Refuses a configuration with other fields than those of ``configs/base.py``.

    A section that was replaced as a whole may leave options of the network out.
    """
    known = _leaves(base)
    found = _leaves(config)
    for field, value in found.items():
        if field in known and value is None and known[field] is not None:
            raise UserError(f"{shown}: config.{field} is None; it needs a value.")
        if field not in known and not field.startswith(_OPEN_SECTION):
            raise UserError(
                f"{shown}: config.{field} does not exist.{_nearest_field(field, known)}"
            )
    for field in known:
        if field not in found and (field == "model.name" or not field.startswith(_OPEN_SECTION)):
            raise UserError(
                f"{shown}: config.{field} is missing. Start from `config = base.get_config()`, as "
                "the files in configs/ do."
            )


def _nearest_field(field: str, known: Iterable[str]) -> str:
    """A hint at the field that was meant, and where to look if there is none."""
    section, _, name = field.rpartition(".")
    siblings = [each for each in known if each.rpartition(".")[0] == section]
    elsewhere = {each.rpartition(".")[2]: each for each in known}
    hint = nearest(name, [each.rpartition(".")[2] for each in siblings])
    if hint:
        hint = hint.replace('"', f'"{section}.' if section else '"', 1)
    elif name in elsewhere:
        hint = nearest(elsewhere[name], [elsewhere[name]])
    elif not siblings:
        hint = nearest(field, known)
    if hint:
        return hint
    if section and siblings:
        short = ", ".join(each.rpartition(".")[2] for each in siblings)
        return f" Fields of {section}: {short}."
    return " configs/base.py lists all fields."


def _change(
    config: config_dict.ConfigDict, base: config_dict.ConfigDict, field: str, text: str | bool
) -> None:
    """Sets one field from what stands behind ``--config.field=``.

    Raises:
      UserError: if there is no such field, or the text does not fit its type.
    """
    value = _value(config, field)
    if isinstance(text, bool):
        if not isinstance(value, bool) and _kind(config, field) != _KINDS[bool]:
            raise UserError(f"--config.{field} needs a value: {_kind(config, field)}.")
        text = str(text)
    if text in _NONE and _leaves(base).get(field, "") is None:
        section, _, name = field.rpartition(".")
        config[section][name] = None
        return
    if isinstance(value, tuple):
        text = repr(_as_tuple(field, text, value))
    argument = f"--config.{field}={text}"
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, lock_config=False, flag_values=values, sys_argv=["", argument]
        )
        values(["", argument])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError):
        example = "" if value is None or value == "" else f", such as {value}"
        if isinstance(value, config_dict.ConfigDict):
            example = f"; or change one of its fields, as in --config.{field}.{next(iter(value))}=…"
        raise UserError(f"{argument}: give {_kind(config, field)}{example}.") from None


def _kind(config: config_dict.ConfigDict, field: str) -> str:
    """In words what a field takes."""
    section, _, name = field.rpartition(".")
    kind = (config[section] if section else config).get_type(name)
    return _KINDS.get(kind, kind.__name__)


def _as_tuple(field: str, text: str, like: tuple) -> tuple:
    """Reads ``(0, 1)``, ``0,1``, ``('seg', 'cls')`` or ``seg,cls``.

    Args:
      field: its name.
      text: as given.
      like: value of the field so far; the new one has elements of that type, but any number.
    """
    like = like or _ELEMENTS.get(field, ())
    kind = type(like[0]) if like else object
    words = tuple(word.strip(" '\"") for word in text.strip("()[] ").split(",") if word.strip())
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        found = words
    found = tuple(found) if isinstance(found, tuple | list) else (found,)
    if field in _ELEMENTS and kind is str and all(type(each) in (int, float) for each in found):
        found = words  # a class may be called 0
    if kind is float and all(type(each) in (int, float) for each in found):
        found = tuple(map(float, found))
    if not all(isinstance(each, kind) for each in found):
        example = ",".join(map(str, like[:2]))
        what = {int: "whole numbers", float: "numbers"}.get(kind, "words")
        raise UserError(
            f"--config.{field}={text}: give {what} with commas, such as --config.{field}={example}."
        )
    return found


def _value(config: config_dict.ConfigDict, field: str) -> Any:
    """Value of a field.

    Raises:
      UserError: if there is none of that name.
    """
    value: Any = config
    for part in field.split("."):
        if not isinstance(value, config_dict.ConfigDict) or part not in value:
            near = _nearest_field(field, _leaves(config))
            raise UserError(f"--config.{field}: the configuration has no such field.{near}")
        value = value[part]
    return value
